cimport numpy as cnp
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp.vector cimport vector

from infcore._cpp.base cimport NodeId
from infcore._cpp.engine cimport Driver, WorkBatch
from infcore._core.future cimport Future
from infcore._core.token_run cimport TokenRun
from infcore._core.token_sequence cimport TokenSequence, TokenSpec
from infcore._core.workers cimport Workers


cdef class TokenWorkers(Workers):
    pass


cdef class Running:
    """A request that a token device has been handed."""
    cdef Future future
    cdef TokenSequence sequence
    cdef WorkBatch batch           # it alone
    cdef uint32_t attempt          # of the sequence: another number there means that others have it now
    cdef uint32_t place            # in its run
    cdef bint is_wanted(self)


cdef class ModelRun:
    """What a token device runs of one model."""
    cdef TokenSpec spec
    cdef TokenRun run
    cdef str run_name
    cdef dict running              # place -> Running


cdef class TokenWorker:
    """The loop of one token device's thread."""
    cdef Workers owner
    cdef Driver* driver            # the owner's
    cdef NodeId node
    cdef object device, controls
    cdef dict runs                 # model id -> ModelRun
    cdef uint32_t n_running
    cdef int64_t now_ns, paused_until_ns, pause_ns, progress_every_ns, progress_ns
    cdef vector[uint64_t] first_tokens
    cdef object touched            # loops whose readers must be woken
    cdef bint abandoned(self)
    cdef int loop(self) except -1
    cdef bint obey(self) except -1
    cdef int claim_all(self) except -1
    cdef int take(self, WorkBatch& batch) except -1
    cdef ModelRun run_of(self, TokenSpec spec)
    cdef int step(self) except -1
    cdef bint goes_on(self, ModelRun of, Running running) except -1
    cdef int step_model(self, ModelRun of) except -1
    cdef cnp.ndarray made_by(self, ModelRun of, object step, Py_ssize_t n)
    cdef int row_by_row(self, ModelRun of, object step, object error) except -1
    cdef int carry_on(self, ModelRun of, list places, object made) except -1
    cdef int finish(self, Running running, bint ok, object payload) except -1
    cdef int leave(self, ModelRun of, Running running, object why) except -1
    cdef int fail_all(self, object error) except -1
    cdef int forget_all(self) except -1
