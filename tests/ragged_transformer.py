"""A small transformer with random weights that takes ragged texts padded or packed, for TorchDevice."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

import infcore


class Block(nn.Module):
    def __init__(self, width, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.before = nn.LayerNorm(width)
        self.between = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x, attend):
        q, k, v = self.qkv(self.before(x)).unflatten(-1, (3, self.n_heads, -1)).unbind(-3)
        x = x + self.out(attend(q, k, v).flatten(-2))
        return x + self.narrow(functional.gelu(self.wide(self.between(x))))


class RaggedTransformer(nn.Module):
    """ids -> tags of each step, and one vector of each text.

    packed  "segments": attention text by text; "block_diagonal": one attention that a mask keeps to its own text
    """

    def __init__(self, *, width=32, n_heads=2, n_blocks=2, n_words=100, n_tags=5, packed="segments", seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.packed = packed
        self.words = nn.Embedding(n_words, width)
        self.places = nn.Embedding(512, width)
        self.blocks = nn.ModuleList(Block(width, n_heads) for _ in range(n_blocks))
        self.tag = nn.Linear(width, n_tags)

    def forward(self, ids, layout, mask, cu_seqlens, position_ids):
        if layout == "padded":
            places = torch.arange(ids.shape[1], device=ids.device)
            attend = padded_attention(mask)
        else:
            places = position_ids
            way = {"segments": segment_attention, "block_diagonal": block_diagonal_attention}[self.packed]
            attend = way(cu_seqlens)
        x = self.words(ids) + self.places(places)
        for block in self.blocks:
            x = block(x, attend)
        if layout == "padded":
            kept = torch.where(mask.unsqueeze(-1), x, 0.0)  # a text of length 0 attends to nothing: NaN
            vector = kept.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        else:
            texts = [x[begin:end] for begin, end in pairwise(cu_seqlens.tolist())]
            vector = torch.stack([text.sum(0) / max(len(text), 1) for text in texts])
        return {"tags": self.tag(x), "vector": vector, "not asked for": x}


def padded_attention(mask):
    seen = mask[:, None, None, :]  # (n, heads, queries, keys)

    def attend(q, k, v):
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2)

    return attend


def segment_attention(cu_seqlens):
    bounds = list(pairwise(cu_seqlens.tolist()))

    def attend(q, k, v):
        parts = []
        for begin, end in bounds:
            qi, ki, vi = (t[begin:end].transpose(0, 1).unsqueeze(0) for t in (q, k, v))
            parts.append(functional.scaled_dot_product_attention(qi, ki, vi)[0].transpose(0, 1))
        return torch.cat(parts)

    return attend


def block_diagonal_attention(cu_seqlens):
    lengths = cu_seqlens.diff().long()
    text = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    seen = (text[:, None] == text[None, :]).unsqueeze(0)

    def attend(q, k, v):
        q, k, v = (t.transpose(0, 1) for t in (q, k, v))
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(0, 1)

    return attend


def alone(module, ids):
    """What the module says of one text by itself: {name: ndarray}."""
    with torch.inference_mode():
        answer = module(
            torch.from_numpy(ids)[None],
            layout="padded",
            mask=torch.ones(1, len(ids), dtype=torch.bool),
            cu_seqlens=None,
            position_ids=None,
        )
    return {"tags": answer["tags"][0].numpy(), "vector": answer["vector"][0].numpy()}


def text_model(name="text", *, width=32, n_tags=5, **options):
    """The Model of such a transformer."""
    return infcore.Model(
        name,
        {"ids": ("int64", (None,))},
        {"tags": ("float32", (None, n_tags)), "vector": ("float32", (width,))},
        **{"work": "ids", "max_batch_size": 16, **options},
    )
