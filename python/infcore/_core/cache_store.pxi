# Of cache.pyx: what its methods share.

cdef object absent = object()
cdef object one = 1.0            # put()'s own defaults, so that they need no check
cdef object zero = 0
cdef object nothing_stale = 0.0
cdef tuple no_tags = ()


cdef inline Shard shard_of(Store store, const CacheKey* known):
    # The low bits of the hash find a place inside the shard.
    return <Shard>PyList_GET_ITEM(store.shards, (known.hash >> 20) & (len(store.shards) - 1))


cdef object look(Store store, object key, cbool stale):
    cdef CacheKey known
    cdef int64_t now_ns = store.now_ns()
    key_of(key, &known)
    cdef Shard shard = shard_of(store, &known)
    cdef CacheShard* entries = shard.c_obj.get()
    entries.lock.lock()
    cdef EntryId id = find(shard, key, &known)
    value = absent
    if id != no_entry and (entries.is_live(id, now_ns) or (stale and entries.is_stale(id, now_ns))):
        value = shard.values[id]
    entries.lock.unlock()
    return value


cdef cbool place(Shard shard, object key, object value, const CacheKey* known, const NewEntry& entry,
                 int64_t now_ns) except *:
    cdef CacheShard* entries = shard.c_obj.get()
    cdef EntryId id = no_entry
    cdef Outcome outcome
    entries.lock.lock()
    cdef EntryId old = find(shard, key, known)
    if not entry.asked and not has_place(entries, old, entry, now_ns):
        entries.lock.unlock()
        return False
    try:
        outcome = entries.put(known.hash, entry, old, now_ns, id)
        while len(shard.keys) < entries.n_ids():
            shard.keys.append(None)
            shard.values.append(None)
        before = None
        if outcome == Outcome.stored:
            before = (shard.keys[id], shard.values[id])
            shard.keys[id], shard.values[id] = key, value
        gone = gone_of(shard)
    finally:
        entries.lock.unlock()
    return outcome == Outcome.stored  # `before` and `gone` end here: their destructors may call the cache


cdef object gone_of(Shard shard):
    """Keys and values of what is gone, to be let go without the lock; None where nothing is."""
    cdef EntryId id = shard.c_obj.get().take_gone()
    if id == no_entry:
        return None
    gone = []
    while id != no_entry:
        if id < <EntryId>len(shard.keys):
            gone.append(shard.keys[id])
            gone.append(shard.values[id])
            shard.keys[id] = shard.values[id] = None
        id = shard.c_obj.get().take_gone()
    return gone


cdef cbool pinned(Store store, object key, cbool pin) except *:
    cdef CacheKey known
    cdef int64_t now_ns = store.now_ns()
    key_of(key, &known)
    cdef Shard shard = shard_of(store, &known)
    cdef CacheShard* entries = shard.c_obj.get()
    cdef cbool done = False
    entries.lock.lock()
    cdef EntryId id = find(shard, key, &known)
    try:
        if id != no_entry and not pin:
            done = entries.unpin(id)
        elif id != no_entry and entries.is_live(id, now_ns):
            entries.pin(id)
            done = True
    finally:
        entries.lock.unlock()
    return done


