"""What Engine.stats() shows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infcore.engine import Engine


def figures(engine: Engine) -> dict[str, Any]:
    run_s = max(time.monotonic() - engine._start_s, 1e-9)
    keys = list(engine._models)
    shown = {
        (name, version): name if sum(known == name for known, _ in keys) == 1 else f"{name}:{version}"
        for name, version in keys
    }
    models = {shown[key]: engine._model_stats(*key) for key in keys}
    devices = {
        name: {
            **engine._node_stats(slot.node),
            "kind": slot.device.kind,
            "emulated": slot.device.emulated,
            "load_error": slot.load_error,
            "latency": {shown[key]: held for key, held in engine._latencies(slot.node).items() if key in shown},
        }
        for name, slot in list(engine._slots.items())
    }
    for each in (*models.values(), *devices.values()):
        each["throughput_rps"] = each["requests"] / run_s
    return {"models": models, "devices": devices, "open": engine.n_open}
