from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector

from infcore._cpp.base cimport TimeNs
from infcore._cpp.errors cimport infcore_translate


cdef extern from "<infcore/queue/admission_policy.hpp>" namespace "infcore::queue" nogil:
    cdef cppclass Arrival:
        TimeNs now_ns, deadline_ns, defer_ns
        uint32_t model, n_open
        uint16_t tier, first_tier, last_tier
        cbool has_stale
        double best_s, wait_s, goal_s, capacity_per_s, fallback_per_s, fallback_wait_s
    cdef enum class Entry(uint8_t):
        admit
        infeasible
        refuse
        stale
        cheaper
        defer
        displace
    cdef cppclass Verdict:
        Entry entry
        TimeNs until_ns
        double retry_after_s
    cdef cppclass Answered:
        uint32_t model, n_open, max_batch_size
        double latency_s, service_s
    cdef cppclass AdmissionPolicy:
        Verdict admit(const Arrival&) noexcept
        void answered(const Answered&) noexcept
        TimeNs batch_delay_ns(TimeNs) noexcept
        double limit(uint32_t) noexcept
    cdef cppclass AdmissionRow:
        string name
        cbool is_step
    unique_ptr[AdmissionPolicy] make_admission_policy(const string&, uint32_t) except +infcore_translate
    vector[AdmissionRow] admission_policies() except +infcore_translate


cdef extern from "<infcore/queue/admission_ladder.hpp>" namespace "infcore::queue" nogil:
    cdef cppclass AdmissionLadder:
        uint32_t arrived(TimeNs, double, double, uint32_t) noexcept
        void refused() noexcept
        uint32_t settle(TimeNs, uint32_t) noexcept
        uint32_t rung() noexcept
