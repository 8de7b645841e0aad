"""The result cache: values that cost something to make, kept by what they save; and replays of traces."""

from infcore._core.cache import policies
from infcore.cache.replay import replay
from infcore.cache.result_cache import Cache
from infcore.cache.sizes import estimated_bytes
from infcore.cache.stats import CacheStats

__all__ = ["Cache", "CacheStats", "estimated_bytes", "policies", "replay"]
