"""The histogram in plain Python: which bucket a value has, and what a quantile is. Kept readable, not fast."""

import math


class Histogram:
    """Every power of two is cut into 128 equal buckets; values outside the range count as its bounds."""

    def __init__(self, min_s=1e-7, max_s=3600.0):
        self.min_s, self.max_s = min_s, max_s
        self.counts = {}
        self.lowest_s, self.highest_s = math.inf, -math.inf

    @staticmethod
    def _grid_step(value_s):
        mantissa, exponent = math.frexp(value_s)  # value = mantissa * 2**exponent, 0.5 <= mantissa < 1
        return 128 * exponent + math.floor((2 * mantissa - 1) * 128)

    def bucket_of(self, value_s):
        return self._grid_step(min(max(value_s, self.min_s), self.max_s)) - self._grid_step(self.min_s)

    def bounds(self, bucket):
        """lower <= value < upper."""

        def lower(step):
            return math.ldexp((1 + step % 128 / 128) / 2, step // 128)

        step = bucket + self._grid_step(self.min_s)
        return lower(step), lower(step + 1)

    def record(self, value_s):
        value_s = min(max(value_s, self.min_s), self.max_s)
        bucket = self.bucket_of(value_s)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.lowest_s, self.highest_s = min(self.lowest_s, value_s), max(self.highest_s, value_s)

    @property
    def count(self):
        return sum(self.counts.values())

    def _ranked(self, rank):
        if rank == 0:
            return self.lowest_s
        if rank == self.count - 1:
            return self.highest_s
        in_order = (bucket for bucket in sorted(self.counts) for _ in range(self.counts[bucket]))
        bucket = next(bucket for i, bucket in enumerate(in_order) if i == rank)
        return min(max(sum(self.bounds(bucket)) / 2, self.lowest_s), self.highest_s)

    def quantile(self, q):
        position = q * (self.count - 1)
        below = min(math.floor(position), self.count - 1)
        above = min(below + 1, self.count - 1)
        lower, upper = self._ranked(below), self._ranked(above)
        return min(upper, lower + (position - below) * (upper - lower))
