"""The batching rules alone, one decision at a time: for tests and for tuning. Times are int nanoseconds."""
from cython.operator cimport dereference as deref
from libc.stdint cimport int64_t, uint32_t
from libcpp.memory cimport unique_ptr

from infcore._core.base cimport finite
from infcore._core.fleet cimport whole
from infcore._core.latency cimport LatencyModel, shape_of
from infcore._cpp.base cimport never_ns
from infcore._cpp.engine cimport (BatchingPolicy, Close, Pending, batching_policies as cpp_batching_policies,
                                  make_batching_policy)


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


cdef int64_t time_of(str field, object value) except? -1:
    return never_ns if value is None else whole(field, value, 0, never_ns)
