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
    # The high bits of the hash find a place inside the shard.
    return <Shard>PyList_GET_ITEM(store.shards, known.hash & (PyList_GET_SIZE(store.shards) - 1))


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
            gone[n] = gone[n + 1] = <PyObject*>None
            exchange_pair(<PyObject*>shard.pairs, id, gone[n], gone[n + 1])
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


cdef int hand_over(Shard shard, list gone) except -1:
    """Lets go of the lock; what is gone is in the list then, for who has a lock of its own to let go of before."""
    cdef CacheShard* entries = shard.c_obj.get()
    cdef PyObject* key
    cdef PyObject* value
    cdef EntryId id
    try:
        while True:
            id = entries.take_gone()
            if id == no_entry:
                return 0
            Py_INCREF(None)
            Py_INCREF(None)
            key = value = <PyObject*>None
            exchange_pair(<PyObject*>shard.pairs, id, key, value)
            gone.append(<object>key)
            gone.append(<object>value)
            Py_XDECREF(key)
            Py_XDECREF(value)
    finally:
        entries.lock.unlock()


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
    value = <object>value_at(<PyObject*>shard.pairs, id)
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
        value = <object>value_at(<PyObject*>shard.pairs, id)
    entries.lock.unlock()
    return value


cdef inline int make_room(Shard shard) except -1:
    """For the key and the value of an entry more, before there is one. Under the lock, which is let go where it raises."""
    cdef Py_ssize_t n = 2 * (<Py_ssize_t>shard.c_obj.get().n_ids() + 1)
    return 0 if PyList_GET_SIZE(shard.pairs) >= n else grow_pairs(shard, n)


cdef int grow_pairs(Shard shard, Py_ssize_t n) except -1:
    try:
        while PyList_GET_SIZE(shard.pairs) < n:
            PyList_Append(shard.pairs, None)
    except:
        shard.c_obj.get().lock.unlock()
        raise
    return 0


cdef cbool place(Shard shard, object key, object value, const CacheKey* known, const NewEntry& entry,
                 int64_t now_ns) except *:
    cdef CacheShard* entries = shard.c_obj.get()
    cdef PyObject* key_before = NULL  # or the new one, on its way in
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
        key_before, value_before = <PyObject*>key, <PyObject*>value
        exchange_pair(<PyObject*>shard.pairs, id, key_before, value_before)
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


# -- as put(), on paths of their own: that one must stay short
cdef cbool put_over(Shard shard, object key, object value, const CacheKey& known, const NewEntry& entry, EntryId before,
                    int64_t now_ns, list gone) except *:
    """As place(), under the lock, which is let go, with `before` as the key's entry; what goes is handed over."""
    cdef CacheShard* entries = shard.c_obj.get()
    cdef PyObject* key_before = <PyObject*>key
    cdef PyObject* value_before = <PyObject*>value
    cdef EntryId id = no_entry
    cdef Outcome outcome
    make_room(shard)
    try:
        outcome = entries.put(known.hash, entry, before, now_ns, id)
    except:
        entries.lock.unlock()
        raise
    if outcome == Outcome.stored:
        Py_INCREF(key)
        Py_INCREF(value)
        exchange_pair(<PyObject*>shard.pairs, id, key_before, value_before)
    hand_over(shard, gone)
    if outcome == Outcome.stored:
        gone.append(<object>key_before)
        gone.append(<object>value_before)
        Py_XDECREF(key_before)
        Py_XDECREF(value_before)
    return outcome == Outcome.stored


cdef cbool landed(Store store, object key, object value, object over, dict told, list gone) except *:
    cdef CacheKey known
    cdef NewEntry entry
    cdef vector[string_view] names
    cdef int64_t now_ns
    cdef EntryId before
    encoded = read_told(store, key, value, told, &known, &entry, &names, &now_ns)
    cdef Shard shard = shard_of(store, &known)
    cdef CacheShard* entries = shard.c_obj.get()
    entries.lock.lock()
    compared = find(shard, key, &known, &before)
    if (before != no_entry and entries.is_live(before, now_ns) and entries.told(before).version >= entry.version
            and value_at(<PyObject*>shard.pairs, before) != <PyObject*>over):
        entries.lock.unlock()
        gone.append(compared)
        return False
    cdef cbool kept = put_over(shard, key, value, known, entry, before, now_ns, gone)
    gone.append(compared)
    return kept


cdef cbool brought(Store store, object key, object value, object instead_of, dict told, list gone) except *:
    cdef CacheKey known
    cdef NewEntry entry
    cdef vector[string_view] names
    cdef vector[EntryId] victims
    cdef int64_t now_ns
    cdef EntryId before
    cdef EntryId id
    encoded = read_told(store, key, value, told, &known, &entry, &names, &now_ns)
    entry.asked = False
    cdef Shard shard = shard_of(store, &known)
    cdef CacheShard* entries = shard.c_obj.get()
    elsewhere = []
    goes = residents_among(store, shard, instead_of, elsewhere, gone)
    victims.reserve(len(goes))
    entries.lock.lock()
    compared = find(shard, key, &known, &before)
    cdef uint64_t free_bytes = entries.capacity_bytes() - entries.counters().bytes_used
    if before != no_entry:
        free_bytes += entries.told(before).bytes
    for resident, at in goes:  # from here on the lock is not let go: what is found stays
        id = at
        if id != before and entries.in_use(id) and key_at(<PyObject*>shard.pairs, id) == <PyObject*>resident:
            if not entries.is_pinned(id):
                victims.push_back(id)
                free_bytes += entries.told(id).bytes
    if entry.bytes > free_bytes or not is_wanted(entries, before, entry, now_ns):
        entries.lock.unlock()
        gone.append(compared)
        return False
    for id in victims:
        entries.evict(id)
    cdef cbool kept = put_over(shard, key, value, known, entry, before, now_ns, gone)
    gone.append(compared)
    for other in elsewhere:
        evicted(store, other, gone)
    return kept


