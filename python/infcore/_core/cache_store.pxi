# Of cache.pyx: what its methods share.

cdef object absent = object()
cdef object unsure = object()
cdef object one = 1.0            # put()'s own defaults, so that they need no check
cdef object zero = 0
cdef object nothing_stale = 0.0
cdef tuple no_tags = ()


cdef inline Shard shard_of(Store store, const CacheKey* known):
    if not PyList_GET_SIZE(store.shards):
        raise InvalidType("Cache.__init__ was not called; allowed: use after it")
    # The low bits of the hash find a place inside the shard.
    return <Shard>PyList_GET_ITEM(store.shards, (known.hash >> 20) & (PyList_GET_SIZE(store.shards) - 1))


cdef void unlock(Shard shard, PyObject* key, PyObject* value) noexcept:
    """Lets go of the lock; then of these two, which may be NULL, and of what is gone: their destructors may come back.
    Makes nothing that the garbage collector counts: it runs others' destructors."""
    cdef CacheShard* entries = shard.c_obj.get()
    cdef PyObject* gone[64]
    cdef EntryId id
    cdef int n, i
    while True:
        n = 0
        while n < 62:
            id = entries.take_gone()
            if id == no_entry:
                break
            Py_INCREF(None)
            Py_INCREF(None)
            gone[n] = exchange_item(<PyObject*>shard.keys, id, <PyObject*>None)
            gone[n + 1] = exchange_item(<PyObject*>shard.values, id, <PyObject*>None)
            n += 2
        entries.lock.unlock()
        Py_XDECREF(key)
        Py_XDECREF(value)
        for i in range(n):
            Py_XDECREF(gone[i])
        if n < 62:
            return
        key = value = NULL
        entries.lock.lock()


cdef object miss(Shard shard, EntryId id, int64_t now_ns, object default):
    """Under the lock, which is let go."""
    shard.c_obj.get().miss()
    if id == no_entry or not shard.c_obj.get().met(id, now_ns):
        shard.c_obj.get().lock.unlock()
    else:
        unlock(shard, NULL, NULL)
    return default


cdef object get_closely(Store self, object key, object default, int64_t now_ns):
    cdef CacheKey known
    cdef EntryId id
    key_of(key, &known)
    cdef Shard shard = shard_of(self, &known)
    cdef CacheShard* entries = shard.c_obj.get()
    entries.lock.lock()
    compared = find(shard, key, &known, &id)
    if id == no_entry or not entries.is_live(id, now_ns):
        return miss(shard, id, now_ns, default)
    entries.hit(id)
    value = <object>PyList_GET_ITEM(shard.values, id)
    entries.lock.unlock()
    return value


cdef object look(Store store, object key, cbool stale):
    cdef CacheKey known
    cdef EntryId id
    cdef int64_t now_ns = store.now_ns()
    key_of(key, &known)
    cdef Shard shard = shard_of(store, &known)
    cdef CacheShard* entries = shard.c_obj.get()
    entries.lock.lock()
    compared = find(shard, key, &known, &id)
    value = absent
    if id != no_entry and (entries.is_live(id, now_ns) or (stale and entries.is_stale(id, now_ns))):
        value = <object>PyList_GET_ITEM(shard.values, id)
    entries.lock.unlock()
    return value


cdef inline int make_room(Shard shard) except -1:
    """For the key and the value of an entry more, before there is one. Under the lock, which is let go where it raises."""
    cdef Py_ssize_t n = <Py_ssize_t>shard.c_obj.get().n_ids() + 1
    if PyList_GET_SIZE(shard.keys) >= n and PyList_GET_SIZE(shard.values) >= n:
        return 0
    try:
        while PyList_GET_SIZE(shard.keys) < n:
            PyList_Append(shard.keys, None)
        while PyList_GET_SIZE(shard.values) < n:
            PyList_Append(shard.values, None)
    except:
        shard.c_obj.get().lock.unlock()
        raise
    return 0


