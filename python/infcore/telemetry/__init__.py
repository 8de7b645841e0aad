"""What a running system says of itself: latency histograms in bounded memory, and the counters of its devices."""

from typing import TYPE_CHECKING, Any

from infcore._core.telemetry import Histogram

if TYPE_CHECKING:
    from infcore.telemetry.figures import GpuFigures, HostFigures
    from infcore.telemetry.reading import devices
    from infcore.telemetry.sampler import Sampler, SamplerStats

__all__ = ["GpuFigures", "Histogram", "HostFigures", "Sampler", "SamplerStats", "devices"]

if not TYPE_CHECKING:
    # Found when first asked for: `import infcore` needs the histogram alone.
    _WHERE = {"devices": "reading", "Sampler": "sampler", "SamplerStats": "sampler"}

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_WHERE.get(name, 'figures')}"), name)
