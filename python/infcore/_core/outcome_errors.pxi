# The error that a request ended with, from the engine's reason.
cdef object _error_of(Future f, object payload):
    what = f"request to model {f.spec.name!r}"
    waited = f"after {seconds(f.c.end_ns - f.c.request.arrival_ns):.6g} s"
    if payload is not None:
        error = DeviceError(f"{what}: {payload}")
        error.__cause__ = payload.__cause__
    else:
        error = _reasoned(f, what, waited)
    error.reason = reason_names[<int>f.c.reason].decode()
    return error


cdef object _reasoned(Future f, str what, str waited):
    cdef Reason reason = f.c.reason
    allowed = seconds(f.c.request.deadline_ns - f.c.request.arrival_ns)
    if reason == Reason.early_drop:
        return DeadlineExceeded(f"{what}: given up {waited}, since the devices can't meet its deadline_s of "
                                f"{allowed:.6g} and the deadlines of others as well")
    if reason == Reason.deadline:
        return DeadlineExceeded(f"{what}: no device can meet its deadline_s of {allowed:.6g} any more, {waited}")
    if reason == Reason.infeasible:
        error = DeadlineInfeasible(f"{what}: deadline_s is {allowed:.6g}; allowed: at least {f.c.hint_s:.6g}, the best "
                                   f"time that any device would need now")
        error.best_s = f.c.hint_s
        return error
    if reason == Reason.overload or reason == Reason.displaced or reason == Reason.queue_full:
        if reason == Reason.queue_full:
            error = QueueFull(f"{what}: the engine holds as many requests as max_requests and tier_capacity allow")
        elif reason == Reason.displaced:
            error = Overloaded(f"{what}: its place went to a more urgent one, {waited}")
        else:
            error = Overloaded(f"{what}: the devices have more to do than they can; try again after {f.c.hint_s:.3g} s")
        error.retry_after_s = f.c.hint_s
        return error
    if reason == Reason.device_lost:
        return DeviceLost(f"{what}: device {f.device!r} stopped answering, {waited}, and it may not run again")
    if reason == Reason.device_failed:
        return DeviceError(f"{what}: no device could load it; stats() has the load_error of each")
    if reason == Reason.unloaded:
        return UnknownName(f"{what}: the model was unloaded {waited}")
    return EngineClosed(f"{what}: the engine was closed {waited}")
