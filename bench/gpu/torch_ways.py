"""How the same is done with PyTorch alone. Each way is a call on tensors that lie on the device already.

What a way is given ready is in its name: "index ready" is an index tensor that PyTorch would
have to build and copy for every batch. Ways make data alone: no position ids, no mask.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Way = Callable[[], Any]


def packed_ways(rows: Sequence[Any], dtype: Any) -> dict[str, Way]:
    """Rows end to end."""
    import torch

    return {"cat": lambda: torch.cat(list(rows)).to(dtype)}


def padded_ways(rows: Sequence[Any], dtype: Any, *, side: str, lengths: NDArray[np.int64]) -> dict[str, Way]:
    """A row each, zeros behind (or before) it."""
    import torch

    longest = int(lengths.max())
    device = rows[0].device
    packed = torch.cat(list(rows))
    trailing = packed.shape[1:]

    def pad_sequence() -> Any:
        return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_side=side).to(dtype)

    places = torch.from_numpy(padded_places(lengths, longest, side)).to(device)

    def index_copy() -> Any:
        padded = torch.zeros((len(rows) * longest, *trailing), dtype=dtype, device=device)
        return padded.index_copy_(0, places, packed.to(dtype)).view(len(rows), longest, *trailing)

    ways = {"pad_sequence": pad_sequence, "zeros, index_copy_ (packed and index ready)": index_copy}
    if side == "right" and packed.is_floating_point():
        ways["nested_tensor, to_padded_tensor"] = lambda: torch.nested.to_padded_tensor(nested(rows), 0.0).to(dtype)
        offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])).to(device)

        def jagged() -> Any:
            made = torch.nested.nested_tensor_from_jagged(
                packed, offsets=offsets, min_seqlen=int(lengths.min()), max_seqlen=longest
            )
            return made.to_padded_tensor(0.0).to(dtype)

        ways["nested_tensor_from_jagged, to_padded_tensor (packed ready)"] = jagged
    return ways


def nested(rows: Sequence[Any]) -> Any:
    """A strided nested tensor; PyTorch warns that its interface may change."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor(list(rows))


def padded_places(lengths: NDArray[np.int64], longest: int, side: str) -> NDArray[np.int64]:
    """Where each step of a packed batch lies among the steps of the padded one."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    step = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    lead = longest - lengths[row] if side == "left" else 0
    return (row * longest + step + lead).astype(np.int64)


def unpacked_ways(padded: Any, lengths: NDArray[np.int64], dtype: Any) -> dict[str, Way]:
    """A batch padded on the right, back to rows end to end."""
    import torch

    n_rows, longest = padded.shape[:2]
    steps = torch.arange(longest, device=padded.device)
    mask = steps < torch.from_numpy(lengths).to(padded.device)[:, None]
    flat = padded.view(n_rows * longest, *padded.shape[2:])
    places = torch.from_numpy(padded_places(lengths, longest, "right")).to(padded.device)
    ends = lengths.tolist()
    return {
        "boolean index (mask ready)": lambda: padded[mask].to(dtype),
        "index_select (index ready)": lambda: flat.index_select(0, places).to(dtype),
        "cat of slices": lambda: torch.cat([row[:n] for row, n in zip(padded, ends, strict=True)]).to(dtype),
    }


def image_ways(images: Any, mean: NDArray[Any], scale: NDArray[Any], dtype: Any) -> dict[str, Way]:
    """images (n, height, width, channels) uint8, all of one size, to normalised channels-first ones."""
    import torch

    shift = torch.from_numpy(np.asarray(mean, np.float32)).to(images.device).view(1, -1, 1, 1)
    factor = torch.from_numpy(np.asarray(scale, np.float32)).to(images.device).view(1, -1, 1, 1)

    def in_steps() -> Any:
        return images.permute(0, 3, 1, 2).float().sub_(shift).mul_(factor).to(dtype).contiguous()

    def contiguous_first() -> Any:
        return images.permute(0, 3, 1, 2).contiguous().float().sub_(shift).mul_(factor).to(dtype)

    def in_dtype() -> Any:
        return images.permute(0, 3, 1, 2).to(dtype).sub_(shift.to(dtype)).mul_(factor.to(dtype)).contiguous()

    ways = {
        "permute, float, sub_, mul_, to, contiguous": in_steps,
        "permute, contiguous, float, sub_, mul_, to": contiguous_first,
    }
    if dtype != torch.float32:
        ways["permute, to, sub_, mul_, contiguous (rounds three times)"] = in_dtype
    return ways


def block_table_ways(
    rows: Sequence[Any], computed: Any, query_lens: Any, n_tokens: int, block_size: int
) -> dict[str, Way]:
    """rows: int32 block ids of each request; computed, query_lens (n,) int64 on the device. Gives table and slots."""
    import torch

    def index_operations() -> Any:
        table = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=-1)
        ends = torch.cumsum(query_lens, 0)
        request = torch.repeat_interleave(query_lens, output_size=n_tokens)
        position = torch.arange(n_tokens, device=table.device) + (computed - ends + query_lens)[request]
        slots = table[request, position // block_size].long() * block_size + position % block_size
        return table, slots

    return {"pad_sequence, repeat_interleave, index": index_operations}
