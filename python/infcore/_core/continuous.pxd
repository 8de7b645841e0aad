from libc.stdint cimport uint64_t
from libcpp.memory cimport unique_ptr

cimport numpy as cnp

from infcore._core.base cimport Clock
from infcore._core.kv cimport KVBlocks
from infcore._cpp.continuous cimport ContinuousBatcher as CppContinuousBatcher
from infcore._cpp.kv cimport TokenCurve as CppTokenCurve


cdef class TokenCurve:
    cdef CppTokenCurve c_obj


cdef class ContinuousBatcher:
    cdef unique_ptr[CppContinuousBatcher] c_obj
    cdef KVBlocks _kv
    cdef Clock _clock
    cdef uint64_t _n_steps

    cdef CppContinuousBatcher* made(self) except NULL
    cdef cnp.ndarray _ended_rows(self)


cdef class TokenStep:
    cdef ContinuousBatcher _batcher
    cdef object _block_tables
    cdef uint64_t _number  # of the batcher's steps
    cdef readonly cnp.ndarray rows
    cdef readonly cnp.ndarray swap_outs
    cdef readonly cnp.ndarray copies
    cdef readonly cnp.ndarray swap_ins
    cdef readonly cnp.ndarray preempted
    cdef readonly cnp.ndarray expired
    cdef readonly cnp.ndarray expired_cookies
    cdef readonly object n_prefill_tokens
    cdef readonly object n_prefill_rows
    cdef readonly object n_decode_rows
    cdef readonly object n_context_tokens
    cdef readonly object n_matched_tokens

    cdef cnp.ndarray _tables(self)
