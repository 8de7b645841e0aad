# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""Continuous batching for token models: sequences in, what each step computes out, as arrays."""
from libc.stdint cimport UINT32_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cimport cython
cimport numpy as cnp

import numpy

from infcore._core.base cimport as_clock, finite, now_of, until_ns
from infcore._core.fleet cimport whole
from infcore._core.kv cimport KVBlocks, integers, names_of, tokens_of, word
from infcore._cpp.base cimport never_ns, seconds, to_ns
from infcore._cpp.continuous cimport (BlockMove, ConstBlocks, ContinuousBatcher as CppContinuousBatcher,
                                      ContinuousBatcherConfig, EndedSequence, Flags, SequenceSpec, TokenRow, TokenRows,
                                      Tokens, TokenStep as CppTokenStep)
from infcore._cpp.kv cimport ConstNames, StepWork

from infcore.errors import InvalidArgument, InvalidType

cnp.import_array()

include "token_step.pxi"


@cython.final
@cython.no_gc_clear  # the core's batcher reads kv's blocks to the very end; a cycle breaks at a clock of the caller's
cdef class ContinuousBatcher:
    """Decides what each step of a token model computes: decodes, then chunks of prefills, then who comes in.

    kv                   an infcore.KVBlocks whose blocks are nobody's; all are the batcher's from now on
    token_budget         tokens of one step, >= 1
    max_running          sequences that hold blocks at once
    max_sequences        that wait or run
    max_sequence_tokens  of a prompt and its output; None: as many as the blocks hold
    ageing_s             who has waited this long goes before everything younger, oldest first; None: nobody
    curve                a TokenCurve: what is pre-empted goes to host blocks where that is cheaper; None: never
    clock                None: monotonic time
    Use                  add; then in turn step and advance. cancel at any time
    Threads              calls hold the GIL
    Raises               InvalidArgument, InvalidType
    Complexity           step: O(rows + (came in + went) log waiting), and a look-up per block of the next in turn
    Source               ideas of Orca (OSDI 2022), vLLM (SOSP 2023), Sarathi-Serve (OSDI 2024); the rules, and why no
                         sequence waits for ever: csrc/infcore/batch/continuous_batcher.hpp
    """

    def __init__(self, kv, *, token_budget=2048, max_running=256, max_sequences=4096, max_sequence_tokens=None,
                 ageing_s=None, curve=None, clock=None):
        cdef ContinuousBatcherConfig config
        if self.c_obj:
            raise InvalidArgument("ContinuousBatcher.__init__ was called again; allowed: once")
        if not isinstance(kv, KVBlocks):
            raise InvalidType(f"kv is {type(kv).__name__}; allowed: an infcore.KVBlocks")
        if curve is not None and not isinstance(curve, TokenCurve):
            raise InvalidType(f"curve is {type(curve).__name__}; allowed: None or an infcore.TokenCurve")
        config.token_budget = <uint32_t>whole("token_budget", token_budget, 1, UINT32_MAX)
        config.max_running = <uint32_t>whole("max_running", max_running, 0, UINT32_MAX)
        config.max_sequences = <uint32_t>whole("max_sequences", max_sequences, 0, UINT32_MAX)
        if max_sequence_tokens is not None:
            config.max_sequence_tokens = <uint32_t>whole("max_sequence_tokens", max_sequence_tokens, 1, UINT32_MAX)
        config.ageing_ns = until_ns("ageing_s", ageing_s, 0)
        if curve is not None:
            config.curve = (<TokenCurve>curve).c_obj
        self._clock = as_clock(clock)
        self._kv = kv
        self.c_obj.reset(new CppContinuousBatcher(self._kv.ours()[0], config))
        self._kv.taken = True

    def __dealloc__(self):
        if self.c_obj:
            self.c_obj.reset()
            self._kv.taken = False

    cdef CppContinuousBatcher* made(self) except NULL:
        if not self.c_obj:
            raise InvalidType("ContinuousBatcher.__init__ was not called")
        return self.c_obj.get()

    def add(self, prompt, n_output_tokens_max, *, cookie=0, tier=0, deadline_s=None, arrival_s=None, salt=0,
            prompt_hashes=None, now_s=None) -> int:
        """Take a sequence in; it waits for its turn. Returns its id, greater than all before.

        prompt               its tokens, (n,) int32 or int64, n >= 1: its prefix is looked up and kept. Or how many
        n_output_tokens_max  it ends once it has so many; 0: once its prompt is computed
        cookie               0 to 2**64 - 1, the caller's; comes back in rows
        tier                 0 (most urgent) to 65535
        deadline_s           seconds from now to begin by; None: none. Once it runs, the caller cancels what is late
        arrival_s            orders sequences of a tier, on the clock; None: now
        salt                 of the names of its prefix
        prompt_hashes        names of the prompt's full blocks, where prompt says how many; None: no look-up then
        Raises               InvalidArgument for what can never fit; InvalidType; QueueFull at max_sequences
        """
        cdef CppContinuousBatcher* batcher = self.made()
        cdef SequenceSpec spec
        cdef cnp.ndarray tokens, names, tail
        cdef int64_t now_ns = now_of(self._clock, now_s)
        cdef cnp.npy_intp block_size = self._kv.c_obj.get().block_size(), n_full
        spec.cookie = word("cookie", cookie)
        spec.salt = word("salt", salt)
        spec.tier = <uint16_t>whole("tier", tier, 0, 0xFFFF)
        spec.arrival_ns = now_ns if arrival_s is None else to_ns(finite("arrival_s", arrival_s, -9e9))
        spec.deadline_ns = until_ns("deadline_s", deadline_s, now_ns)
        spec.n_output_tokens_max = <uint32_t>whole("n_output_tokens_max", n_output_tokens_max, 0, UINT32_MAX)
        if hasattr(prompt, "__index__") and not hasattr(prompt, "__len__"):
            spec.n_prompt_tokens = <uint32_t>whole("prompt", prompt, 0, UINT32_MAX)
            if prompt_hashes is not None:
                names = integers("prompt_hashes", prompt_hashes, cnp.NPY_UINT64)
                spec.prompt_hashes = ConstNames(<const uint64_t*>cnp.PyArray_DATA(names), cnp.PyArray_DIM(names, 0))
            return batcher.add(spec)
        if prompt_hashes is not None:
            raise InvalidArgument("prompt_hashes is given beside tokens; allowed: None, or prompt as a number")
        tokens = tokens_of("prompt", prompt)
        spec.n_prompt_tokens = <uint32_t>min(cnp.PyArray_DIM(tokens, 0), <cnp.npy_intp>UINT32_MAX)
        names = names_of(tokens, block_size, spec.salt)
        n_full = cnp.PyArray_DIM(names, 0)
        tail = tokens[n_full * block_size:].astype(numpy.int64)
        spec.prompt_hashes = ConstNames(<const uint64_t*>cnp.PyArray_DATA(names), n_full)
        spec.prompt_tail = Tokens(<const int64_t*>cnp.PyArray_DATA(tail), cnp.PyArray_DIM(tail, 0))
        return batcher.add(spec)

    def cancel(self, id) -> bool:
        """End a sequence wherever it is; False if it has ended already. What is in a step keeps its blocks to advance."""
        return self.made().cancel(word("id", id))

    def fork(self, id, *, cookie=0) -> int:
        """A second sequence that goes on from where the first one is, and shares its blocks if it decodes.

        Each copies its last block when it writes there. Where no place is free, or the first one does not decode yet, the
        fork waits. Raises InvalidArgument for an id that has ended or while a step is out; QueueFull.
        """
        return self.made().fork(word("id", id), word("cookie", cookie))

    def step(self, *, now_s=None) -> TokenStep:
        """What to run now; answered by advance, unless it has no rows. A time before the last one counts as that one.

        Raises InvalidArgument while a step is out.
        """
        cdef CppContinuousBatcher* batcher = self.made()
        if batcher.step_is_out():
            raise InvalidArgument("a step is out; allowed: advance first")
        cdef const CppTokenStep* step = &batcher.step(now_of(self._clock, now_s))
        self._n_steps += 1
        return boxed(self, step)

    def advance(self, *, tokens=None, ended=None):
        """The last step was run. Returns which of its rows ended with it, cancelled ones left out: (k,) int64.

        tokens  (n,) int32 or int64, what each row emitted; read where it emits. None: not told, and then blocks generated
                from now on are not kept for others
        ended   (n,) bool: the caller says that it ends (end token, stop string); None: nobody
        Raises  InvalidArgument, InvalidType; nothing has changed
        """
        cdef CppContinuousBatcher* batcher = self.made()
        cdef cnp.ndarray row, flags
        cdef Tokens c_tokens
        cdef Flags c_flags
        cdef cnp.npy_intp n = batcher.last_step().rows.size() if batcher.step_is_out() else 0
        if tokens is not None:
            row = integers("tokens", tokens, cnp.NPY_INT64)
            if cnp.PyArray_DIM(row, 0) != n:
                raise InvalidArgument(f"tokens has {cnp.PyArray_DIM(row, 0)} entries; allowed: {n}, one a row of the step")
            c_tokens = Tokens(<const int64_t*>cnp.PyArray_DATA(row), n)
        if ended is not None:
            flags = numpy.ascontiguousarray(ended)
            if flags.dtype != numpy.bool_ or (<object>flags).shape != (n,):
                raise InvalidArgument(f"ended has dtype {flags.dtype}, shape {(<object>flags).shape}; allowed: bool, ({n},)")
            c_flags = Flags(<const uint8_t*>cnp.PyArray_DATA(flags), n)
        if n == 0:
            return numpy.empty(0, numpy.int64)
        batcher.advance(c_tokens, c_flags)
        return self._ended_rows()

    cdef cnp.ndarray _ended_rows(self):
        cdef CppContinuousBatcher* batcher = self.c_obj.get()
        cdef TokenRows over = batcher.ended()
        cdef cnp.npy_intp n = over.size(), i, at = 0
        cdef cnp.ndarray out = cnp.PyArray_EMPTY(1, &n, cnp.NPY_INT64, 0)
        cdef const TokenRow* rows = batcher.last_step().rows.data()
        for i in range(n):  # both in the order of the step's rows
            while rows[at].id != over.data()[i].id:
                at += 1
            (<int64_t*>cnp.PyArray_DATA(out))[i] = at
        return out

    @property
    def kv(self) -> KVBlocks:
        """The blocks, to be read."""
        return self._kv

    @property
    def n_running(self) -> int:
        """Sequences that hold blocks."""
        return self.made().n_running()

    @property
    def n_waiting(self) -> int:
        """Sequences that wait, pre-empted ones too."""
        return self.made().n_waiting()

    @property
    def n_preempted(self) -> int:
        """How often a running sequence was made to wait, so far."""
        return self.made().n_preempted()

    @property
    def n_swapped_out(self) -> int:
        """How often that was to host blocks."""
        return self.made().n_swapped_out()

    @property
    def next_event_s(self):
        """When a waiting sequence expires or ages next, in seconds on the clock; None: never. For an idle caller."""
        cdef int64_t at_ns = self.made().next_event_ns()
        return None if at_ns == never_ns else seconds(at_ns)
