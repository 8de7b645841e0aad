"""The result cache: values that cost something to make, kept by what they save; and replays of traces."""

from typing import TYPE_CHECKING, Any

from infcore._core.cache import policies
from infcore.cache.demand import Demand, Item
from infcore.cache.replay import replay
from infcore.cache.result_cache import Cache
from infcore.cache.room import Resident, Room
from infcore.cache.sizes import estimated_bytes
from infcore.cache.snapshot import Loaded, Saved, load_snapshot, save_snapshot
from infcore.cache.stats import CacheStats
from infcore.cache.warming import Load, Plan, Warmed, awarm, plan, warm

if TYPE_CHECKING:
    from infcore.cache.coherent import CoherentCache
    from infcore.cache.coherent_stats import CoherentStats

__all__ = [
    "Cache",
    "CacheStats",
    "CoherentCache",
    "CoherentStats",
    "Demand",
    "Item",
    "Load",
    "Loaded",
    "Plan",
    "Resident",
    "Room",
    "Saved",
    "Warmed",
    "awarm",
    "estimated_bytes",
    "load_snapshot",
    "plan",
    "policies",
    "replay",
    "save_snapshot",
    "warm",
]

_LATER = {"CoherentCache": "coherent", "CoherentStats": "coherent_stats"}  # few need them, and they need an extra


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(importlib.import_module(f"infcore.cache.{_LATER[name]}"), name)
    return found
