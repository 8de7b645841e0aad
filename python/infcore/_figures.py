"""What Engine.stats() shows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infcore.engine import Engine


def figures(engine: Engine) -> dict[str, Any]:
    run_s = max(time.monotonic() - engine._start_s, 1e-9)
    models = {}
    keys = list(engine._models)
    for name, version in keys:
        is_only = sum(known == name for known, _ in keys) == 1
        models[name if is_only else f"{name}:{version}"] = engine._model_stats(name, version)
    devices = {
        name: {**engine._node_stats(slot.node), "kind": slot.device.kind, "emulated": slot.device.emulated}
        for name, slot in list(engine._slots.items())
    }
    for each in (*models.values(), *devices.values()):
        each["throughput_rps"] = each["requests"] / run_s
    return {"models": models, "devices": devices, "open": engine.n_open}
