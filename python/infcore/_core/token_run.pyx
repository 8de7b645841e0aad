"""One token model on one device: what each step computes, as arrays."""
cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libcpp.vector cimport vector

from infcore._core.continuous cimport TokenCurve
from infcore._core.token_sequence cimport TokenSpec
from infcore._cpp.continuous cimport BlockMove, Flags, Tokens, TokenStep
from infcore._cpp.kv cimport StepWork
from infcore._cpp.token_run cimport SequenceRequest, StepArrays, TokenRun as Core, TokenRunConfig

import numpy as np

from infcore.errors import DeviceError, InvalidArgument

cnp.import_array()


cdef class TokenRun:
    """A ContinuousBatcher over KVBlocks of its own, with the tokens of its sequences. One thread at a time.

    make_step  what each step is made into: called with the fields of infcore.TokenBatch
    curve      by which a sequence that must make room is swapped out or computed again
    The other arguments are those of TokenDevice. Raises InvalidArgument.
    """

    def __init__(self, *, n_blocks, block_size, n_host_blocks, token_budget, max_running, max_sequences, make_step,
                 TokenCurve curve not None):
        cdef TokenRunConfig config
        config.blocks.n_blocks = n_blocks
        config.blocks.block_size = block_size
        config.blocks.n_host_blocks = n_host_blocks
        config.batcher.token_budget = token_budget
        config.batcher.max_running = max_running
        config.batcher.max_sequences = max_sequences
        config.batcher.curve = curve.c_obj
        self.make_step = make_step
        self.c_obj.reset(new Core(config))

    def add(self, tokens, n_new_max, *, tier=0) -> int:
        """Take in a sequence of (n,) int64 tokens, which may get n_new_max more; returns its place."""
        cdef SequenceRequest request
        request.n_new_max = n_new_max
        request.tier = tier
        request.arrival_ns = self.clock_ns
        given = np.ascontiguousarray(tokens, np.int64)
        if given.ndim != 1:
            raise InvalidArgument(f"tokens has shape {given.shape}; allowed: one axis")
        return self.add_tokens(given, request)

    cdef int add_tokens(self, cnp.ndarray tokens, const SequenceRequest& request) except -1:
        return self.c_obj.get().add(
            Tokens(<const int64_t*>cnp.PyArray_DATA(tokens), <size_t>cnp.PyArray_DIM(tokens, 0)), request)

    def fork(self, uint32_t place) -> int:
        """A second sequence that goes on from where the first is; returns its place."""
        return self.c_obj.get().fork(place)

    def cancel(self, uint32_t place) -> None:
        """End a sequence wherever it is."""
        self.c_obj.get().cancel(place)

    def step(self):
        """What to compute now, as make_step makes it; None: nothing."""
        self.clock_ns += 1
        return self.step_at(self.clock_ns)

    cdef object step_at(self, int64_t now_ns):
        if not self.c_obj.get().step(now_ns):
            return None
        return self._arrays()

    cdef object _arrays(self):
        cdef const TokenStep* step = &self.c_obj.get().current()
        cdef cnp.npy_intp n_rows = <cnp.npy_intp>step.rows.size()
        cdef cnp.npy_intp n_tokens = self.c_obj.get().n_tokens()
        cdef cnp.ndarray tokens = np.empty(n_tokens, np.int64)
        cdef cnp.ndarray positions = np.empty(n_tokens, np.int32)
        cdef cnp.ndarray bounds = np.empty(n_rows + 1, np.int32)
        cdef cnp.ndarray lengths = np.empty(n_rows, np.int32)
        cdef cnp.ndarray tables = np.empty((n_rows, self.c_obj.get().table_width()), np.int32)
        cdef cnp.ndarray slots = np.empty(n_tokens, np.int64)
        cdef cnp.ndarray emits = np.empty(n_rows, np.bool_)
        cdef StepArrays arrays
        arrays.tokens = <int64_t*>cnp.PyArray_DATA(tokens)
        arrays.positions = <int32_t*>cnp.PyArray_DATA(positions)
        arrays.cu_seqlens = <int32_t*>cnp.PyArray_DATA(bounds)
        arrays.context_lens = <int32_t*>cnp.PyArray_DATA(lengths)
        arrays.block_tables = <int32_t*>cnp.PyArray_DATA(tables)
        arrays.slot_mapping = <int64_t*>cnp.PyArray_DATA(slots)
        arrays.emits = <uint8_t*>cnp.PyArray_DATA(emits)
        self.c_obj.get().write(arrays)
        return self.make_step(tokens, positions, bounds, lengths, tables, slots, emits, _pairs(step.swap_outs),
                              _pairs(step.copies), _pairs(step.swap_ins), <int>step.n_prefill_rows,
                              <int>step.work.n_prefill_tokens, <int>step.work.n_decode_rows,
                              <int>step.work.n_context_tokens)

    def places(self) -> list:
        """The places of the last step's rows that emit, in order."""
        return self.c_obj.get().emitting()

    def row_places(self) -> list:
        """The places of all rows of the last step."""
        return self.c_obj.get().rows()

    def row_of(self, step, Py_ssize_t r):
        """One row of a step that moves no blocks, as a step of its own."""
        begin, end = step.cu_seqlens[r], step.cu_seqlens[r + 1]
        decodes = r < step.n_decode_rows
        n_tokens = int(end - begin)
        none = np.empty((0, 2), np.int32)
        return self.make_step(
            step.tokens[begin:end], step.positions[begin:end], np.array([0, n_tokens], np.int32),
            step.context_lens[r:r + 1], step.block_tables[r:r + 1], step.slot_mapping[begin:end], step.emits[r:r + 1],
            none, none, none, 0 if decodes else 1, 0 if decodes else n_tokens, 1 if decodes else 0,
            int(step.context_lens[r]) if decodes else 0)

    def advance(self, made, ended) -> None:
        """The step was run: the new token of each row that emits, and whether it is that sequence's last."""
        cdef cnp.ndarray tokens, flags
        cdef Py_ssize_t n = len(self.places())
        tokens = np.ascontiguousarray(made, np.int64)
        flags = np.ascontiguousarray(ended, np.bool_)
        if len(tokens) != n or len(flags) != n:
            raise InvalidArgument(f"made and ended have {len(tokens)} and {len(flags)} rows; allowed: {n}, those that emit")
        self.c_obj.get().advance(Tokens(<const int64_t*>cnp.PyArray_DATA(tokens), <size_t>n),
                                 Flags(<const uint8_t*>cnp.PyArray_DATA(flags), <size_t>n))

    def figures(self) -> dict:
        """Counts: sequences, running, waiting, preempted, swapped_out, and blocks, free, cached, available of the cache."""
        cdef Core* core = self.c_obj.get()
        return {"sequences": core.n_sequences(), "running": core.batcher().n_running(),
                "waiting": core.batcher().n_waiting(), "preempted": core.batcher().n_preempted(),
                "swapped_out": core.batcher().n_swapped_out(), "blocks": core.blocks().n_blocks(),
                "free": core.blocks().n_free(), "cached": core.blocks().n_cached(),
                "available": core.blocks().n_available(), "host_blocks": core.blocks().n_host_blocks(),
                "host_free": core.blocks().n_host_free()}


