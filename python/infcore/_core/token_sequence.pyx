"""Requests to token models: checked at submit, their tokens passed on as they come."""
cimport numpy as cnp
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy
from libcpp cimport bool as cbool
from cpython.number cimport PyIndex_Check

from infcore._core.future cimport Future
from infcore._core.live cimport Told
from infcore._core.model_spec cimport ModelSpec
from infcore._core.staging cimport BatchResult
from infcore._cpp.engine cimport LiveRequest

import numpy as np

from infcore.errors import InvalidArgument, InvalidType

cnp.import_array()

cdef str TOKENS = "tokens"
cdef str LIMIT = "max_new_tokens"


cdef class TokenSpec(ModelSpec):
    def __init__(self, model, uint32_t model_id):
        ModelSpec.__init__(self, model, model_id)
        self.n_new_max = model.max_new_tokens
        self.token_end = model.vocab_size or <int64_t>1 << 31
        self.stop_tokens = model.stop_tokens
        self.work_given = model.work is not None

    cdef object bind(self, object inputs, LiveRequest* request):
        cdef TokenSequence sequence = TokenSequence.__new__(TokenSequence)
        cdef object tokens
        sequence.n_new = self.n_new_max
        if type(inputs) is dict and LIMIT in inputs:
            sequence.n_new = self._limit(inputs[LIMIT])
            inputs = {name: given for name, given in inputs.items() if name != LIMIT}
        if type(inputs) is dict:
            tokens = inputs.get(TOKENS)
            if cnp.PyArray_Check(tokens) and cnp.PyArray_EquivTypenums(cnp.PyArray_TYPE(tokens), cnp.NPY_INT32):
                inputs = {**inputs, TOKENS: tokens.astype(np.int64)}
        sequence.prompt = ModelSpec.bind(self, inputs, request)
        self._check(sequence.prompt)
        return sequence

    cdef double work(self, object inputs, LiveRequest* request) except? -1.0:
        if self.work_given:
            return ModelSpec.work(self, inputs, request)
        return <double>request.rows[0].dims[0] + <double>inputs.get(LIMIT, self.n_new_max)

    cdef int _check(self, object tokens) except -1:
        cdef const int64_t[::1] held = tokens
        cdef Py_ssize_t i
        cdef int64_t end = self.token_end
        if held.shape[0] == 0:
            raise InvalidArgument(f"inputs['tokens'] of model {self.name!r} has length 0; allowed: at least one token")
        for i in range(held.shape[0]):
            if held[i] < 0 or held[i] >= end:
                raise InvalidArgument(f"inputs['tokens'][{i}] of model {self.name!r} is {held[i]}; allowed: 0 to {end - 1}")
        return 0

    def _limit(self, given):
        allowed = f"allowed: an integer, 1 to {self.n_new_max}"
        if not PyIndex_Check(given) or isinstance(given, bool):
            raise InvalidType(f"inputs['max_new_tokens'] of model {self.name!r} is {type(given).__name__}; {allowed}")
        if not 1 <= given.__index__() <= self.n_new_max:
            raise InvalidArgument(f"inputs['max_new_tokens'] of model {self.name!r} is {given}; {allowed}")
        return given.__index__()

    cdef bint stops(self, int64_t token) noexcept:
        cdef int64_t stop
        for stop in self.stop_tokens:
            if stop == token:
                return True
        return False


cdef class TokenSequence(Told):
    cdef object so_far(self):
        """Prompt and new tokens, a copy."""
        cdef cnp.ndarray prompt = self.prompt
        cdef cnp.npy_intp n = cnp.PyArray_DIM(prompt, 0)
        cdef cnp.ndarray all_of = np.empty(n + <cnp.npy_intp>self.made.size(), np.int64)
        cdef int64_t* to = <int64_t*>cnp.PyArray_DATA(all_of)
        memcpy(to, cnp.PyArray_DATA(prompt), n * sizeof(int64_t))
        if not self.made.empty():
            memcpy(to + n, self.made.data(), self.made.size() * sizeof(int64_t))
        return all_of

    cdef object new_tokens(self, size_t begin):
        cdef cnp.ndarray part = np.empty(<cnp.npy_intp>(self.made.size() - begin), np.int64)
        if self.made.size() > begin:
            memcpy(cnp.PyArray_DATA(part), self.made.data() + begin, (self.made.size() - begin) * sizeof(int64_t))
        return part

    cdef BatchResult answer(self, TokenSpec spec, str device):
        """All of its tokens, as the outputs of a batch of one."""
        cdef BatchResult result = BatchResult.__new__(BatchResult)
        result.spec = spec
        result.device = device
        result.arrays = ([self.new_tokens(0)],)
        result.axes = (0,)
        return result

    cdef cbool push(self, int64_t token):
        """Returns whether its reader must be told."""
        self.made.push_back(token)
        if self.waiter is None or self.told:
            return False
        self.told = True
        return True

    cdef bint over(self, TokenSpec spec):
        """Whether its last token is there."""
        return self.made.size() >= self.n_new or (not self.made.empty() and spec.stops(self.made.back()))

    cdef int tell(self) except -1:
        """On the reader's loop."""
        waiter, self.waiter = self.waiter, None
        self.told = False
        if waiter is not None and not waiter.done() and not waiter.get_loop().is_closed():
            waiter.set_result(None)
        return 0

    # ---- what its stream calls, on its loop

    def take(self):
        """The tokens that have come since the last call, (n,) int64; None: there are none."""
        cdef size_t begin = self.n_read
        if self.made.size() == begin:
            return None
        self.n_read = self.made.size()
        return self.new_tokens(begin)

    @property
    def n_taken(self) -> int:
        """How many tokens take() has given."""
        return self.n_read

    def wait(self, waiter) -> bool:
        """Whether there is nothing to take: then `waiter` is set once there is."""
        if self.made.size() > self.n_read:
            return False
        self.waiter = waiter
        return True

    def wake(self, ended=None):
        self.tell()


def sequence_of(Future future not None):
    """The TokenSequence of a request that has just been made; None: its model is not of tokens."""
    return future.held if isinstance(future.held, TokenSequence) else None
