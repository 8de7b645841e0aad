from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.vector cimport vector

from infcore._cpp.base cimport TimeNs
from infcore._cpp.errors cimport infcore_translate


cdef extern from "<infcore/queue/queue_slots.hpp>" namespace "infcore::queue" nogil:
    const uint32_t no_slot


cdef extern from "<infcore/queue/tiered_queue.hpp>" namespace "infcore::queue" nogil:
    cdef cppclass TieredQueueConfig:
        uint32_t capacity
        uint32_t n_tiers
        vector[uint32_t] tier_capacities
        TimeNs ageing_ns
        cbool shed_lowest

    cdef cppclass Placed:
        uint32_t slot
        uint32_t shed

    const uint32_t placed_full "infcore::queue::Placed::full"
    const uint32_t placed_full_of_expired "infcore::queue::Placed::full_of_expired"
    const uint32_t placed_out_of_memory "infcore::queue::Placed::out_of_memory"
    const uint32_t n_slots_max "infcore::queue::Placed::n_slots_max"

    cdef cppclass Share "infcore::queue::TieredQueue::Share":
        uint32_t tenant
        int64_t units

    cdef cppclass TieredQueue:
        TieredQueue(const TieredQueueConfig&) except +infcore_translate
        Placed put(uint32_t, TimeNs, TimeNs, Share) noexcept
        uint32_t pop(TimeNs) noexcept
        uint32_t cancel(uint64_t) noexcept
        uint32_t take_expired(TimeNs) noexcept
        cbool has_expired(TimeNs) noexcept
        uint64_t ticket(uint32_t) noexcept
        cbool needs_now() noexcept
        cbool ages() noexcept
        uint32_t size() noexcept
        TimeNs next_deadline_ns() noexcept


cdef extern from "<infcore/queue/tenant_flows.hpp>" namespace "infcore::queue" nogil:
    int64_t units_of "infcore::queue::TenantFlows::units_of"(double) noexcept


cdef extern from "<infcore/queue/wake_once.hpp>" namespace "infcore::queue" nogil:
    cdef cppclass WakeOnce "infcore::queue::WakeOnce<>":
        WakeOnce() noexcept
        cbool arm() noexcept
        void disarm() noexcept


cdef extern from "<infcore/queue/futex.hpp>" namespace "infcore::queue" nogil:
    cdef enum class WaitOutcome(uint8_t):
        look_again
        timed_out
        interrupted


cdef extern from "<infcore/queue/wait_gate.hpp>" namespace "infcore::queue" nogil:
    cdef cppclass SpinLock "infcore::queue::SpinLock<>":
        SpinLock() noexcept
        void lock() noexcept
        void unlock() noexcept

    cdef cppclass WaitGate "infcore::queue::WaitGate<>":
        WaitGate() noexcept
        uint32_t enter() noexcept
        WaitOutcome wait(uint32_t, TimeNs) noexcept
        void leave() noexcept
        cbool open() noexcept
        void wake(uint32_t) noexcept
