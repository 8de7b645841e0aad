"""Which device holds which model in a live engine: all that serve it, or those that the engine's residency asks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from infcore._core.base import Clock
from infcore._core.kv import eviction_policies
from infcore._device_thread import Call, Slot, is_lost, name_on
from infcore.errors import DeviceError, UnknownName

if TYPE_CHECKING:
    from infcore._core.live import LoadOrder
    from infcore._core.model_spec import ModelSpec
    from infcore.device import Curve, Device
    from infcore.engine import Engine
    from infcore.request import Model

__all__ = ["ModelPlaces", "managed_by"]


def managed_by(policy: str | None) -> str:
    """The core's word for an engine's residency=: an eviction policy, or "" for none."""
    known = [name for name in eviction_policies() if name != "belady"]
    if policy is not None and policy not in known:
        raise UnknownName(f"residency is {policy!r}; allowed: None or one of {known}")
    return policy or ""


class _Placed(NamedTuple):
    """A model as a device is to load it."""

    model: Model
    generation: int  # of the node


class ModelPlaces:
    """The engine's models on its devices. Calls come under the engine's lock of changes, but for the thread's own.

    is_managed  the engine's residency decides what is loaded: devices are only told of, and `thread` carries out what
                it asks for, on the devices' own threads
    """

    def __init__(self, engine: Engine, is_managed: bool, clock: Clock | None) -> None:
        self._engine = engine
        self._clock = Clock() if clock is None else clock
        self._is_managed = is_managed
        self._placed: dict[tuple[int, int], _Placed] = {}  # (node, model id)
        self.thread = threading.Thread(target=self._carry_out, name="infcore-loads", daemon=True)

    def start(self) -> None:
        if self._is_managed:
            self.thread.start()

    def join(self) -> None:
        if self.thread.ident is not None:
            self.thread.join()

    def place(self, slot: Slot, name: str, version: int) -> None:
        """The device serves the model from now on, if it can: it holds it, or may be asked to."""
        device, model = slot.device, self._engine._models[name, version]
        known_as = name_on(slot, name, version)
        if known_as is None or (name, version) in slot.models or not device.would_take(model):
            return
        before = [key for key, known in slot.models.items() if known == known_as]
        if any(held >= version for _, held in before):
            return
        for key in before:  # the device tells no versions apart: the newest takes the place
            self.take_away(slot, self._engine._spec(*key), key)
        loaded = model if known_as == name else model.replace(name=known_as)
        spec = self._engine._spec(name, version)
        self._engine._set_run_name(spec, slot.node, known_as)
        if self._is_managed:
            self._placed[slot.node, spec.id] = _Placed(loaded, slot.generation)
            self._engine._set_prior(spec, slot.node, _curve_there(device, known_as))
            self._engine._live().may_hold(spec.id, slot.node, True)
            slot.models[name, version] = known_as
            return

        def load() -> None:
            device.load(loaded)
            self._engine._set_prior(spec, slot.node, _curve_there(device, known_as))
            self._engine._set_resident(spec, slot.node, True)

        try:
            self.on_thread(slot, load)
        except Exception as e:
            raise DeviceError(f"device {device.name!r} can't load model {known_as!r}: {type(e).__name__}: {e}") from e
        slot.models[name, version] = known_as

    def take_away(self, slot: Slot, spec: ModelSpec, key: tuple[str, int]) -> None:
        """Nothing more of the model is sent there; the device unloads it once what runs is over."""
        known_as = slot.models.pop(key)
        if self._is_managed:
            self._engine._live().may_hold(spec.id, slot.node, False)
            return
        self._engine._set_resident(spec, slot.node, False)
        self.on_thread(slot, lambda: slot.device.unload(known_as), after=known_as)

    def on_thread(self, slot: Slot, call: Callable[[], None], *, after: str = "") -> None:
        """Makes a call on a device's thread; one that hangs in a run makes it when it is back, and nobody waits."""
        assert slot.thread is not None
        asked = Call(call, after=after)
        slot.controls.append(asked)
        self._engine._control(slot.node)
        asked.wait(slot.thread, lambda: is_lost(self._engine.fleet, slot))

    # ---- what the engine asks for

    def _carry_out(self) -> None:
        live = self._engine._live()
        held: dict[tuple[int, int, int], Model] = {}  # what each device was told to load
        while orders := live.wait_orders():
            slots = {(slot.node, slot.generation): slot for slot in list(self._engine._slots.values())}
            held = {key: model for key, model in held.items() if key[:2] in slots}
            for order in orders:
                slot = slots.get((order.node, order.generation))
                key = (order.node, order.generation, order.model)
                placed = self._placed.get((order.node, order.model))
                if order.loads and placed is not None and placed.generation == order.generation:
                    held[key] = placed.model
                model = held.get(key) if order.loads else held.pop(key, None)  # as it was loaded, whatever it is now
                if slot is None or model is None:
                    continue  # the device is leaving, and takes its memory along
                slot.controls.append(Call(self._call(slot, model, order), after="" if order.loads else model.name))
                self._engine._control(slot.node)

    def _call(self, slot: Slot, model: Model, order: LoadOrder) -> Callable[[], None]:
        def unload() -> None:
            try:
                slot.device.unload(model.name)
            except BaseException as e:  # nobody waits for it, and its memory is counted as free
                slot.load_error = f"{model.name}: {type(e).__name__}: {e}"

        def load() -> None:
            if slot.is_leaving:
                return
            live, begun_s = self._engine._live(), self._clock.now_s()
            slot.is_loading = True
            try:
                slot.device.load(model)
            except BaseException as e:  # whatever it is, somebody waits to be told
                slot.load_error = f"{model.name}: {type(e).__name__}: {e}"
                live.loaded(order, False, 0.0)
                return
            finally:
                slot.is_loading = False
            if slot.load_error is not None and slot.load_error.startswith(f"{model.name}: "):
                slot.load_error = None
            live.loaded(order, True, self._clock.now_s() - begun_s)

        return load if order.loads else unload


def _curve_there(device: Device, known_as: str) -> Curve | None:
    """What the engine measures includes the way there and back."""
    curve = device.curve(known_as)
    return None if curve is None else curve._replace(base_s=curve.base_s + device.rtt_s)
