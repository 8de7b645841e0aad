"""What a running system says of itself: latency histograms in bounded memory."""

from infcore._core.telemetry import Histogram

__all__ = ["Histogram"]
