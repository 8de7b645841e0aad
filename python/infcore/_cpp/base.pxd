from libc.stdint cimport int64_t, uint8_t, uint32_t

from infcore._cpp.errors cimport infcore_translate


cdef extern from "<infcore/base/clock.hpp>" namespace "infcore::base" nogil:
    ctypedef int64_t TimeNs
    const TimeNs never_ns
    TimeNs monotonic_ns() noexcept
    double seconds(TimeNs) noexcept
    TimeNs to_ns(double) noexcept
    TimeNs add_ns(TimeNs, TimeNs) noexcept


cdef extern from "<infcore/base/border_clock.hpp>" namespace "infcore::base" nogil:
    TimeNs border_now_ns() noexcept


cdef extern from * nogil:
    """
    #include <infcore/base/clock.hpp>
    #include <atomic>
    struct ManualTime : std::atomic<infcore::base::TimeNs> {
      ManualTime() noexcept : std::atomic<infcore::base::TimeNs>(0) {}
      void set(infcore::base::TimeNs t) noexcept { store(t, std::memory_order_release); }
      infcore::base::TimeNs get() const noexcept { return load(std::memory_order_acquire); }
    };
    """
    cdef cppclass ManualTime:
        void set(TimeNs) noexcept
        TimeNs get() noexcept


cdef extern from "<infcore/base/ids.hpp>" namespace "infcore::base" nogil:
    cdef cppclass NodeId:
        uint32_t value
    cdef cppclass ModelId:
        uint32_t value
        bint operator==(ModelId) noexcept


cdef extern from "<infcore/base/isa.hpp>" namespace "infcore::base" nogil:
    cdef enum class Isa(uint8_t):
        baseline
        avx2
        avx512
    Isa isa() noexcept


cdef extern from "<infcore/base/fork.hpp>" namespace "infcore::base" nogil:
    uint32_t fork_generation() noexcept
    void check_not_forked(uint32_t, const char*) except +infcore_translate
