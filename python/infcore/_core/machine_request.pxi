# What a request of a Machine says of itself.


cdef int tell_prompt(Machine machine, Request& r, uint64_t session, const uint64_t[::1] blocks, block_size,
                     prompt_tokens) except -1:
    r.session, r.prompt_tokens = session, <uint32_t>whole("prompt_tokens", prompt_tokens, 0, 0x7FFFFFFF)
    r.block_size = <uint32_t>whole("block_size", block_size, 1, 1 << 16)
    if blocks is not None and blocks.shape[0] > 0:
        machine.prompts.append(blocks)
        r.blocks, r.n_blocks = &blocks[0], <uint32_t>whole("blocks", blocks.shape[0], 1, r.prompt_tokens // r.block_size)
    return 0


cdef int tell_limits(Machine machine, Request& r, TimeNs now_ns, work, tenant, tier, deadline_ns, arrival_ns,
                     defer_ns) except -1:
    r.work = finite("work", work, 0.0)
    if r.work > request_work_max:
        raise InvalidArgument(f"work is {work!r}; allowed: at most {request_work_max:g}")
    r.tenant = <uint32_t>whole("tenant", tenant, 0, 0xFFFFFFFF)
    r.tier = <uint16_t>whole("tier", tier, 0, machine.n_tiers - 1)
    r.deadline_ns = time_of("deadline_ns", deadline_ns)
    r.arrival_ns = now_ns if arrival_ns is None else time_of("arrival_ns", arrival_ns)
    r.defer_ns = whole("defer_ns", defer_ns, 0, 1 << 62)
    return 0


cdef class LoggedSignals(SignalGate):
    """Signals of a fleet whose machine keeps a log."""

    cdef Machine machine

    cdef bint take(self, NodeId id, const Signal& signal) except *:
        return self.machine.c_obj.get().signal(id, signal)


cdef dict counts_of(const Stats* s):
    """How many ended in which way."""
    return {"ok": s.ok, "failed": s.failed, "lost": s.lost, "expired": s.expired, "shed": s.shed,
            "cancelled": s.cancelled, "rejected": s.rejected, "retried": s.retried, "batches": s.batches,
            "ejections": s.ejections, "infeasible": s.infeasible, "overloaded": s.overloaded, "stale": s.stale,
            "displaced": s.displaced, "cheaper": s.cheaper, "deferred": s.deferred, "cached": s.cached, "hedged": s.hedged,
            "hedge_won": s.hedge_won, "hedge_wasted_s": s.hedge_wasted_s, "unretried": s.unretried,
            "loads": s.loads, "loads_failed": s.loads_failed, "unloads": s.unloads}
