# What a request says of its session and its prompt, so that policies can find who has what of it.
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from cpython.unicode cimport PyUnicode_AsUTF8AndSize

cimport numpy as cnp

from infcore._cpp.engine cimport copy_blocks, event_blocks_max, name_blocks, session_hash

cnp.import_array()


cdef uint64_t session_of(object session) except? 0:
    cdef Py_ssize_t n_bytes
    cdef const char* text
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


cdef int tell_prompt(EngineCore engine, Future future, ModelSpec spec, object blocks) except -1:
    cdef cnp.ndarray names
    cdef uint32_t n_max = event_blocks_max, block_size = engine.block_size
    if spec.by_token and block_size > 0 and (engine.driver.reads_blocks() or blocks is not None):
        future.c.request.prompt_tokens = <uint32_t>min(future.c.rows[0].dims[0], 0x7FFFFFFF)
        future.c.request.block_size = block_size
        n_max = min(n_max, future.c.request.prompt_tokens // block_size)
        if blocks is None and n_max * block_size + block_size > future.c.request.prompt_tokens:
            name_blocks(future.c, block_size)
    if blocks is None:
        return 0
    if not isinstance(blocks, cnp.ndarray):
        raise InvalidType(f"blocks is {type(blocks).__name__}; allowed: a uint64 array, as block_hashes returns, or None")
    names = blocks
    if cnp.PyArray_TYPE(names) != cnp.NPY_UINT64 or cnp.PyArray_NDIM(names) != 1 or not (
            cnp.PyArray_IS_C_CONTIGUOUS(names) and cnp.PyArray_ISBEHAVED_RO(names)):
        raise InvalidArgument(f"blocks is {blocks.dtype} of shape {blocks.shape}; allowed: uint64 of shape (n,), "
                              "contiguous, in this machine's byte order")
    if cnp.PyArray_DIM(names, 0) > n_max:
        raise InvalidArgument(f"blocks has {len(blocks)} names; allowed: at most {n_max}, the full blocks of the prompt")
    copy_blocks(future.c, <const uint64_t*>cnp.PyArray_DATA(names), <uint32_t>cnp.PyArray_DIM(names, 0))
    return 0