cdef cbool place(Shard shard, object key, object value, const CacheKey* known, const NewEntry& entry,
                 int64_t now_ns) except *:
    cdef CacheShard* entries = shard.c_obj.get()
    cdef PyObject* key_before = NULL
    cdef PyObject* value_before = NULL
    cdef EntryId id = no_entry
    cdef EntryId before
    cdef Outcome outcome
    entries.lock.lock()
    compared = find(shard, key, known, &before)
    make_room(shard)
    try:
        outcome = entries.put(known.hash, entry, before, now_ns, id)
    except:
        entries.lock.unlock()
        raise
    if outcome == Outcome.stored:
        Py_INCREF(key)
        Py_INCREF(value)
        key_before = exchange_item(<PyObject*>shard.keys, id, <PyObject*>key)
        value_before = exchange_item(<PyObject*>shard.values, id, <PyObject*>value)
    unlock(shard, key_before, value_before)
    return outcome == Outcome.stored


cdef cbool pinned(Store store, object key, cbool pin) except *:
    cdef CacheKey known
    cdef EntryId id
    cdef int64_t now_ns = store.now_ns()
    key_of(key, &known)
    cdef Shard shard = shard_of(store, &known)
    cdef CacheShard* entries = shard.c_obj.get()
    cdef cbool done = False
    entries.lock.lock()
    compared = find(shard, key, &known, &id)
    try:
        if id != no_entry and not pin:
            done = entries.unpin(id)
        elif id != no_entry and entries.is_live(id, now_ns):
            entries.pin(id)
            done = True
    finally:
        entries.lock.unlock()
    return done


cdef list encoded_tags(object tags):
    """Each once."""
    if isinstance(tags, (str, bytes)):
        raise InvalidType(f"tags is {type(tags).__name__}; allowed: an iterable of str")
    try:
        given = list(tags)
    except TypeError:
        raise InvalidType(f"tags is {type(tags).__name__}; allowed: an iterable of str") from None
    for tag in given:
        if not isinstance(tag, str):
            raise InvalidType(f"a tag is {type(tag).__name__}; allowed: str")
    return [(<str>tag).encode("utf-8", "surrogatepass") for tag in dict.fromkeys(given)]


cdef int read_figures(NewEntry* entry, object size_bytes, object cost_us, object version, object reuse) except -1:
    if not count_of(<PyObject*>size_bytes, entry.bytes):
        entry.bytes = <uint64_t>whole("size_bytes", size_bytes, 0, 0x7FFFFFFFFFFFFFFF)
    entry.bytes = entry.bytes or 1
    if type(cost_us) is float and 0.0 <= <double>cost_us < INFINITY:
        entry.cost_us = <double>cost_us
    else:
        entry.cost_us = finite("cost_us", cost_us, 0.0)
    entry.reuse = 1.0 if reuse is one else finite("reuse", reuse, 0.0)
    if not count_of(<PyObject*>version, entry.version):
        entry.version = whole("version", version, 0, 0x7FFFFFFFFFFFFFFF)
    return 0


cdef list rows_of(Store store, Shard shard):
    cdef CacheShard* entries = shard.c_obj.get()
    cdef int64_t now_ns = store.now_ns()
    cdef NewEntry told
    cdef EntryId id
    rows = []
    # What is made under the lock must not set off the garbage collector, which runs others' destructors.
    cdef int collects = PyGC_Disable()
    entries.lock.lock()
    try:
        for id in range(entries.n_ids()):
            if not entries.in_use(id) or not entries.is_live(id, now_ns):
                continue
            told = entries.told(id)
            rows.append((shard.keys[id], shard.values[id], {
                "size_bytes": told.bytes, "cost_us": told.cost_us, "version": told.version, "reuse": told.reuse,
                "ttl_s": None if told.expires_ns == never_ns else seconds(told.expires_ns - now_ns),
                "stale_s": 0.0 if told.expires_ns == never_ns else seconds(told.stale_until_ns - told.expires_ns),
                "tags": tuple([(<bytes>tag.data()[:tag.size()]).decode("utf-8", "surrogatepass")
                               for tag in entries.tags(id)])}))
    finally:
        entries.lock.unlock()
        if collects:
            PyGC_Enable()
    return rows


cdef dict _named(CacheCounters c):
    return {"hits": c.hits, "misses": c.misses, "evictions": c.evictions, "rejected": c.rejected,
            "expired": c.expired, "invalidated": c.invalidated, "bytes_used": c.bytes_used, "n_entries": c.n_entries,
            "bytes_hit": c.bytes_hit, "bytes_missed": c.bytes_missed,
            "cost_hit_us": c.cost_hit_us, "cost_missed_us": c.cost_missed_us}
