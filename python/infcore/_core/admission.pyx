"""The admission policies and the ladder alone, one decision at a time. Times are int nanoseconds."""
from cython.operator cimport dereference as deref
from libc.stdint cimport uint16_t, uint32_t
from libcpp.memory cimport unique_ptr

from infcore._core.fleet cimport whole
from infcore._cpp.admission cimport (AdmissionLadder, AdmissionPolicy as CppAdmissionPolicy, Answered, Arrival, Verdict,
                                     admission_policies as cpp_admission_policies, make_admission_policy)
from infcore._cpp.base cimport never_ns

cdef tuple _ENTRIES = ("admit", "infeasible", "refuse", "stale", "cheaper", "defer", "displace")


def admission_policies() -> list:
    """(name, whether it is a step of the ladder) of each policy, in the registry's order."""
    return [(row.name.decode(), bool(row.is_step)) for row in cpp_admission_policies()]


cdef class AdmissionPolicy:
    """One policy. Arguments as those of queue::Arrival and queue::Answered."""

    cdef unique_ptr[CppAdmissionPolicy] c_obj
    cdef uint32_t max_models

    def __init__(self, str name not None, max_models=4):
        self.max_models = <uint32_t>whole("max_models", max_models, 1, 1 << 20)
        self.c_obj = make_admission_policy(name.encode(), self.max_models)

    def admit(self, *, now_ns=0, deadline_ns=None, defer_ns=0, model=0, tier=0, bint has_stale=False, n_open=0,
              double best_s=-1.0, double wait_s=0.0, double goal_s=0.0, double capacity_per_s=0.0,
              double fallback_per_s=0.0, double fallback_wait_s=0.0, first_tier=0, last_tier=0) -> tuple:
        """(what becomes of it, until_ns, retry_after_s)."""
        cdef Arrival a
        cdef Verdict verdict
        a.now_ns, a.defer_ns = whole("now_ns", now_ns, 0, never_ns), whole("defer_ns", defer_ns, 0, never_ns)
        a.deadline_ns = never_ns if deadline_ns is None else whole("deadline_ns", deadline_ns, 0, never_ns)
        a.model = <uint32_t>whole("model", model, 0, self.max_models - 1)
        a.tier, a.first_tier = <uint16_t>whole("tier", tier, 0, 63), <uint16_t>whole("first_tier", first_tier, 0, 63)
        a.last_tier, a.has_stale = <uint16_t>whole("last_tier", last_tier, 0, 63), has_stale
        a.n_open = <uint32_t>whole("n_open", n_open, 0, 1 << 30)
        a.best_s, a.wait_s, a.goal_s, a.capacity_per_s = best_s, wait_s, goal_s, capacity_per_s
        a.fallback_per_s, a.fallback_wait_s = fallback_per_s, fallback_wait_s
        verdict = deref(self.c_obj).admit(a)
        return _ENTRIES[<int>verdict.entry], verdict.until_ns, verdict.retry_after_s

    def answered(self, *, model=0, n_open=1, max_batch_size=1, double latency_s=0.0, double service_s=0.0) -> None:
        cdef Answered a
        a.model = <uint32_t>whole("model", model, 0, self.max_models - 1)
        a.n_open = <uint32_t>whole("n_open", n_open, 0, 1 << 30)
        a.max_batch_size = <uint32_t>whole("max_batch_size", max_batch_size, 1, 1 << 20)
        a.latency_s, a.service_s = latency_s, service_s
        deref(self.c_obj).answered(a)

    def batch_delay_ns(self, configured_ns) -> int:
        return deref(self.c_obj).batch_delay_ns(whole("configured_ns", configured_ns, 0, never_ns))

    def limit(self, model=0) -> float:
        return deref(self.c_obj).limit(<uint32_t>whole("model", model, 0, self.max_models - 1))


cdef class Ladder:
    """queue::AdmissionLadder."""

    cdef AdmissionLadder c_obj

    def arrived(self, now_ns, double load, double capacity_per_s, n_rungs) -> int:
        return self.c_obj.arrived(whole("now_ns", now_ns, 0, never_ns), load, capacity_per_s,
                                  <uint32_t>whole("n_rungs", n_rungs, 0, 64))

    def refused(self) -> None:
        self.c_obj.refused()

    def settle(self, now_ns, n_rungs) -> int:
        return self.c_obj.settle(whole("now_ns", now_ns, 0, never_ns), <uint32_t>whole("n_rungs", n_rungs, 0, 64))
