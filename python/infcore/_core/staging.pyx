"""Inputs checked and borrowed at submit, packed once on the device's worker, and outputs split without a copy."""
cimport numpy as cnp
from cpython.dict cimport PyDict_GetItemWithError, PyDict_Size
from cpython.object cimport PyObject
from cpython.ref cimport Py_REFCNT
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy
from libcpp.vector cimport vector

from infcore._cpp.device cimport RowSpan, byte, dims_max_of, max_rank, nogil_bytes_min, pad_rows
from infcore._cpp.engine cimport LiveRequest

import numpy as np

from infcore.errors import DeviceError, InvalidArgument, InvalidType, UnknownName

cnp.import_array()

cdef extern from *:
    """
    // A view of `data`, which `base` keeps alive.
    static PyObject* infcore_view(PyObject* dtype, int rank, const npy_intp* dims, const npy_intp* strides, void* data,
                                  int flags, PyObject* base) {
      Py_INCREF(dtype);
      PyObject* view = PyArray_NewFromDescr(&PyArray_Type, reinterpret_cast<PyArray_Descr*>(dtype), rank, dims, strides,
                                            data, flags, nullptr);
      if (view == nullptr) return nullptr;
      Py_INCREF(base);
      if (PyArray_SetBaseObject(reinterpret_cast<PyArrayObject*>(view), base) < 0) Py_CLEAR(view);
      return view;
    }
    """
    cnp.ndarray infcore_view(object dtype, int rank, const cnp.npy_intp* dims, const cnp.npy_intp* strides, void* data,
                             int flags, object base)

cdef int64_t alignment = 64
cdef int64_t padded_bytes_max = 1 << 40  # of one batch; beyond any memory, and far from where int64 overflows


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


