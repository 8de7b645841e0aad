# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""Paged KV cache blocks and the names of token prefixes: arrays in, one call, arrays out."""
from libc.stdint cimport UINT32_MAX, UINT64_MAX, int32_t, int64_t, uint32_t, uint64_t
from libcpp.memory cimport unique_ptr
from libcpp.utility cimport move

cimport numpy as cnp
from cpython.list cimport PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_CheckExact

import operator

import numpy

from infcore._core.fleet cimport whole
from infcore._cpp.device cimport nogil_bytes_min
from infcore._cpp.kv cimport (Blocks, ConstBlocks, ConstNames, EvictionPolicy, KVBlocks as CppKVBlocks, KVBlocksConfig,
                              Names, eviction_policies as cpp_eviction_policies, hash_blocks32, hash_blocks64,
                              make_eviction_policy, no_block)

from infcore.errors import InvalidArgument, InvalidType

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object number, int* too_large) except? -1

cnp.import_array()


def eviction_policies() -> list:
    """Names of the policies that choose what a cache gives up, in the registry's order."""
    return [name.decode() for name in cpp_eviction_policies()]


def block_hashes(tokens, block_size=16, salt=0):
    """Chained names of the full blocks of a row of tokens.

    tokens      (n,) int32 or int64; other whole numbers are converted. Equal values name alike in both; read only
    block_size  tokens of a block, 1 to 65536; names of different sizes never meet
    salt        0 to 2**64 - 1: prefixes of different salts share nothing
    Returns     (n // block_size,) uint64, the caller's: element i names tokens[:(i + 1) * block_size]. A last block that
                is not full has no name
    Raises      InvalidArgument, InvalidType
    Complexity  O(n), one pass
    Source      chained block names: vLLM's prefix caching; the mix is ours (csrc/infcore/contracts/block_hash.hpp)
    """
    cdef cnp.ndarray row = tokens_of("tokens", tokens)
    return names_of(row, <uint64_t>whole("block_size", block_size, 1, 1 << 16), word("salt", salt))


cdef uint64_t word(str field, object value) except? 0:
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: an int") from None
    if not 0 <= number <= UINT64_MAX:
        raise InvalidArgument(f"{field} is {number}; allowed: an int from 0 to {UINT64_MAX}")
    return number


cdef cnp.ndarray names_of(cnp.ndarray tokens, uint64_t block_size, uint64_t salt):
    cdef cnp.npy_intp n = cnp.PyArray_DIM(tokens, 0) // <int64_t>block_size
    cdef cnp.ndarray out = cnp.PyArray_EMPTY(1, &n, cnp.NPY_UINT64, 0)
    cdef Names names = Names(<uint64_t*>cnp.PyArray_DATA(out), n)
    cdef const void* data = cnp.PyArray_DATA(tokens)
    if cnp.PyArray_ITEMSIZE(tokens) == 4:
        if cnp.PyArray_NBYTES(tokens) < nogil_bytes_min:
            hash_blocks32(<const int32_t*>data, <uint32_t>block_size, salt, names)
        else:
            with nogil:
                hash_blocks32(<const int32_t*>data, <uint32_t>block_size, salt, names)
    elif cnp.PyArray_NBYTES(tokens) < nogil_bytes_min:
        hash_blocks64(<const int64_t*>data, <uint32_t>block_size, salt, names)
    else:
        with nogil:
            hash_blocks64(<const int64_t*>data, <uint32_t>block_size, salt, names)
    return out


cdef inline bint is_row_of(cnp.ndarray array, int typenum) noexcept:
    return (cnp.PyArray_EquivTypenums(array.descr.type_num, typenum) and cnp.PyArray_ISNOTSWAPPED(array)
            and cnp.PyArray_NDIM(array) == 1 and cnp.PyArray_IS_C_CONTIGUOUS(array) and cnp.PyArray_ISALIGNED(array))


cdef cnp.ndarray integers(str field, object given, int typenum):
    if cnp.PyArray_Check(given) and is_row_of(given, typenum):
        return given
    try:
        wide = numpy.asarray(given)
    except (ValueError, TypeError, OverflowError) as ragged:
        raise InvalidType(f"{field} is no row of numbers: {ragged}") from None
    if wide.ndim != 1:
        raise InvalidArgument(f"{field} has shape {wide.shape}; allowed: one axis")
    if wide.dtype.kind not in "iu" and wide.size > 0:
        raise InvalidType(f"{field} has dtype {wide.dtype}; allowed: whole numbers")
    cdef cnp.ndarray row = numpy.ascontiguousarray(wide, dtype=cnp.PyArray_DescrFromType(typenum))
    if not numpy.array_equal(row, wide):
        at = int(numpy.flatnonzero(row != wide)[0])
        raise InvalidArgument(f"{field}[{at}] is {wide[at]}; allowed: what {row.dtype} holds")
    return row


