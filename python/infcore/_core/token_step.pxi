# TokenCurve and TokenStep: what goes in and out of a step, as Python sees it.

# As infcore::batch::TokenRow.
cdef cnp.dtype _row = numpy.dtype({
    "names": ["id", "cookie", "first_position", "n_tokens", "place", "n_blocks", "emits", "decodes"],
    "formats": ["u8", "u8", "u4", "u4", "u4", "u4", "?", "?"],
    "offsets": [0, 8, 16, 20, 24, 28, 32, 33],
    "itemsize": sizeof(TokenRow)})


cdef cnp.ndarray copied(const void* data, size_t n, cnp.dtype dtype):
    cdef cnp.ndarray out = numpy.empty(n, dtype)
    if n > 0:
        memcpy(cnp.PyArray_DATA(out), data, n * cnp.PyArray_ITEMSIZE(out))
    return out


cdef cnp.ndarray numbers(const void* data, cnp.npy_intp n, cnp.npy_intp n_columns, int typenum):
    cdef cnp.npy_intp[2] shape = [n, n_columns]
    cdef cnp.ndarray out = cnp.PyArray_EMPTY(1 if n_columns == 1 else 2, shape, typenum, 0)
    if n > 0:
        memcpy(cnp.PyArray_DATA(out), data, cnp.PyArray_NBYTES(out))
    return out


cdef class TokenCurve:
    """Seconds of one step of a token model, from what is in it.

    With P prefill tokens, D sequences that get one token each, and C tokens that these read:
    base_s + [P > 0] (prefill_base_s + per_prefill_token_s * P + per_prefill_token2_s * P**2)
    + [D > 0] (decode_base_s + per_decode_s * D + per_context_token_s * C + per_context_token2_s * C**2)

    swap_block_s  one block from the device to the host, or back
    All           finite, >= 0; the two squares may be negative. A sum below 0 counts as 0
    Raises        InvalidArgument, InvalidType
    """

    def __init__(self, *, base_s=0.0, prefill_base_s=0.0, per_prefill_token_s=0.0, per_prefill_token2_s=0.0,
                 decode_base_s=0.0, per_decode_s=0.0, per_context_token_s=0.0, per_context_token2_s=0.0,
                 swap_block_s=0.0):
        self.c_obj.base_s = finite("base_s", base_s, 0.0)
        self.c_obj.prefill_base_s = finite("prefill_base_s", prefill_base_s, 0.0)
        self.c_obj.per_prefill_token_s = finite("per_prefill_token_s", per_prefill_token_s, 0.0)
        self.c_obj.per_prefill_token2_s = finite("per_prefill_token2_s", per_prefill_token2_s, -1e300)
        self.c_obj.decode_base_s = finite("decode_base_s", decode_base_s, 0.0)
        self.c_obj.per_decode_s = finite("per_decode_s", per_decode_s, 0.0)
        self.c_obj.per_context_token_s = finite("per_context_token_s", per_context_token_s, 0.0)
        self.c_obj.per_context_token2_s = finite("per_context_token2_s", per_context_token2_s, -1e300)
        self.c_obj.swap_block_s = finite("swap_block_s", swap_block_s, 0.0)

    def step_s(self, n_prefill_tokens, n_decode_rows, n_context_tokens) -> float:
        """Seconds of a step with so much in it."""
        cdef StepWork work
        work.n_prefill_tokens = whole("n_prefill_tokens", n_prefill_tokens, 0, 1 << 62)
        work.n_decode_rows = whole("n_decode_rows", n_decode_rows, 0, 1 << 62)
        work.n_context_tokens = whole("n_context_tokens", n_context_tokens, 0, 1 << 62)
        return self.c_obj.step_s(work)


@cython.final
cdef class TokenStep:
    """What to run now: swap_outs, then copies, then swap_ins, then the rows. Made by ContinuousBatcher.step.

    rows             (n,) structured: id, cookie, first_position, n_tokens, place, n_blocks, emits, decodes. Row r computes
                     its sequence's tokens first_position to first_position + n_tokens - 1; where emits, it gets a new one.
                     place: a number below max_running that is its own while it runs. decodes: one token after its prefill
    swap_outs        (k, 2) int32: a device block, and the host block to copy it to
    copies           (k, 2) int32: a device block, and the device block to copy it to, one after the other
    swap_ins         (k, 2) int32: a host block, and the device block to copy it to
    preempted        (k,) uint64: ids that wait again
    expired          (k,) uint64: ids whose deadline passed while they waited; told once. expired_cookies: theirs
    n_prefill_tokens, n_prefill_rows, n_decode_rows, n_context_tokens    what TokenCurve.step_s takes
    n_matched_tokens    of sequences that began now: found in the cache, so not in rows
    All arrays are the caller's. block_tables is to be asked for before the next step.
    """

    def __init__(self):
        raise InvalidType("TokenStep cannot be made; allowed: what ContinuousBatcher.step returns")

    def __len__(self):
        return len(self.rows)

    @property
    def block_tables(self):
        """(n, max(rows.n_blocks)) int32: each row's blocks in the order of its tokens, then -1. The caller's."""
        if self._block_tables is None:
            if self._batcher._n_steps != self._number:
                raise InvalidArgument("step is not the batcher's last one; allowed: ask for block_tables before the next step")
            self._block_tables = self._tables()
        return self._block_tables

    cdef cnp.ndarray _tables(self):
        cdef CppContinuousBatcher* c_batcher = self._batcher.c_obj.get()
        cdef cnp.npy_intp i, n_columns = 0, n = cnp.PyArray_DIM(self.rows, 0)
        cdef const TokenRow* rows = <const TokenRow*>cnp.PyArray_DATA(self.rows)
        for i in range(n):
            n_columns = max(n_columns, <cnp.npy_intp>rows[i].n_blocks)
        cdef cnp.npy_intp[2] shape = [n, n_columns]
        cdef cnp.ndarray out = cnp.PyArray_EMPTY(2, shape, cnp.NPY_INT32, 0)
        cdef int32_t* table = <int32_t*>cnp.PyArray_DATA(out)
        cdef size_t at
        for i in range(n):
            memcpy(table, c_batcher.blocks(rows[i]).data(), rows[i].n_blocks * sizeof(int32_t))
            for at in range(rows[i].n_blocks, <size_t>n_columns):
                table[at] = -1
            table += n_columns
        return out


cdef TokenStep boxed(ContinuousBatcher batcher, const CppTokenStep* step):
    cdef TokenStep out = TokenStep.__new__(TokenStep)
    out._batcher = batcher
    out._number = batcher._n_steps
    out.rows = copied(step.rows.data(), step.rows.size(), _row)
    out.swap_outs = numbers(step.swap_outs.data(), step.swap_outs.size(), 2, cnp.NPY_INT32)
    out.copies = numbers(step.copies.data(), step.copies.size(), 2, cnp.NPY_INT32)
    out.swap_ins = numbers(step.swap_ins.data(), step.swap_ins.size(), 2, cnp.NPY_INT32)
    out.preempted = numbers(step.preempted.data(), step.preempted.size(), 1, cnp.NPY_UINT64)
    cdef cnp.ndarray expired = numbers(step.expired.data(), step.expired.size(), 2, cnp.NPY_UINT64)
    out.expired = expired[:, 0]
    out.expired_cookies = expired[:, 1]
    out.n_prefill_tokens = step.work.n_prefill_tokens
    out.n_prefill_rows = step.n_prefill_rows
    out.n_decode_rows = step.work.n_decode_rows
    out.n_context_tokens = step.work.n_context_tokens
    out.n_matched_tokens = step.n_matched_tokens
    return out
