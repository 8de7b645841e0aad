"""Host memory in which batches are staged: regions of one block that come back once nobody looks at them any more."""
cimport cython
cimport numpy as cnp
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.ref cimport Py_DECREF
from libc.stdint cimport uint64_t

from infcore._core.rows cimport Rows

import numpy

from infcore._cpp.device cimport (MaybeStagingRegion, RowTable, StagingRing, byte, nogil_bytes_min, stage_rows, staged_bytes,
                                  staging_alignment, staging_rounded)

from infcore.errors import InvalidArgument, InvalidType

cnp.import_array()

region_bytes_max = 1 << 41
cdef size_t bytes_max = region_bytes_max


cdef class Block:
    def __cinit__(self, object memory_of, size_t n_bytes):
        """n_bytes, a multiple of the alignment, of what memory_of gives; None: ordinary memory."""
        cdef size_t off
        cdef cnp.ndarray memory
        if memory_of is None:
            memory = numpy.empty(n_bytes + staging_alignment, numpy.uint8)
        else:
            memory = _checked(memory_of(n_bytes + staging_alignment), n_bytes + staging_alignment)
        off = <size_t>cnp.PyArray_DATA(memory) % staging_alignment
        self.data = <byte*>cnp.PyArray_BYTES(memory) + (staging_alignment - off) % staging_alignment
        self.memory = memory
        self.ring.reset(new StagingRing(n_bytes))


def _checked(given, size_t n_bytes):
    try:
        view = memoryview(given).cast("B")
    except (TypeError, ValueError) as error:
        raise InvalidType(f"memory gave {type(given).__name__}; allowed: a contiguous writable buffer ({error})") from None
    if view.readonly or <size_t>view.nbytes < n_bytes:
        raise InvalidArgument(f"memory gave {'a read-only buffer of ' if view.readonly else ''}{view.nbytes} bytes; "
                              f"allowed: a writable buffer of {n_bytes} bytes at least")
    return numpy.frombuffer(view, numpy.uint8)


@cython.no_gc_clear  # the block must be there when the region is given back
@cython.freelist(16)
cdef class Region:
    """A batch's piece of an Arena: a writable buffer of bytes. Goes back when the last view of it is gone.

    nbytes  its size; it begins at a multiple of 64
    """

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, self.nbytes, 0, flags)
        Py_DECREF(None)  # Cython had put a reference to it where self is now

    def __dealloc__(self):
        if self.block is not None:
            self.block.ring.get().release(self.ticket)

    @property
    def array(self):
        """(nbytes,) uint8: a view of it, without a copy; takes part in DLPack as every NumPy array does."""
        return numpy.frombuffer(self, numpy.uint8)

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __repr__(self) -> str:
        return f"Region({self.nbytes} bytes)"


cdef class Arena:
    def __init__(self, *, size_t capacity_bytes=0, memory=None):
        if memory is not None and not callable(memory):
            raise InvalidType(f"memory is {type(memory).__name__}; allowed: None, or a callable n_bytes -> writable buffer")
        if capacity_bytes > bytes_max:
            raise InvalidArgument(f"capacity_bytes is {capacity_bytes}; allowed: at most {region_bytes_max}")
        self.memory_of = memory
        self.n_allocations = 0
        self.block = None
        if capacity_bytes:
            self.block = Block(memory, staging_rounded(capacity_bytes))
            self.n_allocations = 1

    @property
    def capacity_bytes(self) -> int:
        """Of the present block."""
        return 0 if self.block is None else self.block.ring.get().bytes()

    def reserve(self, size_t n_bytes):
        """A region of n_bytes, its content whatever was there before.

        Returns  Region: a writable buffer that begins at a multiple of 64 and is nobody else's until its last view is
                 gone. That is what gives it back
        Raises   InvalidArgument: n_bytes beyond 2**41. MemoryError, and what `memory` raises, when a new block is taken
        Costs    O(regions given back since); no allocation but where the block grows
        """
        if n_bytes > bytes_max:
            raise InvalidArgument(f"n_bytes is {n_bytes}; allowed: at most {region_bytes_max}")
        return self.take(n_bytes)

    def stage_rows(self, Rows rows not None):
        """Tables and rows in a new region, from its start on."""
        cdef RowTable table = rows._table()
        cdef Region region
        if rows.rank == 0:
            raise InvalidArgument("rows[0] has no axes; allowed: at least one, as rows are staged by their steps")
        region = self.reserve(staged_bytes(table))
        if region.nbytes < nogil_bytes_min:
            stage_rows(table, 0, region.data)
        else:
            with nogil:
                stage_rows(table, 0, region.data)
        return region

    cdef Region take(self, size_t n_bytes):
        cdef MaybeStagingRegion found
        cdef Region region
        if self.block is not None:
            found = self.block.ring.get().reserve(n_bytes)
        if not found.has_value():
            self._grow(n_bytes)
            found = self.block.ring.get().reserve(n_bytes)
        region = Region.__new__(Region)
        region.block = self.block
        region.ticket = found.value().ticket
        region.data = self.block.data + found.value().at
        region.nbytes = n_bytes
        return region

    cdef int _grow(self, size_t n_bytes) except -1:
        """Another block: with three of the largest batch one fits wherever another lies, and twice what is out at once.
        The old block goes with its regions: if somebody keeps one for ever, that block is his."""
        cdef size_t need = staging_rounded(n_bytes), wanted = 3 * staging_rounded(n_bytes)
        if self.block is not None:
            wanted = max(wanted, 2 * (self.block.ring.get().bytes_out() + need), self.block.ring.get().bytes())
        self.block = Block(self.memory_of, wanted)
        self.n_allocations += 1
        return 0
