# What a request says of its session and its prompt, so that policies can find who has what of it.
from libc.stdint cimport uint32_t

from infcore._core.route_args cimport blocks_of, session_of
from infcore._cpp.engine cimport copy_blocks, event_blocks_max, name_blocks
from infcore._cpp.route cimport const_blocks


cdef int tell_prompt(EngineCore engine, Future future, ModelSpec spec, object blocks) except -1:
    cdef const_blocks names
    cdef uint32_t n_max = event_blocks_max, block_size = engine.block_size
    if spec.by_token and block_size > 0 and (engine.driver.reads_blocks() or blocks is not None):
        future.c.request.prompt_tokens = <uint32_t>min(future.c.rows[0].dims[0], 0x7FFFFFFF)
        future.c.request.block_size = block_size
        n_max = min(n_max, future.c.request.prompt_tokens // block_size)
        if blocks is None and n_max * block_size + block_size > future.c.request.prompt_tokens:
            name_blocks(future.c, block_size)
    if blocks is None:
        return 0
    names = blocks_of(blocks)
    if names.size() > n_max:
        raise InvalidArgument(f"blocks has {len(blocks)} names; allowed: at most {n_max}, the full blocks of the prompt")
    copy_blocks(future.c, names.data(), <uint32_t>names.size())
    return 0
