from libc.stdint cimport int64_t, uint64_t

from infcore._cpp.errors cimport infcore_translate


cdef extern from * nogil:
    """
    #include <span>
    typedef std::span<const double> InfcoreDoubles;
    typedef std::span<const uint64_t> InfcoreCounts;
    """
    cdef cppclass Doubles "InfcoreDoubles":
        Doubles(const double*, size_t) noexcept
    cdef cppclass Counts "InfcoreCounts":
        Counts(const uint64_t*, size_t) noexcept


cdef extern from "<infcore/telemetry/histogram.hpp>" namespace "infcore::telemetry" nogil:
    cdef cppclass Histogram:
        Histogram(double min_s, double max_s) except +infcore_translate
        Histogram(const Histogram&) except +infcore_translate
        void record(double) noexcept
        void record_ns(int64_t) noexcept
        void record_shared(double) noexcept
        void record_many_shared(Doubles) noexcept
        void merge(const Histogram&) except +infcore_translate
        void merge_shared(const Histogram&) except +infcore_translate
        void restore(Counts, double lowest_s, double highest_s) except +infcore_translate
        uint64_t count() noexcept
        double quantile(double) noexcept
        double sum_s() noexcept
        double mean_s() noexcept
        double lowest_s() noexcept
        double highest_s() noexcept
        double min_s() noexcept
        double max_s() noexcept
        size_t n_buckets() noexcept
        size_t bytes() noexcept
        uint64_t bucket_count(size_t) noexcept
        double bucket_lower_s(size_t) noexcept
        size_t bucket_of(double) noexcept
