"""A small decoder transformer with random weights, its attention handed in: for token devices without a download."""

from __future__ import annotations

import functools
from typing import Any

from infcore import _checks
from infcore._torch_module import torch_module
from infcore.errors import InvalidArgument

__all__ = ["small_decoder"]


def small_decoder(
    *,
    vocab_size: int = 256,
    width: int = 64,
    n_layers: int = 2,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    seed: int = 0,
) -> Any:
    """A torch.nn.Module as TorchTokenDevice takes it, with weights drawn from the seed.

    Pre-norm blocks of rotary, grouped-query attention and a gated MLP, as Llama's. width / n_heads is even.
    Raises  MissingExtra without PyTorch; InvalidArgument, InvalidType naming the argument
    """
    sizes = {"vocab_size": vocab_size, "width": width, "n_layers": n_layers, "n_heads": n_heads}
    for name, value in {**sizes, "n_kv_heads": n_kv_heads}.items():
        _checks.integer(name, value, 1)
    if width % (2 * n_heads) or n_heads % n_kv_heads:
        raise InvalidArgument(
            f"width, n_heads, n_kv_heads are {width}, {n_heads}, {n_kv_heads}; allowed: width a multiple of "
            "2 * n_heads, n_heads one of n_kv_heads"
        )
    torch = torch_module()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_checks.integer("seed", seed, 0))
        return _decoder_class()(vocab_size, width, n_layers, n_heads, n_kv_heads).eval()


def _turned(torch: Any, x: Any, positions: Any) -> Any:
    """Rotary positions: each pair of x's (T, heads, dim) turned by an angle that grows with its token's position."""
    half = x.shape[-1] // 2
    rates = 10000.0 ** (-torch.arange(half, dtype=torch.float32, device=x.device) / half)
    angles = positions.float()[:, None, None] * rates
    one, two = x[..., :half], x[..., half:]
    return torch.cat([one * angles.cos() - two * angles.sin(), one * angles.sin() + two * angles.cos()], -1).to(x.dtype)


@functools.cache
def _block_class() -> Any:
    """Made when it is wanted, as its base is PyTorch's."""
    torch = torch_module()
    nn: Any = torch.nn

    class Block(nn.Module):  # type: ignore[misc]  # its base is not known where this is checked
        def __init__(self, width: int, n_heads: int, n_kv_heads: int) -> None:
            super().__init__()
            self.heads, self.head_dim = (n_heads, n_kv_heads, n_kv_heads), width // n_heads
            self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv = nn.Linear(width, sum(self.heads) * self.head_dim, bias=False)
            self.out = nn.Linear(width, width, bias=False)
            self.gate, self.wide = nn.Linear(width, 2 * width, bias=False), nn.Linear(width, 2 * width, bias=False)
            self.narrow = nn.Linear(2 * width, width, bias=False)

        def forward(self, x: Any, positions: Any, attend: Any) -> Any:
            q, k, v = self.qkv(self.before(x)).unflatten(-1, (-1, self.head_dim)).split(self.heads, dim=1)
            q, k = _turned(torch, q, positions), _turned(torch, k, positions)
            x = x + self.out(attend(q, k, v).flatten(1))
            y = self.between(x)
            return x + self.narrow(nn.functional.silu(self.gate(y)) * self.wide(y))

    return Block


@functools.cache
def _decoder_class() -> Any:
    nn: Any = torch_module().nn

    class Decoder(nn.Module):  # type: ignore[misc]  # as above
        """tokens, positions (T,) -> hidden states (T, width); logits() of those that are wanted."""

        def __init__(self, vocab_size: int, width: int, n_layers: int, n_heads: int, n_kv_heads: int) -> None:
            super().__init__()
            self.n_layers, self.n_kv_heads, self.head_dim = n_layers, n_kv_heads, width // n_heads
            self.embed = nn.Embedding(vocab_size, width)
            self.blocks = nn.ModuleList(_block_class()(width, n_heads, n_kv_heads) for _ in range(n_layers))
            self.last = nn.LayerNorm(width)
            self.words = nn.Linear(width, vocab_size, bias=False)

        def forward(self, tokens: Any, positions: Any, attend: Any) -> Any:
            x = self.embed(tokens)
            for layer, block in enumerate(self.blocks):
                x = block(x, positions, functools.partial(attend, layer))
            return self.last(x)

        def logits(self, hidden: Any) -> Any:
            return self.words(hidden)

    return Decoder
