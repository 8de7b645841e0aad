"""What every border that takes requests to route checks: sessions, blocks of prompts, options of policies."""
from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libcpp.string cimport string
from libcpp.vector cimport vector

from cpython.unicode cimport PyUnicode_AsUTF8AndSize

cimport numpy as cnp

from infcore._core.base cimport finite
from infcore._core.fleet cimport text
from infcore._cpp.route cimport OptionValue, RoutingOptions, const_blocks, session_hash

from infcore.errors import InvalidArgument, InvalidType

cnp.import_array()


cdef RoutingOptions options_of(object policy_options) except *:
    """policy_options  a mapping of names to numbers, texts or sequences of texts, or None"""
    cdef RoutingOptions options
    cdef vector[string] texts
    if policy_options is None:
        return options
    for name, value in policy_options.items():
        if isinstance(value, str):
            options.set(name.encode(), OptionValue(text(name, value)))
        elif isinstance(value, (list, tuple)):
            texts.clear()
            for i, each in enumerate(value):
                texts.push_back(text(f"{name}[{i}]", each))
            options.set(name.encode(), OptionValue(texts))
        elif isinstance(value, bool) or not hasattr(value, "__float__"):
            raise InvalidType(f"{name} is {type(value).__name__}; allowed: a number, a str or a list of str")
        else:
            options.set(name.encode(), OptionValue(finite(name, value, -1e300)))
    return options


cdef uint64_t session_of(object session) except? 0:
    cdef Py_ssize_t n_bytes
    cdef const char* text
    if session is None:
        return 0
    if isinstance(session, str):
        try:
            text = PyUnicode_AsUTF8AndSize(session, &n_bytes)
        except UnicodeEncodeError:  # a lone surrogate
            session = session.encode("utf-8", "surrogatepass")
            return session_hash(<const char*>(<bytes>session), <size_t>len(session))
        return session_hash(text, <size_t>n_bytes)
    if isinstance(session, int) and not isinstance(session, bool):
        return session_hash(<uint64_t>(session & 0xFFFFFFFFFFFFFFFF))
    raise InvalidType(f"session is {type(session).__name__}; allowed: a str, an int or None")


cdef const_blocks blocks_of(object blocks) except *:
    cdef cnp.ndarray array
    if not isinstance(blocks, cnp.ndarray):
        raise InvalidType(f"blocks is {type(blocks).__name__}; allowed: a uint64 array, as block_hashes returns, or None")
    array = blocks
    if cnp.PyArray_TYPE(array) != cnp.NPY_UINT64 or cnp.PyArray_NDIM(array) != 1 or not (
            cnp.PyArray_IS_C_CONTIGUOUS(array) and cnp.PyArray_ISBEHAVED_RO(array)):
        raise InvalidArgument(f"blocks is {blocks.dtype} of shape {blocks.shape}; allowed: uint64 of shape (n,), "
                              "contiguous, in this machine's byte order")
    return const_blocks(<const uint64_t*>cnp.PyArray_DATA(array), <size_t>cnp.PyArray_DIM(array, 0))
