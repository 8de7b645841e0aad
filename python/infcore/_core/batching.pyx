"""The batching rules alone, one decision at a time, and the cut of a batch into groups of like length.

Times of the rules are int nanoseconds.
"""
from cython.operator cimport dereference as deref
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint16_t, uint32_t
from libcpp.memory cimport unique_ptr
from libcpp.vector cimport vector

from infcore._core.base cimport finite
from infcore._core.fleet cimport whole
from infcore._core.latency cimport LatencyModel, shape_of
from infcore._cpp.base cimport never_ns
from infcore._cpp.batch cimport LengthGroups as CppLengthGroups, Works
from infcore._cpp.engine cimport (BatchingPolicy, Close, Pending, Traffic, Verdict, VerdictSpan, Waiting, WaitingSpan,
                                  batching_policies as cpp_batching_policies, make_batching_policy)

from infcore.errors import InvalidArgument

cdef int n_waiting_shown_max = 256  # of batch::BatchingPolicy


def batching_policies() -> list:
    """Names of the batching rules, in the registry's order."""
    return [name.decode() for name in cpp_batching_policies()]


def close_batch(str policy, now_ns, LatencyModel latency not None, *, n_requests, double work_sum=0.0,
                double work_max=0.0, earliest_deadline_ns=None, held_since_ns=0, arrivals_per_s=0.0, max_batch_size=64,
                delay_ns_max=0) -> tuple:
    """One decision of a batching rule: (n, wait_until_ns). Arguments as those of batch::Pending."""
    cdef unique_ptr[BatchingPolicy] rule = make_batching_policy(policy.encode())
    cdef Pending pending
    cdef Close close
    pending.shape = shape_of(<uint32_t>whole("n_requests", n_requests, 1, 1 << 20), work_sum, work_max)
    pending.earliest_deadline_ns = time_of("earliest_deadline_ns", earliest_deadline_ns)
    pending.held_since_ns = time_of("held_since_ns", held_since_ns)
    pending.arrivals_per_s = finite("arrivals_per_s", arrivals_per_s, 0.0)
    pending.max_batch_size = <uint32_t>whole("max_batch_size", max_batch_size, 1, 1 << 20)
    pending.delay_ns_max = time_of("delay_ns_max", delay_ns_max)
    close = deref(rule).close(time_of("now_ns", now_ns), pending, latency.c_obj)
    return close.n_requests, close.wait_until_ns


def select_batch(str policy, now_ns, waiting, LatencyModel latency not None, *, n_max=64, n_waiting=None,
                 max_batch_size=64, arrivals_per_s=0.0, capacity_per_s=0.0, share=1.0) -> list:
    """One decision of a batching rule on who is in a batch: "take", "leave" or "drop" for each that waits.

    waiting         (deadline_ns or None, work, tier, aged, tenant) of each, in the order of service, at most 256
    n_max           of the batch
    n_waiting       in the lane; None: those shown
    arrivals_per_s, capacity_per_s, share as in batch::Traffic
    Raises          InvalidArgument, InvalidType, UnknownName
    """
    cdef unique_ptr[BatchingPolicy] rule = make_batching_policy(policy.encode())
    cdef vector[Waiting] shown
    cdef vector[Verdict] verdicts
    cdef Waiting one
    cdef Traffic traffic
    for deadline_ns, work, tier, aged, tenant in waiting:
        one.deadline_ns = time_of("deadline_ns", deadline_ns)
        one.work = finite("work", work, 0.0)
        one.tier = <uint16_t>whole("tier", tier, 0, 65535)
        one.aged = bool(aged)
        one.tenant = <uint32_t>whole("tenant", tenant, 0, 0xFFFFFFFF)
        shown.push_back(one)
    if not 1 <= shown.size() <= n_waiting_shown_max:
        raise InvalidArgument(f"waiting has {shown.size()} requests; allowed: 1 to {n_waiting_shown_max}")
    traffic.n_waiting = <uint32_t>whole("n_waiting", shown.size() if n_waiting is None else n_waiting, 1, 1 << 30)
    traffic.max_batch_size = <uint32_t>whole("max_batch_size", max_batch_size, 1, 1 << 20)
    traffic.arrivals_per_s = finite("arrivals_per_s", arrivals_per_s, 0.0)
    traffic.capacity_per_s = finite("capacity_per_s", capacity_per_s, 0.0)
    traffic.share = finite("share", share, 1e-9)
    verdicts.assign(shown.size(), Verdict.leave)
    deref(rule).select(time_of("now_ns", now_ns), WaitingSpan(shown.data(), shown.size()),
                       <uint32_t>whole("n_max", n_max, 1, 1 << 20), traffic, latency.c_obj,
                       VerdictSpan(verdicts.data(), verdicts.size()))
    return [("leave", "take", "drop")[<int>verdict] for verdict in verdicts]


cdef class LengthGroups:
    """Cuts the rows of a batch into groups that a curve says are done soonest, one group after the other.

    n_rows_max  room for batches of so many rows, at most 2**20; the work grows with the square of them
    Source      csrc/infcore/batch/length_groups.hpp
    """
    cdef unique_ptr[CppLengthGroups] c_obj

    def __init__(self, n_rows_max=1024):
        self.c_obj.reset(new CppLengthGroups(<uint32_t>whole("n_rows_max", n_rows_max, 1, 1 << 20)))

    @property
    def n_rows_max(self) -> int:
        """Rows of the largest batch it has room for."""
        return self.c_obj.get().n_rows_max()

    def split(self, const double[::1] works not None, LatencyModel latency not None, *, max_batch_size=None) -> tuple:
        """(groups, seconds): the cheapest way to group these rows, and what the curve says it takes.

        works           (n,) float64, one per row, finite and >= 0; read only
        latency         whose curve counts
        max_batch_size  rows of a group at most; None: any
        Returns         groups of row indices, each row in one, least work first; seconds of all groups together
        Raises          InvalidArgument
        """
        cdef CppLengthGroups* rows = self.c_obj.get()
        cdef uint32_t g, n_max = rows.n_rows_max()
        cdef Py_ssize_t i
        if max_batch_size is not None:
            n_max = <uint32_t>whole("max_batch_size", max_batch_size, 1, 1 << 20)
        if not 1 <= works.shape[0] <= rows.n_rows_max():
            raise InvalidArgument(f"works has {works.shape[0]} rows; allowed: 1 to n_rows_max={rows.n_rows_max()}")
        for i in range(works.shape[0]):
            if not (isfinite(works[i]) and works[i] >= 0.0):
                raise InvalidArgument(f"works[{i}] is {works[i]}; allowed: a finite number >= 0")
        rows.split(Works(&works[0], works.shape[0]), latency.c_obj.curve(), n_max)
        groups = []
        for g in range(rows.n_groups()):
            groups.append([rows.group(g).data()[i] for i in range(<Py_ssize_t>rows.group(g).size())])
        return groups, rows.seconds()


cdef int64_t time_of(str field, object value) except? -1:
    return never_ns if value is None else whole(field, value, 0, never_ns)
