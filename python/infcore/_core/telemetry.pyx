"""Python's view of the core's histograms."""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cython.operator cimport dereference as deref
from libc.stdint cimport uint64_t
from libcpp.vector cimport vector

import numpy

from infcore._core.base cimport finite
from infcore._cpp.telemetry cimport Counts, Doubles

from infcore.errors import InvalidArgument, InvalidType

cdef tuple _quantiles = (("p50_s", 0.5), ("p90_s", 0.9), ("p99_s", 0.99), ("p999_s", 0.999), ("p9999_s", 0.9999))


cdef class Histogram:
    """Durations in bounded memory: any quantile within 1 % (0.4 % by construction), exact count, lowest and highest.

    min_s, max_s   seconds, 0 < min_s < max_s <= 2**62 * min_s; what lies outside counts as the bound it passed
    Threads        every method may be called from any thread at any time, with or without the GIL
    Raises         InvalidArgument, InvalidType
    Memory         8 bytes a bucket, 128 buckets per power of two: 36 KiB by default, 64 KiB at most
    Source         log-linear buckets as in HdrHistogram, taken from the bits of the double (telemetry/histogram.hpp)
    """

    def __cinit__(self, *args, **kwargs):
        self.c_obj.reset(new CppHistogram(1e-7, 3600.0))  # also without __init__, no method meets a null pointer

    def __init__(self, *, min_s=1e-7, max_s=3600.0):
        if min_s != 1e-7 or max_s != 3600.0:
            self.c_obj.reset(new CppHistogram(finite("min_s", min_s, 0.0), finite("max_s", max_s, 0.0)))

    def record(self, seconds) -> None:
        """Count one duration in seconds, >= 0 (+inf counts as max_s). O(1), about 1 ns in the core."""
        cdef double value = PyFloat_AS_DOUBLE(seconds) if PyFloat_CheckExact(seconds) else _number("seconds", seconds)
        if not value >= 0.0:
            raise InvalidArgument(f"seconds is {value!r}; allowed: a number >= 0")
        deref(self.c_obj).record_shared(value)

    def record_many(self, seconds) -> None:
        """Count every duration of an array of any shape, in seconds, >= 0; all of them or, on an error, none. O(n)."""
        cdef object array
        try:
            array = numpy.asarray(seconds)
        except ValueError as ragged:
            raise InvalidArgument(f"seconds is no array of numbers: {ragged}") from None
        if array.dtype.kind not in "iuf" and array.size > 0:
            raise InvalidType(f"seconds is an array of {array.dtype}; allowed: real numbers")
        array = numpy.ascontiguousarray(array, dtype=numpy.float64)
        refused = numpy.flatnonzero(~(array.ravel() >= 0.0))
        if refused.size:
            raise InvalidArgument(f"seconds[{refused[0]}] is {array.ravel()[refused[0]]}; allowed: numbers >= 0")
        cdef Py_buffer view
        PyObject_GetBuffer(array, &view, PyBUF_SIMPLE)
        try:
            with nogil:
                deref(self.c_obj).record_many_shared(Doubles(<const double*>view.buf, view.len // sizeof(double)))
        finally:
            PyBuffer_Release(&view)

    def quantile(self, q) -> float:
        """The q-quantile in seconds, 0 <= q <= 1, by numpy.quantile's default rule; NaN while empty. O(buckets)."""
        cdef double at = _number("q", q)
        if not 0.0 <= at <= 1.0:
            raise InvalidArgument(f"q is {q!r}; allowed: 0 <= q <= 1")
        return deref(self.c_obj).quantile(at)

    def merge(self, other) -> None:
        """Add all that `other` holds, as if recorded here. InvalidArgument where the ranges differ. O(buckets)."""
        if not isinstance(other, Histogram):
            raise InvalidType(f"other is {type(other).__name__}; allowed: a Histogram")
        deref(self.c_obj).merge_shared(deref((<Histogram>other).c_obj))

    @property
    def count(self) -> int:
        """Durations recorded. O(buckets), as are sum_s and mean_s."""
        return deref(self.c_obj).count()

    @property
    def sum_s(self) -> float:
        """Sum in seconds, within 0.4 %; it does not depend on the order of recording or merging."""
        return deref(self.c_obj).sum_s()

    @property
    def mean_s(self) -> float:
        """Mean in seconds, within 0.4 %; NaN while empty."""
        return deref(self.c_obj).mean_s()

    @property
    def lowest_s(self) -> float:
        """The smallest duration recorded, exact within the range; NaN while empty."""
        return deref(self.c_obj).lowest_s()

    @property
    def highest_s(self) -> float:
        """The largest duration recorded, exact within the range; NaN while empty."""
        return deref(self.c_obj).highest_s()

    @property
    def min_s(self) -> float:
        """Lower end of the range, as given."""
        return deref(self.c_obj).min_s()

    @property
    def max_s(self) -> float:
        """Upper end of the range, as given."""
        return deref(self.c_obj).max_s()

    def buckets(self) -> list:
        """The buckets in use, ascending: (lower_s, upper_s, count), lower_s <= value < upper_s."""
        return [(deref(self.c_obj).bucket_lower_s(i), deref(self.c_obj).bucket_lower_s(i + 1), n)
                for i, n in _used(deref(self.c_obj))]

    def to_dict(self) -> dict:
        """All of it as plain numbers that JSON takes: figures for people, [bucket, count] pairs for from_dict.

        While empty the figures are None. Bucket i starts at the i-th step above that of min_s on the grid of doubles
        with 7 bits of mantissa.
        """
        cdef Histogram now = copy_of(deref(self.c_obj))
        cdef bint empty = now.count == 0
        state = {"min_s": now.min_s, "max_s": now.max_s, "count": now.count, "sum_s": now.sum_s}
        for name in ("mean_s", "lowest_s", "highest_s"):
            state[name] = None if empty else getattr(now, name)
        for name, q in _quantiles:
            state[name] = None if empty else now.quantile(q)
        state["buckets"] = [[i, n] for i, n in _used(deref(now.c_obj))]
        return state

    @classmethod
    def from_dict(cls, state) -> Histogram:
        """The histogram that to_dict described. InvalidArgument where its parts contradict each other."""
        cdef Histogram made
        cdef vector[uint64_t] counts
        cdef double lowest_s = 0.0, highest_s = 0.0
        try:
            made = cls(min_s=state["min_s"], max_s=state["max_s"])
            counts.resize(deref(made.c_obj).n_buckets())
            for bucket, n in state["buckets"]:
                if not 0 <= bucket < counts.size():
                    raise InvalidArgument(f"bucket is {bucket!r}; allowed: 0 to {counts.size() - 1}")
                counts[bucket] = n
            if state["buckets"]:
                lowest_s, highest_s = state["lowest_s"], state["highest_s"]
        except KeyError as missing:
            raise InvalidArgument(f"state has no {missing.args[0]!r}; allowed: what Histogram.to_dict gives") from None
        except (TypeError, OverflowError) as wrong:
            raise InvalidType(f"state is not of Histogram.to_dict's form: {wrong}") from None
        deref(made.c_obj).restore(Counts(counts.data(), counts.size()), lowest_s, highest_s)
        return made

    def __reduce__(self):
        return type(self).from_dict, (self.to_dict(),)

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + deref(self.c_obj).bytes()

    def __repr__(self) -> str:
        return (f"Histogram(count={self.count}, p50_s={self.quantile(0.5):.4g}, p99_s={self.quantile(0.99):.4g}, "
                f"highest_s={self.highest_s:.4g})")


cdef Histogram copy_of(const CppHistogram& live):
    cdef Histogram copied = Histogram.__new__(Histogram)
    copied.c_obj.reset(new CppHistogram(live))
    return copied


cdef list _used(const CppHistogram& histogram):
    cdef size_t i
    cdef uint64_t n
    cdef list used = []
    for i in range(histogram.n_buckets()):
        n = histogram.bucket_count(i)
        if n != 0:
            used.append((i, n))
    return used


cdef double _number(str field, object value) except? -1.0:
    try:
        return value
    except TypeError:
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: a number") from None