cdef class Staging:
    def __init__(self, ModelSpec spec, batch_axis, str run_name):
        self.spec = spec
        self.run_name = run_name
        self.input_axes = tuple(TensorLayout(s, batch_axis.get(s.name, 0)) for s in spec.model.inputs)
        self.output_axes = tuple(int(batch_axis.get(s.name, 0)) for s in spec.model.outputs)
        self.owners = [None] * len(self.input_axes)

    cdef dict pack(self, vector[LiveRequest*]& members):
        """The batch's inputs: each request's bytes are copied once, into memory that is used again for the next batch.

        Whoever keeps an input (or returns it as an output) keeps its memory: then the next batch gets another.
        """
        cdef TensorLayout t
        cdef cnp.npy_intp dims[9]
        cdef int64_t n_bytes
        cdef uint32_t i
        cdef int axis, to
        cdef char* data
        cdef cnp.ndarray owner
        cdef dict inputs = {}
        for i in range(len(self.input_axes)):
            t = <TensorLayout>self.input_axes[i]
            self.rows.clear()
            for member in members:
                self.rows.push_back(member.rows[i])
            if t.ragged:
                dims_max_of(RowSpan(self.rows.data(), self.rows.size()), t.rank, t.layout.dims_max)
            n_bytes = t.layout.item_bytes * <int64_t>members.size()
            to = 0
            for axis in range(t.rank + 1):
                if axis == <int>t.layout.batch_axis:
                    dims[to] = <cnp.npy_intp>members.size()
                    to += 1
                if axis < t.rank:
                    dims[to] = t.layout.dims_max[axis]
                    if dims[to] > 0 and n_bytes > padded_bytes_max // dims[to]:
                        self._too_large(t)
                    n_bytes *= dims[to]
                    to += 1
            owner = self._memory(i, n_bytes)
            data = <char*>cnp.PyArray_DATA(owner)
            data += (alignment - <int64_t><size_t>data % alignment) % alignment
            if n_bytes >= nogil_bytes_min:
                with nogil:
                    pad_rows(RowSpan(self.rows.data(), self.rows.size()), t.layout, <byte*>data)
            else:
                pad_rows(RowSpan(self.rows.data(), self.rows.size()), t.layout, <byte*>data)
            inputs[t.name] = infcore_view(t.dtype, t.rank + 1, dims, NULL, data, cnp.NPY_ARRAY_CARRAY, owner)
        return inputs

    def _too_large(self, TensorLayout t):
        shape = tuple([t.layout.dims_max[axis] for axis in range(t.rank)])
        raise InvalidArgument(f"inputs[{t.name!r}] of model {self.spec.name!r}, padded to {shape}, would be larger than "
                              f"{padded_bytes_max} bytes; allowed: shapes that are alike enough to stand in one batch")

    cdef cnp.ndarray _memory(self, uint32_t i, int64_t n_bytes):
        owner = self.owners[i]
        # Two references are ours, the list's and this call's: any more is a view that somebody kept.
        if owner is None or Py_REFCNT(owner) > 2 or owner.nbytes < n_bytes + alignment:
            grown = n_bytes if owner is None else max(n_bytes, owner.nbytes - alignment)
            owner = np.empty(grown + alignment, dtype=np.uint8)
            self.owners[i] = owner
        return owner

    cdef BatchResult accept(self, str device, object outputs, uint32_t n_requests):
        """Checks what a device's run returned against the model. Raises DeviceError naming device, field and what is allowed."""
        cdef TensorLayout t
        cdef BatchResult result = BatchResult.__new__(BatchResult)
        cdef cnp.ndarray array
        cdef int axis, at, batch_axis
        cdef bint fits
        cdef list arrays = []
        who = f"device {device!r}, model {self.spec.name!r}"
        if not isinstance(outputs, dict):
            raise DeviceError(f"{who}: run returned {type(outputs).__name__}; allowed: a dict {{name: ndarray}}")
        if len(outputs) != len(self.spec.outputs):
            raise DeviceError(f"{who}: run returned {len(outputs)} outputs {list(outputs)}; allowed: exactly "
                              f"{len(self.spec.outputs)}, {[(<TensorLayout>o).name for o in self.spec.outputs]}")
        for i, layout in enumerate(self.spec.outputs):
            t = <TensorLayout>layout
            batch_axis = <int>self.output_axes[i]
            found = outputs.get(t.name)
            if not cnp.PyArray_Check(found):
                raise DeviceError(f"{who}: output {t.name!r} is "
                                  f"{'missing' if found is None else type(found).__name__}; allowed: an ndarray")
            array = <cnp.ndarray>found
            if not t.holds(array):
                raise DeviceError(f"{who}: output {t.name!r} is {found.dtype}; allowed: {t.dtype}")
            fits = cnp.PyArray_NDIM(array) == t.rank + 1 and cnp.PyArray_DIM(array, batch_axis) == n_requests
            if fits:
                for axis in range(t.rank):
                    at = axis if axis < batch_axis else axis + 1
                    fits = fits and (t.dims[axis] < 0 or cnp.PyArray_DIM(array, at) == t.dims[axis])
            if not fits:
                raise DeviceError(f"{who}: output {t.name!r} has shape {found.shape}; allowed: {t.describe()} with a "
                                  f"batch axis of {n_requests} put in before axis {batch_axis}")
            arrays.append(array)
        result.spec = self.spec
        result.device = device
        result.arrays = tuple(arrays)
        result.axes = self.output_axes
        return result


cdef class BatchResult:
    cdef dict of(self, uint32_t member):
        cdef cnp.npy_intp dims[8]
        cdef cnp.npy_intp strides[8]
        cdef cnp.ndarray array
        cdef TensorLayout t
        cdef int axis, at, batch_axis
        cdef Py_ssize_t i
        cdef char* data
        cdef dict outputs = {}
        for i in range(len(self.arrays)):
            array = <cnp.ndarray>self.arrays[i]
            t = <TensorLayout>self.spec.outputs[i]
            batch_axis = <int>self.axes[i]
            for axis in range(t.rank):
                at = axis if axis < batch_axis else axis + 1
                dims[axis] = cnp.PyArray_DIM(array, at)
                strides[axis] = cnp.PyArray_STRIDE(array, at)
            data = <char*>cnp.PyArray_DATA(array) + member * cnp.PyArray_STRIDE(array, batch_axis)
            outputs[t.name] = infcore_view(t.dtype, t.rank, dims, strides, data,
                                           cnp.PyArray_FLAGS(array) & cnp.NPY_ARRAY_WRITEABLE, array)
        return outputs


def zeros_of(ModelSpec spec):
    """One request's outputs, all zero, a ragged axis being of length 0: what an emulated device answers."""
    return {(<TensorLayout>t).name: np.zeros([max(0, d) for d in (<TensorLayout>t).dims[:(<TensorLayout>t).rank]],
                                             dtype=(<TensorLayout>t).dtype) for t in spec.outputs}
