"""block_table on a GPU: checks, then one launch."""

from typing import Any

from .. import backends, staging
from .plan import Plan, plan
from .reference import BlockTables
from .staging import StagedBlocks, checked_sizes


def block_table(
    memory: Any,
    blocks: StagedBlocks,
    *,
    block_size: int,
    max_blocks: int | None = None,
    n_slots: int | None = None,
    pad_block: int = -1,
    backend: str | None = None,
    stream: Any = None,
) -> BlockTables:
    """Staged lists of KV cache blocks as a padded table and a slot mapping, in vLLM's layouts.

    memory      (bytes,) uint8 on the device, 16-byte aligned: a copy of what staging.stage wrote; read only
    blocks      what stage returned
    block_size  positions of a block, as stage was told
    max_blocks  width of the table; None: the longest list
    n_slots     length of the slot mapping; None: one for each new token
    pad_block   what fills the table; vLLM itself has 0 there
    stream      of the back-end's library, or an address; None is its current one
    Returns     BlockTables on the device, the caller's; valid once the stream reaches this point. None refers to memory
    Raises      TypeError, ValueError: naming the argument, what it is and what is allowed; before the launch
    Moves       each id read once and each entry of the table written once, 8 bytes written a slot; ids again from the
                cache, 4 bytes a token; 24 bytes a request of tables. Same bits as reference.block_table
    """
    library = backends.arrays(backend)
    if block_size != blocks.block_size:
        raise ValueError(
            f"block_size is {block_size!r}; allowed: {blocks.block_size}, with which the blocks were staged"
        )
    n_tokens = blocks.n_tokens
    width, slots, pad = checked_sizes(int(blocks.rows.lengths.max()), n_tokens, max_blocks, n_slots, pad_block)
    memory = library.adopt(memory, stream)
    facts = library.facts(memory)
    backends.check_device(facts, "memory")
    backends.check_contiguous(facts, "memory")
    if facts.dtype != "uint8" or len(facts.shape) != 1:
        raise TypeError(f"memory is {facts.dtype} of shape {facts.shape}; allowed: uint8, (bytes,)")
    if facts.address % staging.ALIGNMENT or blocks.tokens_at % staging.ALIGNMENT:
        raise ValueError(
            f"memory is at {facts.address:#x}, blocks.tokens_at {blocks.tokens_at}; allowed: multiples of 16"
        )
    end = blocks.end
    if blocks.tokens_at < 0 or end > facts.shape[0]:
        raise ValueError(f"memory has {facts.shape[0]} bytes; allowed: at least {end}")
    with library.on(facts.device, stream):
        made = BlockTables(
            library.empty((blocks.n_requests, width), "int32", facts.device),
            library.empty((slots,), "int64", facts.device),
            library.empty((blocks.n_requests + 1,), "int32", facts.device),
        )
        chosen = plan(
            n_requests=blocks.n_requests,
            max_blocks=width,
            max_query=int(blocks.query_lens.max()),
            n_tokens=n_tokens,
            n_slots=slots,
            block_size=blocks.block_size,
            pad_block=pad,
            aligned=library.facts(made.table).address % staging.ALIGNMENT == 0,
        )
        _launch(library, chosen, memory, blocks, made)
    return made


def _launch(library: backends.Arrays, chosen: Plan, memory: Any, blocks: StagedBlocks, made: BlockTables) -> None:
    """One launch on the current device and stream."""
    if library.name == "triton":
        from . import triton_kernel

        triton_kernel.launch(chosen, memory, blocks.tokens_at, blocks.rows.tables_at, *made)
        return
    from .. import cuda_module
    from .cupy_kernel import cuda_launch

    facts = library.facts(memory)
    launch = cuda_launch(
        chosen,
        base=facts.address,
        row_offsets=facts.address + blocks.rows.tables_at,
        cu_blocks=facts.address + blocks.rows.cu_seqlens_at,
        computed=facts.address + blocks.tokens_at,
        query_start_loc=facts.address + blocks.query_start_at,
        table=library.facts(made.table).address,
        slots=library.facts(made.slot_mapping).address,
        starts=library.facts(made.query_start_loc).address,
    )
    cuda_module.run(launch, device=backends.device_index(facts.device))
