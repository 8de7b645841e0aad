from libc.stddef cimport size_t
from libc.stdint cimport uint32_t

from infcore._cpp.errors cimport infcore_translate
from infcore._cpp.latency cimport Curve


cdef extern from * nogil:
    """
    #include <infcore/batch/length_groups.hpp>
    typedef std::span<const double> InfcoreWorks;
    typedef std::span<const std::uint32_t> InfcoreRowIndices;
    """
    cdef cppclass Works "InfcoreWorks":
        Works() noexcept
        Works(const double*, size_t) noexcept
    cdef cppclass RowIndices "InfcoreRowIndices":
        const uint32_t* data() noexcept
        size_t size() noexcept


cdef extern from "<infcore/batch/length_groups.hpp>" namespace "infcore::batch" nogil:
    cdef cppclass LengthGroups:
        LengthGroups(uint32_t n_rows_max) except +infcore_translate
        void split(Works, const Curve&, uint32_t max_batch_size) noexcept
        uint32_t n_rows_max() noexcept
        uint32_t n_groups() noexcept
        RowIndices group(uint32_t) noexcept
        double seconds() noexcept
