"""infcore: the decision core of an inference load balancer, as a library."""

from infcore._core.base import Clock, ManualClock
from infcore._core.future import Future
from infcore.arena import Arena
from infcore.device import CallableDevice, Curve, Device, EmulatedDevice
from infcore.engine import Engine
from infcore.errors import *  # noqa: F403
from infcore.errors import __all__ as _errors
from infcore.onnx_device import OnnxDevice
from infcore.packing import Packed, pack, unpack
from infcore.queueing import Queue, Ticket
from infcore.request import Model, TensorSpec
from infcore.router import Decision, Decisions, Fleet, Router
from infcore.telemetry import Histogram
from infcore.torch_device import TorchBatch, TorchDevice

__version__ = "0.1.0"
__all__ = [
    "Arena",
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
    "pack",
    "unpack",
    *_errors,
]
