"""The cache: what is kept by what it costs to make again, and replays of traces through its eviction policies."""

from infcore._core.cache_replay import eviction_policies as policies
from infcore.cache.replay import replay
from infcore.cache.stats import CacheStats

__all__ = ["CacheStats", "policies", "replay"]