cdef cnp.ndarray listed(list given):
    """A list of ints as int64, in an eighth of numpy.asarray's time. None of any other: what is wrong, NumPy finds."""
    cdef cnp.npy_intp n = PyList_GET_SIZE(given), i
    cdef cnp.ndarray row = cnp.PyArray_EMPTY(1, &n, cnp.NPY_INT64, 0)
    cdef int64_t* out = <int64_t*>cnp.PyArray_DATA(row)
    cdef int too_large = 0
    for i in range(n):
        if not PyLong_CheckExact(<object>PyList_GET_ITEM(given, i)):
            return None
        out[i] = PyLong_AsLongLongAndOverflow(<object>PyList_GET_ITEM(given, i), &too_large)
        if too_large:
            return None
    return row


cdef cnp.ndarray tokens_of(str field, object given):
    if cnp.PyArray_Check(given) and is_row_of(given, cnp.NPY_INT32):
        return given
    row = listed(<list>given) if PyList_CheckExact(given) else None
    return row if row is not None else integers(field, given, cnp.NPY_INT64)


cdef class KVBlocks:
    """Who uses which block of a paged KV cache, and which hold a prefix that may be used again. It moves no data.

    n_blocks       on the device, 1 to 2**30
    block_size     tokens of a block, 1 to 65536
    n_host_blocks  for a ContinuousBatcher to swap to
    policy         what chooses among cached blocks that nobody uses, leaf first: one of eviction_policies()
    Threads        calls hold the GIL; one owner at a time. While a ContinuousBatcher runs over it, all blocks are its
    Complexity     O(1) a block; O(log n) a block that is evicted
    Source         vLLM (SOSP 2023), section 4.3, for paging and copy on write; csrc/infcore/batch/kv_blocks.hpp
    """

    def __init__(self, n_blocks, block_size, *, n_host_blocks=0, policy="lru"):
        cdef KVBlocksConfig config
        if self.c_obj:
            raise InvalidArgument("KVBlocks.__init__ was called again; allowed: once")
        config.n_blocks = <uint32_t>whole("n_blocks", n_blocks, 0, UINT32_MAX)
        config.block_size = <uint32_t>whole("block_size", block_size, 0, UINT32_MAX)
        config.n_host_blocks = <uint32_t>whole("n_host_blocks", n_host_blocks, 0, UINT32_MAX)
        if not isinstance(policy, str):
            raise InvalidType(f"policy is {type(policy).__name__}; allowed: a str")
        cdef unique_ptr[EvictionPolicy] chosen = make_eviction_policy((<str>policy).encode())
        self.c_obj.reset(new CppKVBlocks(config, move(chosen)))

    cdef CppKVBlocks* ours(self) except NULL:
        if not self.c_obj:
            raise InvalidType("KVBlocks.__init__ was not called")
        if self.taken:
            raise InvalidArgument("kv is used by a ContinuousBatcher; allowed: one whose blocks are nobody's")
        return self.c_obj.get()

    cdef const CppKVBlocks* read(self) except NULL:
        if not self.c_obj:
            raise InvalidType("KVBlocks.__init__ was not called")
        return self.c_obj.get()

    def alloc(self, n):
        """n blocks, each used once: (n,) int32; None where there are not so many, and nothing has changed.

        Cached blocks that nobody uses are evicted as needed. Raises InvalidArgument, InvalidType.
        """
        cdef CppKVBlocks* kv = self.ours()
        cdef cnp.npy_intp n_wanted = whole("n", n, 0, UINT32_MAX)
        if n_wanted > kv.n_available():
            return None
        cdef cnp.ndarray out = cnp.PyArray_EMPTY(1, &n_wanted, cnp.NPY_INT32, 0)
        kv.alloc(Blocks(<uint32_t*>cnp.PyArray_DATA(out), n_wanted))
        return out

    def free(self, blocks) -> None:
        """One use less of each. Raises InvalidArgument where one is not used so often, and nothing has changed."""
        self._used_blocks(blocks, False)

    def share(self, blocks) -> None:
        """One use more of each, for a fork. Raises InvalidArgument where one is not used, and nothing has changed."""
        self._used_blocks(blocks, True)

    cdef int _used_blocks(self, object blocks, bint share) except -1:
        cdef CppKVBlocks* kv = self.ours()
        cdef cnp.ndarray ids = integers("blocks", blocks, cnp.NPY_INT32)
        cdef size_t n = cnp.PyArray_DIM(ids, 0)
        cdef ConstBlocks row = ConstBlocks(<const uint32_t*>cnp.PyArray_DATA(ids), n)
        cdef size_t bad = kv.first_not_used(row)
        if bad < n:
            raise InvalidArgument(f"blocks[{bad}] is {(<const int32_t*>cnp.PyArray_DATA(ids))[bad]}; allowed: a block of "
                                  f"0 to {kv.n_blocks() - 1} with a use left to give up")
        if share:
            kv.share(row)
        else:
            kv.free(row)
        return 0

    def match(self, hashes):
        """The blocks of the leading names that are cached, each used once more: (m,) int32, m <= len(hashes).

        hashes  (n,) uint64, as block_hashes gives them. Raises InvalidArgument, InvalidType
        """
        cdef CppKVBlocks* kv = self.ours()
        cdef cnp.ndarray names = integers("hashes", hashes, cnp.NPY_UINT64)
        cdef cnp.npy_intp n = cnp.PyArray_DIM(names, 0)
        cdef cnp.ndarray out = cnp.PyArray_EMPTY(1, &n, cnp.NPY_INT32, 0)
        cdef uint32_t n_found = kv.match(ConstNames(<const uint64_t*>cnp.PyArray_DATA(names), n),
                                         Blocks(<uint32_t*>cnp.PyArray_DATA(out), n))
        return out if n_found == n else out[:n_found].copy()

    def n_matching(self, hashes) -> int:
        """How many leading names are cached; changes nothing."""
        cdef const CppKVBlocks* kv = self.read()
        cdef cnp.ndarray names = integers("hashes", hashes, cnp.NPY_UINT64)
        return kv.peek(ConstNames(<const uint64_t*>cnp.PyArray_DATA(names), cnp.PyArray_DIM(names, 0))).n_blocks

    def store(self, blocks, hashes, *, parent=None):
        """Names full, computed blocks, so that match finds them: they are cached, used or not, until evicted.

        blocks   (n,) int32, used; in the order of their tokens
        hashes   (n,) uint64, their names
        parent   the cached block before the first; None: it is the first
        Returns  (n,) int32: the blocks to use from now on. Where a name was cached before, that block, and the use has
                 moved there
        Raises   InvalidArgument, InvalidType; nothing has changed
        """
        cdef CppKVBlocks* kv = self.ours()
        cdef cnp.ndarray ids = integers("blocks", blocks, cnp.NPY_INT32)
        cdef cnp.ndarray names = integers("hashes", hashes, cnp.NPY_UINT64)
        cdef size_t n = cnp.PyArray_DIM(ids, 0), i
        cdef const uint64_t* name = <const uint64_t*>cnp.PyArray_DATA(names)
        cdef uint32_t before = no_block
        if parent is not None:
            before = <uint32_t>whole("parent", parent, 0, kv.n_blocks() - 1)
            if not kv.is_cached(before):
                raise InvalidArgument(f"parent is {parent}; allowed: None or a cached block")
        if <size_t>cnp.PyArray_DIM(names, 0) != n:
            raise InvalidArgument(f"hashes has {cnp.PyArray_DIM(names, 0)} entries; allowed: {n}, one for each block")
        cdef cnp.ndarray out = cnp.PyArray_NewCopy(ids, cnp.NPY_CORDER)
        cdef uint32_t* block = <uint32_t*>cnp.PyArray_DATA(out)
        if numpy.unique(ids).size != n or numpy.unique(names).size != n:
            raise InvalidArgument("blocks or hashes has an entry twice; allowed: each once")
        cdef size_t bad = kv.first_not_used(ConstBlocks(block, n))
        if bad < n:
            raise InvalidArgument(f"blocks[{bad}] is {<int32_t>block[bad]}; allowed: a used block")
        for i in range(n):
            if kv.is_cached(block[i]) and kv.name(block[i]) != name[i]:
                raise InvalidArgument(f"hashes[{i}] is {name[i]}; allowed: {kv.name(block[i])}, as the block is named")
        for i in range(n):
            before = block[i] = kv.keep(block[i], name[i], before)
        return out

    def drop_cached(self) -> int:
        """Forget every cached block that nobody uses; returns how many."""
        return self.ours().drop_cached()

    def n_uses(self, block) -> int:
        """How often a block is used."""
        cdef const CppKVBlocks* kv = self.read()
        return kv.n_uses(<uint32_t>whole("block", block, 0, kv.n_blocks() - 1))

    @property
    def n_blocks(self) -> int:
        """Blocks on the device."""
        return self.read().n_blocks()

    @property
    def block_size(self) -> int:
        """Tokens of a block."""
        return self.read().block_size()

    @property
    def n_free(self) -> int:
        """Blocks with nothing in them."""
        return self.read().n_free()

    @property
    def n_cached(self) -> int:
        """Blocks that have a name, used or not."""
        return self.read().n_cached()

    @property
    def n_available(self) -> int:
        """What alloc can have: free blocks, and cached ones that nobody needs."""
        return self.read().n_available()

    @property
    def n_evicted(self) -> int:
        """Cached blocks that made room so far."""
        return self.read().n_evicted()

    @property
    def n_host_blocks(self) -> int:
        """Host blocks to swap to."""
        return self.read().n_host_blocks()

    @property
    def n_host_free(self) -> int:
        """Host blocks with nothing in them."""
        return self.read().n_host_free()