cdef cbool brought(Store store, object key, object value, dict told) except *:
    """As put(), on a path of its own: that one must stay short."""
    cdef CacheKey known
    cdef NewEntry entry
    cdef vector[string_view] names
    told = {**put_defaults, **told}
    if len(told) != len(put_defaults):
        raise InvalidType(f"put() has no {sorted(set(told) - set(put_defaults))}; allowed: {sorted(put_defaults)}")
    key_of(key, &known)
    size_bytes = store.estimate(value) if told["size_bytes"] is None else told["size_bytes"]
    entry.bytes = <uint64_t>whole("size_bytes", size_bytes, 0, 0x7FFFFFFFFFFFFFFF) or 1
    entry.cost_us, entry.reuse = finite("cost_us", told["cost_us"], 0.0), finite("reuse", told["reuse"], 0.0)
    entry.version = whole("version", told["version"], 0, 0x7FFFFFFFFFFFFFFF)
    encoded = encoded_tags(told["tags"])
    for name in encoded:
        names.push_back(string_view(<bytes>name, len(<bytes>name)))
    entry.tags = TagSpan(names.data(), names.size())
    store.timed = store.timed or told["ttl_s"] is not None
    cdef int64_t now_ns = store.now_ns()
    entry.expires_ns = add_ns(now_ns, store.ttl_ns) if told["ttl_s"] is None else until_ns("ttl_s", told["ttl_s"], now_ns)
    entry.stale_until_ns = until_ns("stale_s", told["stale_s"], entry.expires_ns)
    read_content(<PyObject*>key, known)
    entry.key, entry.kind, entry.asked = known.content, known.kind, False
    return place(shard_of(store, &known), key, value, &known, entry, now_ns)


cdef dict put_defaults = {"size_bytes": None, "cost_us": 1.0, "ttl_s": None, "stale_s": 0.0, "tags": (), "version": 0,
                          "reuse": 1.0}


cdef cbool has_place(CacheShard* entries, EntryId old, const NewEntry& entry, int64_t now_ns):
    """Whether what nobody asked for may be put: in nobody's way."""
    cdef uint64_t used = entries.counters().bytes_used
    if old != no_entry:
        if entries.is_live(old, now_ns) and entries.told(old).version >= entry.version:
            return False
        used -= entries.told(old).bytes
    return entry.bytes <= entries.capacity_bytes() and used <= entries.capacity_bytes() - entry.bytes


cdef cbool evicted(Store store, object key) except *:
    cdef CacheKey known
    key_of(key, &known)
    cdef Shard shard = shard_of(store, &known)
    cdef CacheShard* entries = shard.c_obj.get()
    entries.lock.lock()
    cdef EntryId id = find(shard, key, &known)
    cdef cbool done = id != no_entry and entries.evict(id)
    gone = gone_of(shard)
    entries.lock.unlock()
    return done


cdef object version_of(Store store, object key):
    cdef CacheKey known
    cdef int64_t now_ns = store.now_ns()
    key_of(key, &known)
    cdef Shard shard = shard_of(store, &known)
    cdef CacheShard* entries = shard.c_obj.get()
    cdef uint64_t version = 0
    entries.lock.lock()
    cdef EntryId id = find(shard, key, &known)
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
    entries.lock.lock()
    try:
        for id in range(entries.n_ids()):
            if entries.in_use(id):
                told = entries.told(id)
                rows.append((shard.keys[id], at, told.bytes, told.cost_us if entries.is_live(id, now_ns) else 0.0,
                             entries.is_pinned(id)))
    finally:
        entries.lock.unlock()
    return rows


cdef list encoded_tags(object tags):
    if isinstance(tags, (str, bytes)):
        raise InvalidType(f"tags is {type(tags).__name__}; allowed: an iterable of str")
    encoded = []
    for tag in tags:
        if not isinstance(tag, str):
            raise InvalidType(f"a tag is {type(tag).__name__}; allowed: str")
        encoded.append((<str>tag).encode("utf-8", "surrogatepass"))
    return encoded


cdef list rows_of(Store store, Shard shard):
    cdef CacheShard* entries = shard.c_obj.get()
    cdef int64_t now_ns = store.now_ns()
    cdef NewEntry told
    cdef EntryId id
    rows = []
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
    return rows


cdef dict _named(CacheCounters c):
    return {"hits": c.hits, "misses": c.misses, "evictions": c.evictions, "rejected": c.rejected,
            "expired": c.expired, "invalidated": c.invalidated, "bytes_used": c.bytes_used, "n_entries": c.n_entries,
            "bytes_hit": c.bytes_hit, "bytes_missed": c.bytes_missed,
            "cost_hit_us": c.cost_hit_us, "cost_missed_us": c.cost_missed_us}
