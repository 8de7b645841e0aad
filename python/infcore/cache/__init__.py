"""The result cache: values that cost something to make, kept by what they save; and replays of traces."""

from infcore._core.cache import policies
from infcore.cache.demand import Demand, Item
from infcore.cache.replay import replay
from infcore.cache.result_cache import Cache
from infcore.cache.room import Resident, Room
from infcore.cache.sizes import estimated_bytes
from infcore.cache.snapshot import Loaded, Saved, load_snapshot, save_snapshot
from infcore.cache.stats import CacheStats
from infcore.cache.warming import Load, Plan, Warmed, awarm, plan, warm

__all__ = [
    "Cache",
    "CacheStats",
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
