# What engine.stats() shows of one model or device.
cdef dict _figures(Stats& s):
    return {
        "requests": s.ok, "failed": s.failed, "lost": s.lost, "expired": s.expired, "shed": s.shed, "cancelled": s.cancelled,
        "rejected": s.rejected, "retried": s.retried, "batches": s.batches, "ejections": s.ejections,
        "infeasible": s.infeasible, "overloaded": s.overloaded, "displaced": s.displaced, "stale": s.stale,
        "cheaper": s.cheaper, "deferred": s.deferred, "cached": s.cached, "attached": s.attached,
        "batch_mean": (s.stages.get().batch_wait_s.count() / <double>s.batches) if s.batches else 0.0,
        "hedged": s.hedged, "hedge_won": s.hedge_won, "hedge_wasted_s": s.hedge_wasted_s, "unretried": s.unretried,
        "busy_s": s.busy_s, "work": s.work,
        "loads": s.loads, "loads_failed": s.loads_failed, "unloads": s.unloads, "load_s": s.load_s,
        "queue_s": _quantiles(s.stages.get().queue_s), "batch_wait_s": _quantiles(s.stages.get().batch_wait_s),
        "service_s": _quantiles(s.stages.get().service_s), "latency_s": _quantiles(s.stages.get().latency_s),
        "ttft_s": _quantiles(s.stages.get().ttft_s),
    }


cdef dict _quantiles(Histogram& h):
    if h.count() == 0:
        return {"p50": None, "p90": None, "p99": None, "p999": None, "mean": None}
    return {"p50": h.quantile(0.5), "p90": h.quantile(0.9), "p99": h.quantile(0.99), "p999": h.quantile(0.999),
            "mean": h.mean_s()}


cdef dict _latency_figures(const LatencyModel& known):
    """What engine.stats() says of a model on a device."""
    cdef BatchShape one
    cdef Curve curve = known.curve()
    one.n_requests = 1
    one.work_sum = one.work_max = 1.0
    state = "measured" if known.n_observed() else "expected" if known.has_prior() else "unknown"
    return {"known": state, "batches": known.n_observed(), "mean_s": known.service_s(one), "p99_s": known.upper_s(one),
            "spread": known.spread(),
            "curve": (curve.base_s, curve.per_request_s, curve.per_work_s, curve.per_padded_work_s)}
