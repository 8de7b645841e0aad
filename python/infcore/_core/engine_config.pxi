# What the state machine is built with, and told of a model.
cdef EngineConfig _config_of(Fleet fleet, uint32_t max_requests, int n_tiers, double ageing_s, door, faults,
                             str residency) except *:
    cdef EngineConfig config
    config.max_requests = max_requests
    config.max_nodes = fleet.c_obj.get().max_nodes()
    config.max_models = fleet.c_obj.get().max_models()
    config.n_tiers = <uint16_t>n_tiers
    config.ageing_ns = to_ns(ageing_s) if ageing_s >= 0 else never_ns
    config.admission = [name.encode() for name in door.admission]
    config.overload_wait_ns = never_ns if door.overload_wait_s is None else to_ns(door.overload_wait_s)
    config.tier_capacity = door.tier_capacity
    config.shed_lowest = door.overflow == "shed_lowest"
    config.hedge_quantile = faults.hedge_quantile or 0.0
    config.hedge_budget = faults.hedge_budget
    config.retry_budget = unbounded if faults.retry_budget is None else faults.retry_budget
    config.log_terms, config.residency = faults.log_terms, residency.encode()
    config.judges_health = read_health(door.health, config.health)
    return config


cdef const ManualTime* _manual_of(object clock, object given) except? NULL:
    """The time that a test moves; NULL: the machine's own."""
    if isinstance(clock, ManualClock):
        return &(<ManualClock>clock).now
    if type(clock) is not Clock:
        raise InvalidArgument(f"clock is {given!r}; allowed for a live engine: None or infcore.ManualClock")
    return NULL


cdef ModelConfig _model_config_of(model, fallback) except *:
    """fallback  the ModelSpec that answers in its place under load, or None"""
    cdef ModelConfig config
    config.max_batch_size = model.max_batch_size
    config.batch_delay_ns_max = to_ns(model.max_batch_delay_s)
    config.idempotent, config.runs_share = model.idempotent, model.by_token
    config.length_buckets, config.preferred_batch_sizes = model.length_buckets, model.preferred_batch_sizes
    config.weights_bytes, config.load_s = model.weights_bytes, model.load_s
    if fallback is not None:
        config.fallback.value = (<ModelSpec>fallback).id
    return config


cdef dict _door_figures(const AdmissionFigures& f, tuple steps):
    """What engine.stats() says of a model's door."""
    return {"step": steps[f.rung - 1] if f.rung else None, "limit": f.limit if f.limit < 1e18 else None,
            "open": f.n_open, "put_off": f.n_put_off, "wait_s": f.wait_s}


cdef Curve _curve_of(curve):
    cdef Curve c
    c.base_s, c.per_request_s, c.per_work_s, c.per_padded_work_s = curve
    return c


cdef inline ModelId _model(uint32_t model):
    cdef ModelId id
    id.value = model
    return id


cdef inline NodeId _node(uint32_t node):
    cdef NodeId id
    id.value = node
    return id


cdef NodeConfig node_config_of(object run_limit_s, uint32_t kv_blocks):
    cdef NodeConfig config
    config.run_limit_ns = never_ns if run_limit_s is None else to_ns(run_limit_s)
    config.kv_blocks = kv_blocks
    return config
