from libc.stdint cimport uint8_t, uint32_t
from libcpp cimport bool as cbool

from infcore._cpp.base cimport TimeNs


cdef extern from "<infcore/engine/flight.hpp>" namespace "infcore::engine" nogil:
    cdef enum class Landed(uint8_t):
        not_yet
        answered
        failed
    cdef cppclass Flight:
        void* owner
        void* payload
        uint32_t member
        cbool is_cheaper
        TimeNs run_ns
        TimeNs landed_ns
    cdef cppclass Seat:
        Flight* flight
        cbool is_passenger
    Landed landed_of(const Flight&) noexcept


cdef extern from "<infcore/base/reentrant_border_mutex.hpp>" namespace "infcore::base" nogil:
    cdef cppclass ReentrantBorderMutex:
        ReentrantBorderMutex() noexcept
        void lock() noexcept
        void unlock() noexcept