cdef cnp.ndarray _pairs(const vector[BlockMove]& moves):
    cdef cnp.ndarray pairs = np.empty((<cnp.npy_intp>moves.size(), 2), np.int32)
    Core.write_moves(moves, <int32_t*>cnp.PyArray_DATA(pairs))
    return pairs


cdef cnp.ndarray checked_tokens(str device, TokenSpec spec, object made, Py_ssize_t n):
    """What a device's run_step returned, as (n,) int64. Raises DeviceError naming device, model and what is allowed."""
    who = f"device {device!r}, model {spec.name!r}: run_step returned"
    if not isinstance(made, np.ndarray) or made.dtype.kind not in "iu":
        kind = made.dtype if isinstance(made, np.ndarray) else type(made).__name__
        raise DeviceError(f"{who} {kind}; allowed: an integer array")
    if made.shape != (n,):
        raise DeviceError(f"{who} shape {made.shape}; allowed: ({n},), a token for each row that emits")
    tokens = made.astype(np.int64)
    cdef const int64_t[::1] told = tokens
    cdef Py_ssize_t i
    for i in range(n):
        if not 0 <= told[i] < spec.token_end:
            raise DeviceError(f"{who} {made[i]} for row {i}; allowed: tokens of 0 to {spec.token_end - 1}")
    return tokens


def step_s(TokenCurve curve not None, step) -> float:
    """Seconds that a curve says a step takes, moves to and from the host included."""
    cdef StepWork work
    work.n_prefill_tokens = step.n_prefill_tokens
    work.n_decode_rows = step.n_decode_rows
    work.n_context_tokens = step.n_context_tokens
    return curve.c_obj.step_s(work) + curve.c_obj.swap_block_s * (len(step.swap_outs) + len(step.swap_ins))
