"""Continuous batching for token models: paged KV blocks, names of prefixes, and what each step computes."""

from infcore._core.continuous import ContinuousBatcher, TokenCurve, TokenStep
from infcore._core.kv import KVBlocks, block_hashes, eviction_policies

__all__ = ["ContinuousBatcher", "KVBlocks", "TokenCurve", "TokenStep", "block_hashes", "eviction_policies"]
