"""Clocks and the checks of numbers that every border shares."""
from libc.math cimport INFINITY, isfinite, isnan
from libc.stdint cimport int64_t, uint32_t

from infcore._cpp.base cimport Isa, add_ns, isa, monotonic_ns, never_ns, seconds, to_ns

from infcore.errors import InvalidArgument, InvalidType


def active_isa() -> str:
    """Which copy of the vectorised loops runs here: "baseline", "avx2" or "avx512" (INFCORE_ISA asks for less)."""
    return "avx512" if isa() == Isa.avx512 else "avx2" if isa() == Isa.avx2 else "baseline"


cdef class Clock:
    """Monotonic time of this machine. Subclass it, or pass any object with now_s(), to hand in another."""

    cdef int64_t now_ns(self) except? -1:
        return monotonic_ns()

    def now_s(self) -> float:
        """Seconds since an arbitrary start; only differences mean anything."""
        return seconds(self.now_ns())


cdef class ManualClock(Clock):
    """A clock that stands still until told: for tests and simulations.

    start_s  seconds, finite, where it begins
    """

    def __init__(self, start_s=0.0):
        self.now.set(to_ns(finite("start_s", start_s, -9e9)))

    cdef int64_t now_ns(self) except? -1:
        return self.now.get()

    def advance(self, seconds_s) -> None:
        """Move on by seconds_s >= 0."""
        self.now.set(add_ns(self.now.get(), to_ns(finite("seconds", seconds_s, 0.0))))


cdef class _ForeignClock(Clock):
    cdef object _now_s

    def __init__(self, now_s):
        self._now_s = now_s

    cdef int64_t now_ns(self) except? -1:
        return to_ns(finite("clock.now_s()", self._now_s(), -9e9))


cdef enum:
    tenant_names_max = 1 << 16  # known by number; what comes later shares numbers with others
    tenant_chars_max = 256


cdef class TenantNames:
    """Tenants' numbers, in the order in which their names came first, from 1; "" is 0. Bounded memory: names beyond
    the first 65,536 go by their hash, and may meet others there."""

    def __cinit__(self):
        self.numbers = {"": 0}

    cdef uint32_t number(self, object tenant) except? 0xFFFFFFFF:
        if type(tenant) is not str:
            raise InvalidType(f"tenant is {type(tenant).__name__}; allowed: str")
        known = self.numbers.get(tenant)
        if known is not None:
            return known
        if len(tenant) > tenant_chars_max:
            raise InvalidArgument(f"tenant is {len(tenant)} characters long; allowed: at most {tenant_chars_max}")
        if len(self.numbers) <= tenant_names_max:
            return self.numbers.setdefault(tenant, len(self.numbers))
        from zlib import crc32
        return tenant_names_max + 1 + crc32(tenant.encode("utf-8", "surrogatepass")) % (1 << 31)


cdef Clock _monotonic = Clock()


cdef Clock as_clock(object clock):
    if clock is None:
        return _monotonic
    if type(clock) is Clock or type(clock) is ManualClock:
        return <Clock>clock
    if callable(getattr(clock, "now_s", None)):
        return _ForeignClock(clock.now_s)
    raise InvalidType(f"clock is {type(clock).__name__}; allowed: None or an object with now_s()")


cdef int64_t now_of(Clock clock, object now_s) except? -1:
    if now_s is None:
        return clock.now_ns()
    return to_ns(finite("now_s", now_s, -9e9))


cdef int64_t until_ns(str field, object seconds_s, int64_t now_ns) except? -1:
    cdef double s
    if seconds_s is None:
        return never_ns
    try:
        s = seconds_s
    except OverflowError:  # an int that no double holds
        s = INFINITY if seconds_s > 0 else -INFINITY
    except TypeError:
        raise InvalidType(f"{field} is {type(seconds_s).__name__}; allowed: seconds as a number, or None") from None
    if isnan(s) or s < 0.0:
        raise InvalidArgument(f"{field} is {seconds_s!r}; allowed: seconds >= 0 from now, or None")
    return add_ns(now_ns, to_ns(s))


cdef double finite(str field, object value, double at_least) except? -1.0:
    cdef double x
    try:
        x = value
    except OverflowError:  # an int that no double holds
        x = INFINITY
    except TypeError:
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: a number") from None
    if not isfinite(x) or x < at_least:
        raise InvalidArgument(f"{field} is {value!r}; allowed: a finite number >= {at_least:g}")
    return x
