"""The result cache: values that cost something to make, kept by what they save; and replays of traces."""

from typing import TYPE_CHECKING, Any

from infcore._core.cache import policies
from infcore.cache.replay import replay
from infcore.cache.result_cache import Cache
from infcore.cache.sizes import estimated_bytes
from infcore.cache.stats import CacheStats

if TYPE_CHECKING:
    from infcore.cache.coherent import CoherentCache
    from infcore.cache.coherent_stats import CoherentStats

__all__ = ["Cache", "CacheStats", "CoherentCache", "CoherentStats", "estimated_bytes", "policies", "replay"]

_LATER = {"CoherentCache": "coherent", "CoherentStats": "coherent_stats"}  # few need them, and they need an extra


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(importlib.import_module(f"infcore.cache.{_LATER[name]}"), name)
    return found
