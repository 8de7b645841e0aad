from libc.stdint cimport int32_t, int64_t


cdef extern from * nogil:
    """
    #include <infcore/device/block_tables.hpp>
    typedef std::span<const infcore::device::BlockRow> InfcoreBlockRows;
    typedef std::span<const std::int32_t> InfcoreCounts;
    typedef std::span<std::int64_t> InfcoreSlots;
    """
    cdef cppclass BlockRowSpan "InfcoreBlockRows":
        BlockRowSpan() noexcept
        BlockRowSpan(const BlockRow*, size_t) noexcept
    cdef cppclass CountSpan "InfcoreCounts":
        CountSpan() noexcept
        CountSpan(const int32_t*, size_t) noexcept
    cdef cppclass SlotSpan "InfcoreSlots":
        SlotSpan() noexcept
        SlotSpan(int64_t*, size_t) noexcept


cdef extern from "<infcore/device/block_tables.hpp>" namespace "infcore::device" nogil:
    cdef cppclass BlockRow:
        const int32_t* ids
        int64_t n_blocks

    cdef cppclass BadBlock:
        size_t row
        int64_t at

    cdef cppclass NewTokens:
        NewTokens() noexcept
        CountSpan computed
        CountSpan query_lens

    BadBlock first_bad_block(BlockRowSpan, int64_t ids_end) noexcept
    void fill_block_table(BlockRowSpan, int64_t max_blocks, int32_t pad_block, int32_t* dst) noexcept
    void fill_slot_mapping(BlockRowSpan, const NewTokens&, int32_t block_size, SlotSpan) noexcept
    void query_start_loc_of(CountSpan, int32_t* out) noexcept
