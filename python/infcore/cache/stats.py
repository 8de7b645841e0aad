"""What a cache counted."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CacheStats:
    """Counts of a cache since it was made, or of a replay; a ratio of nothing is 0.

    requests           lookups: hits + misses
    evictions          entries that made room, without those that were not admitted
    rejected           misses whose answer was not stored: larger than the cache, or worth less than what is in it
    expired            entries whose time was over; invalidated: by tag or version; both are counted when they are met
    bytes_used         of what is in now
    bytes_requested    of every lookup; bytes_missed: of the misses among them
    cost_requested_us  of making every answer anew; cost_missed_us: of the misses among them
    """

    requests: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    rejected: int = 0
    expired: int = 0
    invalidated: int = 0
    bytes_used: int = 0
    bytes_requested: int = 0
    bytes_missed: int = 0
    cost_requested_us: float = 0.0
    cost_missed_us: float = 0.0

    @property
    def hit_ratio(self) -> float:
        """Lookups that found something, of all."""
        return _ratio(self.hits, self.requests)

    @property
    def miss_ratio(self) -> float:
        """Lookups that found nothing, of all."""
        return _ratio(self.misses, self.requests)

    @property
    def byte_miss_ratio(self) -> float:
        """Bytes that had to be made anew, of all that were asked for."""
        return _ratio(self.bytes_missed, self.bytes_requested)

    @property
    def cost_miss_ratio(self) -> float:
        """Cost that was spent, of what it would have been without a cache."""
        return _ratio(self.cost_missed_us, self.cost_requested_us)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
