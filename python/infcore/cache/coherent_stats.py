"""What a coherent cache counted."""

from dataclasses import dataclass

from infcore.cache.stats import CacheStats


@dataclass(frozen=True, kw_only=True)
class CoherentStats(CacheStats):
    """CacheStats of what is in this process, and beside it:

    connected         everything that changes in the last level is told
    staleness_s       how long ago it was last confirmed that nothing was missed: nothing here is older; inf: never was
    levels_connected  whether each Redis is connected, the nearest first
    far_requests      misses that Redis was asked for; far_hits: and had
    unreachable       reads and writes that found no Redis
    refused_values    met in Redis and not decoded: torn, not ours, pickled
    outdated          read and not kept, since a change came meanwhile
    changes_heard     keys and tags that others changed; flushes: times that everything here was forgotten
    kept_alone        put or computed without Redis, and kept here for a while
    """

    connected: bool = False
    staleness_s: float = 0.0
    levels_connected: tuple[bool, ...] = ()
    far_requests: int = 0
    far_hits: int = 0
    unreachable: int = 0
    refused_values: int = 0
    outdated: int = 0
    changes_heard: int = 0
    flushes: int = 0
    kept_alone: int = 0