cdef list residents_among(Store store, Shard shard, object keys, list elsewhere, list gone):
    """Of those that are in the shard the key as it was put, by which the entry is known again, and the entry's id. Each
    once; the others are added to `elsewhere`."""
    cdef CacheKey known
    cdef EntryId id
    found = {}
    for key in keys:
        key_of(key, &known)
        if shard_of(store, &known) is not shard:
            elsewhere.append(key)
            continue
        shard.c_obj.get().lock.lock()
        compared = find(shard, key, &known, &id)
        resident = None if id == no_entry else <object>key_at(<PyObject*>shard.pairs, id)
        shard.c_obj.get().lock.unlock()
        gone.append(compared)  # which keeps it until nobody has a lock
        if id != no_entry:
            found[id] = resident
    gone.append(found)
    return [(resident, at) for at, resident in found.items()]


cdef cbool is_wanted(CacheShard* entries, EntryId old, const NewEntry& entry, int64_t now_ns) noexcept:
    """Whether put() would take it, and it is not there in that version."""
    if entries.is_outdated(entry, old, now_ns):
        return False
    return old == no_entry or not entries.is_live(old, now_ns) or entries.told(old).version < entry.version


cdef list read_told(Store store, object key, object value, dict told, CacheKey* known, NewEntry* entry,
                    vector[string_view]* names, int64_t* now_ns):
    """What put() would read of its arguments. Returns what `names` look at."""
    told = {**put_defaults, **told}
    if len(told) != len(put_defaults):
        raise InvalidType(f"put() has no {sorted(set(told) - set(put_defaults))}; allowed: {sorted(put_defaults)}")
    key_of(key, known)
    size_bytes = store.estimate(value) if told["size_bytes"] is None else told["size_bytes"]
    read_figures(entry, size_bytes, told["cost_us"], told["version"], told["reuse"])
    encoded = encoded_tags(told["tags"])
    for name in encoded:
        names.push_back(string_view(<bytes>name, len(<bytes>name)))
    entry.tags = TagSpan(names.data(), names.size())
    store.timed = store.timed or told["ttl_s"] is not None
    now_ns[0] = store.now_ns()
    entry.expires_ns = (add_ns(now_ns[0], store.ttl_ns) if told["ttl_s"] is None
                        else until_ns("ttl_s", told["ttl_s"], now_ns[0]))
    entry.stale_until_ns = until_ns("stale_s", told["stale_s"] or 0.0, entry.expires_ns)
    read_content(<PyObject*>key, known[0])
    entry.key, entry.kind = known.content, known.kind
    return encoded


cdef dict put_defaults = {"size_bytes": None, "cost_us": 1.0, "ttl_s": None, "stale_s": 0.0, "tags": (), "version": 0,
                          "reuse": 1.0}


cdef cbool evicted(Store store, object key, list gone) except *:
    cdef CacheKey known
    key_of(key, &known)
    cdef Shard shard = shard_of(store, &known)
    cdef CacheShard* entries = shard.c_obj.get()
    entries.lock.lock()
    cdef EntryId id
    compared = find(shard, key, &known, &id)
    cdef cbool done = id != no_entry and entries.evict(id)
    hand_over(shard, gone)
    gone.append(compared)
    return done


cdef object version_of(Store store, object key):
    cdef CacheKey known
    cdef int64_t now_ns = store.now_ns()
    key_of(key, &known)
    cdef Shard shard = shard_of(store, &known)
    cdef CacheShard* entries = shard.c_obj.get()
    cdef uint64_t version = 0
    entries.lock.lock()
    cdef EntryId id
    compared = find(shard, key, &known, &id)
    cdef cbool live = id != no_entry and entries.is_live(id, now_ns)
    if live:
        version = entries.told(id).version
    entries.lock.unlock()
    return version if live else -1


cdef object free_of(Shard shard):
    cdef CacheShard* entries = shard.c_obj.get()
    entries.lock.lock()
    cdef uint64_t n_bytes = entries.capacity_bytes() - entries.counters().bytes_used
    entries.lock.unlock()
    return n_bytes


cdef list residents_of(Store store, Shard shard, object at):
    cdef CacheShard* entries = shard.c_obj.get()
    cdef int64_t now_ns = store.now_ns()
    cdef NewEntry told
    cdef EntryId id
    rows = []
    cdef int collects = PyGC_Disable()  # as in rows_of()
    entries.lock.lock()
    try:
        for id in range(entries.n_ids()):
            if entries.in_use(id):
                told = entries.told(id)
                rows.append((<object>key_at(<PyObject*>shard.pairs, id), at, told.bytes,
                             told.cost_us if entries.is_live(id, now_ns) else 0.0, entries.is_pinned(id)))
    finally:
        entries.lock.unlock()
        if collects:
            PyGC_Enable()
    return rows


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
            rows.append((<object>key_at(<PyObject*>shard.pairs, id), <object>value_at(<PyObject*>shard.pairs, id), {
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
