"""Launches a jitted function whose compiled code was found before without Triton's own dispatch.

Triton binds the arguments, looks at each and builds a key of them all on every call: 13.4 us of Python for the row
mover, where what is left here takes 4.5 (with a driver that launches nothing, Triton 3.9.0, one shared CPU core; see
bench/gpu/dispatch.py). The key is Triton's in fewer words: of our kernels only the constants, the tensors' types,
whether they begin at a multiple of 16 bytes, and the device change what is compiled. Numbers do not: each is annotated,
and named in do_not_specialize if it is an integer (tests/gpu/test_triton_launch.py holds both against each other).
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from typing import Any

_compiled: dict[Hashable, tuple[Any, tuple[Any, ...]]] = {}


@cache
def _takes_constants() -> bool:
    """Whether compiled code is launched with constants among its arguments, as from Triton 3.3 on."""
    import triton

    major, minor = triton.__version__.split(".")[:2]
    return (int(major), int(minor)) >= (3, 3)


def launch(
    function: Any,
    grid: tuple[int, int, int],
    tensors: Sequence[Any],
    numbers: Sequence[Any],
    *,
    which: Hashable,
    constants: Callable[[], Mapping[str, Any]],
    options: Mapping[str, Any],
) -> None:
    """One launch on the current device, which is the tensors', and on its current stream.

    function   jitted; its arguments are the tensors, then the numbers, then the constants, in this order
    which      what decides on the constants
    options    Triton's; always the same for a function
    """
    first = tensors[0].device
    key = (function, which, first, *[(tensor.dtype, tensor.data_ptr() % 16 == 0) for tensor in tensors])
    found = _compiled.get(key)
    if found is not None:
        code, values = found
        code[grid](*tensors, *numbers, *values)
        return
    given = constants()
    code = function[grid](*tensors, *numbers, **given, **options)
    # Interpreted, there is no code.
    if code is not None and _takes_constants():
        names = function.arg_names[len(tensors) + len(numbers) :]
        _compiled[key] = code, tuple(given[name] for name in names)
