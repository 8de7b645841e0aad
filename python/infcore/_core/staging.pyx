"""A batch's inputs, packed once on the device's worker, and its outputs split without a copy."""
cimport numpy as cnp
from libc.stdint cimport INT32_MAX, int32_t, int64_t, uint32_t
from libcpp.vector cimport vector

from infcore._core.arena cimport Arena, Region
from infcore._core.model_spec cimport ModelSpec, TensorLayout
from infcore._cpp.device cimport (PadLayout, RowPointers, RowSpan, RowTable, byte, dims_max_of, nogil_bytes_min, pad_rows,
                                  stage_rows, staged_bytes)
from infcore._cpp.engine cimport LiveRequest

import numpy as np

from infcore.errors import DeviceError, InvalidArgument

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
cdef int64_t batch_bytes_max = 1 << 40  # beyond any memory, and far from where int64 overflows


cdef class Staging:
    def __init__(self, ModelSpec spec, batch_axis, str run_name, Arena arena):
        self.spec = spec
        self.run_name = run_name
        self.arena = arena
        self.input_axes = tuple(TensorLayout(s, batch_axis.get(s.name, 0)) for s in spec.model.inputs)
        self.output_axes = tuple(int(batch_axis.get(s.name, 0)) for s in spec.model.outputs)
        self.places.resize(len(self.input_axes))

    cdef RowSpan _rows(self, uint32_t i, vector[LiveRequest*]& members):
        self.rows.clear()
        for member in members:
            self.rows.push_back(member.rows[i])
        return RowSpan(self.rows.data(), self.rows.size())

    cdef RowTable _table(self, uint32_t i, vector[LiveRequest*]& members) except *:
        cdef TensorLayout t = <TensorLayout>self.input_axes[i]
        cdef RowTable table
        cdef int64_t steps = 0
        self.addresses.clear()
        self.cu_seqlens.clear()
        self.cu_seqlens.push_back(0)
        for member in members:
            steps += member.rows[i].dims[0]
            if steps > INT32_MAX:
                raise InvalidArgument(f"inputs[{t.name!r}] of model {self.spec.name!r} hold {steps} steps in one batch; "
                                      f"allowed: {INT32_MAX}, as cu_seqlens is int32")
            self.addresses.push_back(member.rows[i].data)
            self.cu_seqlens.push_back(<int32_t>steps)
        table.rows = RowPointers(self.addresses.data(), self.addresses.size())
        table.cu_seqlens = self.cu_seqlens.data()
        table.step_items = t.step_bytes
        table.item_bytes = 1
        return table

    cdef int64_t _dense_bytes(self, TensorLayout t, RowSpan rows) except -1:
        """Of the dense batch, whose dims are left in t.layout.dims_max."""
        cdef int64_t n_bytes = t.layout.item_bytes * <int64_t>self.rows.size()
        cdef int axis
        if t.ragged:
            dims_max_of(rows, t.rank, t.layout.dims_max)
        for axis in range(t.rank):
            if t.layout.dims_max[axis] > 0 and n_bytes > batch_bytes_max // t.layout.dims_max[axis]:
                self._too_large(t)
            n_bytes *= t.layout.dims_max[axis]
        return n_bytes

    cdef Region _place(self, vector[LiveRequest*]& members, bint staged):
        """The batch's region with every request's inputs in it: each byte is copied once, here."""
        cdef TensorLayout t
        cdef InputPlace place
        cdef Region region
        cdef int64_t end = 0
        cdef uint32_t i
        for i in range(len(self.input_axes)):
            t = <TensorLayout>self.input_axes[i]
            place.at = (end + alignment - 1) // alignment * alignment
            place.staged = staged and t.steps_differ
            if place.staged:
                place.n_bytes = <int64_t>staged_bytes(self._table(i, members))
            else:
                place.n_bytes = self._dense_bytes(t, self._rows(i, members))
            end = place.at + place.n_bytes
            if end > batch_bytes_max:
                self._too_large(t)
            self.places[i] = place
        region = self.arena.take(end)
        for i in range(len(self.input_axes)):
            if self.places[i].staged:
                self._write_rows(self._table(i, members), self.places[i], region.data)
            else:
                t = <TensorLayout>self.input_axes[i]
                self._write_dense(self._rows(i, members), t.layout, self.places[i], region.data)
        return region

    cdef void _write_rows(self, const RowTable& table, InputPlace place, byte* region) noexcept:
        if place.n_bytes < nogil_bytes_min:
            stage_rows(table, place.at, region)
        else:
            with nogil:
                stage_rows(table, place.at, region)

    cdef void _write_dense(self, RowSpan rows, const PadLayout& layout, InputPlace place, byte* region) noexcept:
        if place.n_bytes < nogil_bytes_min:
            pad_rows(rows, layout, region + place.at)
        else:
            with nogil:
                pad_rows(rows, layout, region + place.at)

    cdef dict pack(self, vector[LiveRequest*]& members):
        """The batch's inputs, dense. Whoever keeps one (or returns it as an output) keeps its memory."""
        cdef Region region = self._place(members, False)
        cdef uint32_t i
        cdef dict inputs = {}
        for i in range(len(self.input_axes)):
            t = <TensorLayout>self.input_axes[i]
            inputs[t.name] = self._view(t, self.places[i], region)
        return inputs

    cdef object _view(self, TensorLayout t, InputPlace place, Region region):
        cdef cnp.npy_intp dims[9]
        cdef int axis, to = 0
        for axis in range(t.rank + 1):
            if axis == <int>t.layout.batch_axis:
                dims[to] = <cnp.npy_intp>self.rows.size()
                to += 1
            if axis < t.rank:
                dims[to] = t.layout.dims_max[axis]
                to += 1
        return infcore_view(t.dtype, t.rank + 1, dims, NULL, region.data + place.at, cnp.NPY_ARRAY_CARRAY, region)

    cdef tuple stage(self, vector[LiveRequest*]& members):
        """The batch for a device that packs by itself: its region, each input's name, where it begins there, and as staged
        rows their lengths or else the dense array's shape; and the requests' works."""
        cdef Region region = self._place(members, True)
        cdef cnp.ndarray lengths, works = np.empty(members.size(), np.float64)
        cdef uint32_t i, r
        cdef list inputs = []
        for r in range(members.size()):
            (<double*>cnp.PyArray_DATA(works))[r] = members[r].request.work
        for i in range(len(self.input_axes)):
            t = <TensorLayout>self.input_axes[i]
            if not self.places[i].staged:
                inputs.append((t.name, self.places[i].at, None, self._view(t, self.places[i], region).shape))
                continue
            lengths = np.empty(members.size(), np.int64)
            for r in range(members.size()):
                (<int64_t*>cnp.PyArray_DATA(lengths))[r] = members[r].rows[i].dims[0]
            inputs.append((t.name, self.places[i].at, lengths, None))
        return region, inputs, works

    def _too_large(self, TensorLayout t):
        shape = tuple([t.layout.dims_max[axis] for axis in range(t.rank)])
        raise InvalidArgument(f"inputs[{t.name!r}] of model {self.spec.name!r}, padded to {shape}, would be larger than "
                              f"{batch_bytes_max} bytes; allowed: shapes that are alike enough to stand in one batch")

    cdef BatchResult accept(self, str device, object outputs, uint32_t n_requests):
        """Checks what a device's run returned against the model. Raises DeviceError naming device, field and what is allowed."""
        cdef TensorLayout t
        cdef BatchResult result = BatchResult.__new__(BatchResult)
        cdef list arrays = []
        cdef uint32_t r
        who = f"device {device!r}, model {self.spec.name!r}"
        if not isinstance(outputs, dict):
            raise DeviceError(f"{who}: run returned {type(outputs).__name__}; allowed: a dict {{name: ndarray}}")
        if len(outputs) != len(self.spec.outputs):
            raise DeviceError(f"{who}: run returned {len(outputs)} outputs {list(outputs)}; allowed: exactly "
                              f"{len(self.spec.outputs)}, {[(<TensorLayout>o).name for o in self.spec.outputs]}")
        for i, layout in enumerate(self.spec.outputs):
            t = <TensorLayout>layout
            found = outputs.get(t.name)
            if type(found) is not list:
                _check_output(who, t, found, n_requests, <int>self.output_axes[i])
            elif len(<list>found) != <Py_ssize_t>n_requests:
                raise DeviceError(f"{who}: output {t.name!r} is a list of {len(<list>found)}; allowed: {n_requests} arrays, "
                                  "one a request")
            else:
                for r in range(n_requests):
                    _check_output(who, t, (<list>found)[r], r, -1)
            arrays.append(found)
        result.spec = self.spec
        result.device = device
        result.arrays = tuple(arrays)
        result.axes = self.output_axes
        return result


