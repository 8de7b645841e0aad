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
