"""infcore: the decision core of an inference load balancer, as a library."""

from typing import TYPE_CHECKING, Any

from infcore._core.base import Clock, ManualClock
from infcore._core.future import Future
from infcore._door import admission_policies
from infcore.device import CallableDevice, Curve, Device, EmulatedDevice
from infcore.engine import Engine
from infcore.errors import *  # noqa: F403
from infcore.errors import __all__ as _errors
from infcore.packing import Packed, pack, unpack
from infcore.queueing import Queue, Ticket
from infcore.request import Model, TensorSpec
from infcore.router import Decision, Decisions, Fleet, Router, register_policy
from infcore.telemetry import Histogram

if TYPE_CHECKING:
    from infcore.arena import Arena
    from infcore.block_tables import BlockTables, block_table
    from infcore.cache import Cache, CacheStats
    from infcore.continuous import ContinuousBatcher, KVBlocks, TokenCurve, TokenStep, block_hashes
    from infcore.image_packing import image_pack
    from infcore.onnx_device import OnnxDevice
    from infcore.prefix import Prefix, prefix_salt
    from infcore.stream import Stream
    from infcore.token_device import EmulatedTokenDevice, TokenBatch, TokenDevice
    from infcore.token_model import TokenModel
    from infcore.torch_device import TorchBatch, TorchDevice
    from infcore.torch_token_device import TorchTokenDevice

__version__ = "0.1.0"
__all__ = [
    "Arena",
    "BlockTables",
    "Cache",
    "CacheStats",
    "CallableDevice",
    "Clock",
    "ContinuousBatcher",
    "Curve",
    "Decision",
    "Decisions",
    "Device",
    "EmulatedDevice",
    "EmulatedTokenDevice",
    "Engine",
    "Fleet",
    "Future",
    "Histogram",
    "KVBlocks",
    "ManualClock",
    "Model",
    "OnnxDevice",
    "Packed",
    "Prefix",
    "Queue",
    "Router",
    "Stream",
    "TensorSpec",
    "Ticket",
    "TokenBatch",
    "TokenCurve",
    "TokenDevice",
    "TokenModel",
    "TokenStep",
    "TorchBatch",
    "TorchDevice",
    "admission_policies",
    "TorchTokenDevice",
    "block_hashes",
    "block_table",
    "image_pack",
    "pack",
    "prefix_salt",
    "register_policy",
    "unpack",
    *_errors,
]


# Imported when they are first asked for: a process uses few of them, and together they take a third of the import.
_LATER = {
    "Arena": "arena",
    "BlockTables": "block_tables",
    "Cache": "cache",
    "CacheStats": "cache",
    "ContinuousBatcher": "continuous",
    "EmulatedTokenDevice": "token_device",
    "KVBlocks": "continuous",
    "OnnxDevice": "onnx_device",
    "Prefix": "prefix",
    "Stream": "stream",
    "TokenBatch": "token_device",
    "TokenCurve": "continuous",
    "TokenDevice": "token_device",
    "TokenModel": "token_model",
    "TokenStep": "continuous",
    "TorchBatch": "torch_device",
    "TorchDevice": "torch_device",
    "TorchTokenDevice": "torch_token_device",
    "block_hashes": "continuous",
    "block_table": "block_tables",
    "image_pack": "image_packing",
    "prefix_salt": "prefix",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name == "cache":  # a part that is used under its own name
        return importlib.import_module("infcore.cache")
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(importlib.import_module(f"infcore.{_LATER[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
