"""infcore: the decision core of an inference load balancer, as a library."""

from typing import TYPE_CHECKING, Any

from infcore._core.base import Clock, ManualClock
from infcore._core.future import Future
from infcore.arena import Arena
from infcore.block_tables import BlockTables, block_table
from infcore.device import CallableDevice, Curve, Device, EmulatedDevice
from infcore.engine import Engine
from infcore.errors import *  # noqa: F403
from infcore.errors import __all__ as _errors
from infcore.image_packing import image_pack
from infcore.onnx_device import OnnxDevice
from infcore.packing import Packed, pack, unpack
from infcore.queueing import Queue, Ticket
from infcore.request import Model, TensorSpec
from infcore.router import Decision, Decisions, Fleet, Router
from infcore.telemetry import Histogram

if TYPE_CHECKING:
    from infcore.torch_device import TorchBatch, TorchDevice

__version__ = "0.1.0"
__all__ = [
    "Arena",
    "BlockTables",
    "CallableDevice",
    "Clock",
    "Curve",
    "Decision",
    "Decisions",
    "Device",
    "EmulatedDevice",
    "Engine",
    "Fleet",
    "Future",
    "Histogram",
    "ManualClock",
    "Model",
    "OnnxDevice",
    "Packed",
    "Queue",
    "Router",
    "TensorSpec",
    "Ticket",
    "TorchBatch",
    "TorchDevice",
    "block_table",
    "image_pack",
    "pack",
    "unpack",
    *_errors,
]


def __getattr__(name: str) -> Any:
    """TorchDevice and what it brings are imported when they are first asked for: most processes never do."""
    if name not in ("TorchBatch", "TorchDevice"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from infcore import torch_device

    globals()[name] = found = getattr(torch_device, name)
    return found
