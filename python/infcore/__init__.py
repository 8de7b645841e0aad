"""infcore: the decision core of an inference load balancer, as a library."""

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
    "block_table",
    "image_pack",
    "pack",
    "unpack",
    *_errors,
]
