"""A model as the hot path wants it: a request's inputs checked at submit, and borrowed without a copy."""
cimport numpy as cnp
from cpython.dict cimport PyDict_GetItemWithError, PyDict_Size
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy

from infcore._cpp.base cimport to_ns
from infcore._cpp.device cimport byte, max_rank
from infcore._cpp.engine cimport LiveRequest

import numpy as np

from infcore.errors import InvalidArgument, InvalidType, UnknownName

cnp.import_array()


cdef class TensorLayout:
    def __init__(self, spec, int batch_axis=0):
        cdef int i
        self.name = spec.name
        self.dtype = spec.dtype
        self.type_num = (<cnp.dtype>spec.dtype).num
        self.rank = len(spec.shape)
        if self.rank > max_rank:
            raise InvalidArgument(f"shape of {spec.name!r} has {self.rank} axes; allowed: at most {max_rank}")
        if not 0 <= batch_axis <= self.rank:
            raise InvalidArgument(f"batch_axis of {spec.name!r} is {batch_axis}; allowed: 0 to {self.rank}")
        self.ragged = len(spec.ragged) > 0
        self.layout.item_bytes = spec.dtype.itemsize
        self.layout.rank = self.rank
        self.layout.batch_axis = batch_axis
        for i in range(self.rank):
            self.dims[i] = -1 if spec.shape[i] is None else spec.shape[i]
            self.layout.dims_max[i] = self.dims[i]
        self.steps_differ = spec.ragged == (0,) and batch_axis == 0
        self.step_bytes = spec.dtype.itemsize
        for i in range(1, self.rank):
            self.step_bytes *= max(self.dims[i], 0)
        pad = np.array(spec.pad_value, dtype=spec.dtype).tobytes()
        memcpy(self.layout.pad_item, <const char*>pad, spec.dtype.itemsize)

    cdef bint holds(self, cnp.ndarray array):
        """Whether the array is of this dtype: long and long long are two type numbers of one dtype."""
        cdef int num = cnp.PyArray_TYPE(array)
        return ((num == self.type_num or cnp.PyArray_EquivTypenums(num, self.type_num))
                and cnp.PyArray_ISNOTSWAPPED(array))

    def describe(self):
        return f"{self.dtype.name} of shape {tuple(None if d < 0 else d for d in self.dims[:self.rank])}"


cdef class ModelSpec:
    def __init__(self, model, uint32_t model_id):
        self.model = model
        self.name = model.name
        self.id = model_id
        self.inputs = tuple(TensorLayout(spec) for spec in model.inputs)
        self.outputs = tuple(TensorLayout(spec) for spec in model.outputs)
        self.n_ragged_dims = sum(len(spec.shape) for spec in model.inputs if spec.ragged)
        self.defer_ns = to_ns(model.defer_s)
        self.by_token = model.by_token
        self.work_input = -1
        self.work_of = model.work_of
        if isinstance(model.work, str):
            self.work_input = [spec.name for spec in model.inputs].index(model.work)
        elif model.work is not None:
            self.work_input = -2

    cdef object bind(self, object inputs, LiveRequest* request):
        """Checks the inputs against the model and notes where their bytes are. Returns what keeps them alive."""
        cdef TensorLayout t
        cdef cnp.ndarray array
        cdef PyObject* found
        cdef uint32_t i = 0
        cdef int axis
        cdef int64_t* kept_dims = NULL
        cdef object held = None
        if type(inputs) is not dict:
            raise InvalidType(f"inputs is {type(inputs).__name__}; allowed: a dict {{name: ndarray}}")
        if PyDict_Size(inputs) != len(self.inputs):
            self._wrong_names(inputs)
        if len(self.inputs) > 1:
            request.room_for_rows(<uint32_t>len(self.inputs))
            held = []
        if self.n_ragged_dims > 0:
            kept_dims = request.room_for_dims(self.n_ragged_dims)
        for layout in self.inputs:
            t = <TensorLayout>layout
            found = PyDict_GetItemWithError(inputs, t.name)
            if found == NULL:
                self._wrong_names(inputs)
            if not cnp.PyArray_Check(<object>found):
                raise InvalidType(f"inputs[{t.name!r}] of model {self.name!r} is {type(<object>found).__name__}; "
                                  f"allowed: an ndarray, {t.describe()}")
            array = <cnp.ndarray>found
            if not t.holds(array):
                raise InvalidType(f"inputs[{t.name!r}] of model {self.name!r} is {array.dtype}; allowed: {t.describe()}")
            if cnp.PyArray_NDIM(array) != t.rank:
                self._wrong_shape(t, array)
            for axis in range(t.rank):
                if t.dims[axis] >= 0 and cnp.PyArray_DIM(array, axis) != t.dims[axis]:
                    self._wrong_shape(t, array)
            if not cnp.PyArray_IS_C_CONTIGUOUS(array):
                array = np.ascontiguousarray(array)
            request.rows[i].data = <const byte*>cnp.PyArray_DATA(array)
            if t.ragged:
                for axis in range(t.rank):
                    kept_dims[axis] = cnp.PyArray_DIM(array, axis)
                request.rows[i].dims = kept_dims
                kept_dims += t.rank
            else:
                request.rows[i].dims = t.dims
            i += 1
            if held is None:
                held = array
            else:
                (<list>held).append(array)
        return held

    cdef double work(self, object inputs, LiveRequest* request) except? -1.0:
        cdef double n = 1.0
        cdef int axis
        cdef TensorLayout t
        if self.work_input == -1:
            return 1.0
        if self.work_input == -2:
            return self.work_of(inputs)
        t = <TensorLayout>self.inputs[self.work_input]
        for axis in range(t.rank):
            n *= <double>request.rows[self.work_input].dims[axis]
        return n

    def _wrong_names(self, inputs):
        known = [(<TensorLayout>t).name for t in self.inputs]
        missing = [name for name in known if name not in inputs]
        unknown = [name for name in inputs if name not in known]
        raise UnknownName(f"inputs of model {self.name!r}: missing {missing}, unknown {unknown}; allowed: exactly {known}")

    def _wrong_shape(self, TensorLayout t, array):
        raise InvalidArgument(f"inputs[{t.name!r}] of model {self.name!r} has shape {array.shape}; "
                              f"allowed: {t.describe()} (None: any length), without a batch axis")


def zeros_of(ModelSpec spec):
    """One request's outputs, all zero, a ragged axis being of length 0: what an emulated device answers."""
    return {(<TensorLayout>t).name: np.zeros([max(0, d) for d in (<TensorLayout>t).dims[:(<TensorLayout>t).rank]],
                                             dtype=(<TensorLayout>t).dtype) for t in spec.outputs}
