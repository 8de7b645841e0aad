from libc.stdint cimport int64_t, uint32_t
from libcpp cimport bool as cbool
from libcpp.vector cimport vector

from infcore._core.live cimport Told
from infcore._core.model_spec cimport ModelSpec
from infcore._core.staging cimport BatchResult


cdef class TokenSpec(ModelSpec):
    """A TokenModel as the hot path wants it."""
    cdef uint32_t n_new_max
    cdef bint work_given
    cdef int64_t token_end         # its tokens are below that
    cdef vector[int64_t] stop_tokens
    cdef int _check(self, object tokens) except -1
    cdef bint stops(self, int64_t token) noexcept


cdef class TokenSequence(Told):
    """A request to a token model: what its future borrows of the caller, and the tokens that there are."""
    cdef object prompt             # (n,) int64
    cdef uint32_t n_new            # tokens it may get
    cdef vector[int64_t] made      # so far, whichever device made them
    cdef size_t n_read             # of these, by its stream
    cdef uint32_t attempt          # counts the workers that took it: what an earlier one says is nobody's any more
    cdef object waiter             # an asyncio future of the stream's reader
    cdef bint told                 # it stands among what its loop will look at
    cdef object so_far(self)
    cdef object new_tokens(self, size_t begin)
    cdef BatchResult answer(self, TokenSpec spec, str device)
    cdef cbool push(self, int64_t token)
    cdef bint over(self, TokenSpec spec)
