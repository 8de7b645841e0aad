from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from infcore._cpp.errors cimport infcore_translate
from infcore._cpp.latency cimport BatchShape, Curve


# Only a copy at least this large gives the GIL up: taking it back may cost another thread's whole switch interval
# (5 ms by default), far more than a smaller copy holds the others up.
cdef enum:
    nogil_bytes_min = 256 * 1024


cdef extern from * nogil:
    """
    #include <infcore/device/packer.hpp>
    typedef std::span<const infcore::device::RowSource> InfcoreRows;
    typedef std::span<const std::byte* const> InfcoreRowPointers;
    """
    cppclass RowSpan "InfcoreRows":
        RowSpan() noexcept
        RowSpan(const RowSource*, size_t) noexcept

    cppclass RowPointers "InfcoreRowPointers":
        RowPointers() noexcept
        RowPointers(const byte* const*, size_t) noexcept


cdef extern from "<infcore/device/packer.hpp>" namespace "infcore::device" nogil:
    cdef enum:
        max_rank
        max_item_bytes

    cdef cppclass byte "std::byte":
        pass

    cdef cppclass RowSource:
        const byte* data
        const int64_t* dims

    cdef cppclass PadLayout:
        PadLayout() noexcept
        uint32_t item_bytes
        uint32_t rank
        uint32_t batch_axis
        int64_t dims_max[max_rank]
        byte pad_item[max_item_bytes]

    void pad_rows(RowSpan, const PadLayout&, byte* dst) noexcept
    void dims_max_of(RowSpan, uint32_t rank, int64_t* out) noexcept
    int64_t packed_steps(RowSpan) noexcept


cdef extern from "<infcore/device/row_casts.hpp>" namespace "infcore::device" nogil:
    ctypedef enum Item "infcore::device::Item":
        pass
    ctypedef void (*RowCast)(const byte*, byte*, size_t) noexcept
    RowCast cast_of(Item, Item) noexcept


cdef extern from "<infcore/device/row_table.hpp>" namespace "infcore::device" nogil:
    cdef cppclass RowTable:
        RowTable() noexcept
        RowPointers rows
        const int32_t* cu_seqlens
        size_t step_items
        uint32_t item_bytes

    cdef cppclass BatchItem:
        BatchItem() noexcept
        RowCast cast
        uint32_t bytes

    cdef cppclass PaddedForm:
        PaddedForm() noexcept
        size_t steps
        size_t chunks
        bint left
        const byte* pad_item
        bint is_filled

    void pack_table(const RowTable&, const BatchItem&, byte* dst) noexcept
    void pad_table(const RowTable&, const BatchItem&, const PaddedForm&, byte* dst) noexcept


cdef extern from "<infcore/device/emulated.hpp>" namespace "infcore::device" nogil:
    cdef cppclass EmulatedTimer:
        EmulatedTimer(double, uint64_t) noexcept
        double service_s(const Curve&, const BatchShape&) noexcept


cdef extern from * nogil:
    """
    #include <infcore/device/staging_ring.hpp>
    typedef infcore::device::StagingRing<> InfcoreStagingRing;
    """
    cdef cppclass StagingRegion "InfcoreStagingRing::Region":
        size_t at
        uint64_t ticket

    cdef cppclass MaybeStagingRegion "std::optional<InfcoreStagingRing::Region>":
        bint has_value() noexcept
        const StagingRegion& value "operator*"() noexcept

    cdef cppclass StagingRing "InfcoreStagingRing":
        StagingRing(size_t n_bytes) except +infcore_translate
        MaybeStagingRegion reserve(size_t n_bytes) noexcept
        void release(uint64_t ticket) noexcept
        size_t bytes_out() noexcept
        size_t bytes "bytes"() noexcept

    size_t staging_alignment "InfcoreStagingRing::alignment"
    size_t staging_rounded "InfcoreStagingRing::rounded"(size_t) noexcept


cdef extern from "<infcore/device/staged_rows.hpp>" namespace "infcore::device" nogil:
    cdef enum:
        staged_alignment

    size_t staged_bytes(const RowTable&) noexcept
    void stage_rows(const RowTable&, size_t at, byte* region) noexcept