cdef int _check_output(str who, TensorLayout t, object found, uint32_t n, int batch_axis) except -1:
    """batch_axis -1: the output of request n alone; else that of a batch of n."""
    cdef cnp.ndarray array
    cdef int axis, at
    cdef bint fits
    what = f"{who}: output {t.name!r}" + (f"[{n}]" if batch_axis < 0 else "")
    if not cnp.PyArray_Check(found):
        raise DeviceError(f"{what} is {'missing' if found is None else type(found).__name__}; allowed: an ndarray")
    array = <cnp.ndarray>found
    if not t.holds(array):
        raise DeviceError(f"{what} is {found.dtype}; allowed: {t.dtype}")
    if batch_axis < 0:
        fits = cnp.PyArray_NDIM(array) == t.rank
    else:
        fits = cnp.PyArray_NDIM(array) == t.rank + 1 and cnp.PyArray_DIM(array, batch_axis) == n
    if fits:
        for axis in range(t.rank):
            at = axis if batch_axis < 0 or axis < batch_axis else axis + 1
            fits = fits and (t.dims[axis] < 0 or cnp.PyArray_DIM(array, at) == t.dims[axis])
    if not fits:
        batch = "" if batch_axis < 0 else f" with a batch axis of {n} put in before axis {batch_axis}"
        raise DeviceError(f"{what} has shape {found.shape}; allowed: {t.describe()}{batch}")
    return 0


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
            t = <TensorLayout>self.spec.outputs[i]
            if type(self.arrays[i]) is list:
                outputs[t.name] = (<list>self.arrays[i])[member]
                continue
            array = <cnp.ndarray>self.arrays[i]
            batch_axis = <int>self.axes[i]
            for axis in range(t.rank):
                at = axis if axis < batch_axis else axis + 1
                dims[axis] = cnp.PyArray_DIM(array, at)
                strides[axis] = cnp.PyArray_STRIDE(array, at)
            data = <char*>cnp.PyArray_DATA(array) + member * cnp.PyArray_STRIDE(array, batch_axis)
            outputs[t.name] = infcore_view(t.dtype, t.rank, dims, strides, data,
                                           cnp.PyArray_FLAGS(array) & cnp.NPY_ARRAY_WRITEABLE, array)
        return outputs


cdef object failure_of(device, model, e):
    """What the requests of a batch are told whose run raised e."""
    where = f"device {device!r}, model {model!r}: "
    try:
        said = str(e)
    except BaseException:  # a worker outlives what its device raises, whatever that is
        said = "(its text could not be had)"
    if type(e) is DeviceError and said.startswith(where):
        error = e  # our own, of what run() returned
    else:
        error = DeviceError(f"{where}{type(e).__name__}: {said}")
        error.__cause__ = e
    error.device = device
    return error
