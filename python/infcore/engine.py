"""The live engine: requests in, batches on devices, answers out; devices, models and versions come and go meanwhile."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy.typing as npt

from infcore import _checks
from infcore._answers import MaybeCache, answers
from infcore._core.base import Clock
from infcore._core.engine import EngineCore
from infcore._core.fleet import Fleet
from infcore._device_thread import Call, Slot, device_limits, fleet_arguments, is_lost, wait_until
from infcore._door import Stale, door, may_fall_back
from infcore._faults import faults
from infcore._figures import figures
from infcore._model_places import ModelPlaces, managed_by
from infcore._weighted import weighted
from infcore.device import Device
from infcore.errors import EngineClosed, ForkedProcess, InvalidArgument, UnknownName
from infcore.request import Model, PolicyOption
from infcore.stream import Stream

__all__ = ["Engine"]

_MAX_REQUESTS = 2**24  # room for them is taken at once
_JOIN_S = 5.0  # how long close() waits for a worker that has nothing left to run


class Engine(EngineCore):
    """Serves models on unlike devices, choosing device and batch together by predicted time.

    devices        infcore.Device objects; each gets a thread of its own
    models         infcore.Model descriptions; every device that can serve one loads it
    residency      the eviction policy (infcore.cache.policies()) by which the engine itself decides which models are
                   loaded where, for devices that cannot hold all they serve (memory_bytes, Model(weights_bytes=)):
                   loads for who waits, and what is likely to be asked for where there is room. None: all are loaded
    policy         one of infcore.Router.policies(): slo_cost and fastest_finish choose device and batch together, the
                   others give each request its device on arrival and a queue per device (as load balancers do)
    policy_options of the policy, by name: numbers, texts or sequences of texts
    batching       "dynamic" (size, delay, deadline) or "greedy"
    max_requests   accepted and not yet answered, at most; more are refused with QueueFull
    n_tiers        0 is the most urgent
    ageing_s       a request that has waited longer goes first, whatever its tier; None: never
    seed           of policies that draw at random (power_of_two, peak_ewma)
    max_nodes, max_models  devices at once; models with their versions in the engine's life: those that left count, too
    cache          an infcore.Cache in which requests with a key= are looked up; cache_is_shared: by all tenants alike
    clock          None (time.monotonic's) or a ManualClock
    log            path of a file to which every event and decision goes, for infcore.sim.replay; None: none is kept
    log_buffer_bytes  what of it may wait for the disk, 4 KiB to 128 MiB. A disk that is slower for longer slows the
                   engine down: nothing is left out. A disk that fails ends the log, not the engine: close() warns
    admission      policies at the door, asked in this order (infcore.admission_policies()); those that are steps of the
                   ladder in the order in which it climbs while devices have more to do than they can
    overload_wait_s  a wait for devices that counts as overload; None: four full batches, at most half of what requests
                   have until their deadlines
    tier_capacity  accepted and not yet answered, at most, for each tier; None: not bounded
    overflow       full: "reject" (QueueFull), "shed_lowest" (the least urgent that waits makes room for a more urgent
                   one) or "block" (submit waits until its deadline, asubmit's future is pending meanwhile)
    stale          answers from before, for the policy "stale": a callable of (model, inputs), or {model: callable of
                   inputs}, that returns outputs or None; called on the submitting thread, under load only
    hedge_quantile  a run that is later than this share of its model's runs is sent to a second device as well, where
                   one is expected to answer sooner; the first answer counts. Idempotent models only, and none that
                   stream tokens; a device's run is not interrupted. None: nothing is hedged
    hedge_budget   such copies, at most, as a share of requests
    retry_budget   runs that are done again because a device failed or was lost, at most, likewise (100 to start with);
                   beyond it requests fail with the reason. Not counted: what was sent and never ran; who was in a
                   batch that failed, and is answered alone. None: no bound
    log_terms      the log says of each choice what the device cost: infcore.sim.events() has "terms"
    health         devices whose answers are worse than others' get nothing for a while: as Router's
    Raises         InvalidArgument, InvalidType, UnknownName naming the argument; DeviceError where a device can't load

    Accepted means answered: each request ends exactly once, with outputs or with an error that says why.
    """

    def __init__(
        self,
        devices: Iterable[Device] = (),
        models: Iterable[Model] = (),
        *,
        policy: str = "slo_cost",
        policy_options: Mapping[str, PolicyOption] | None = None,
        batching: str = "dynamic",
        cache: MaybeCache = None,
        cache_is_shared: bool = False,
        clock: Clock | None = None,
        seed: int = 0,
        max_requests: int = 8192,
        n_tiers: int = 8,
        ageing_s: float | None = None,
        max_nodes: int = 256,
        max_models: int = 512,
        residency: str | None = None,
        log: str | os.PathLike[str] | None = None,
        log_buffer_bytes: int = 2**22,
        admission: Sequence[str] = ("infeasible",),
        overload_wait_s: float | None = None,
        tier_capacity: Sequence[int] | None = None,
        overflow: str = "reject",
        stale: Stale | Mapping[str, Any] | None = None,
        hedge_quantile: float | None = None,
        hedge_budget: float = 0.05,
        retry_budget: float | None = 0.2,
        log_terms: bool = False,
        health: bool | Mapping[str, float] = True,
    ) -> None:
        self._slots: dict[str, Slot] = {}
        self._models: dict[tuple[str, int], Model] = {}
        self._aliases: dict[str, Mapping[int, float]] = {}
        self._abandoned: list[str] = []
        self._change = threading.RLock()
        self._state = "new"
        self._start_s = 0.0
        self._dispatcher = threading.Thread(target=self._dispatch, name="infcore-dispatcher", daemon=True)
        self._first_devices = tuple(_checks.each("devices", devices, Device))
        self._setup(
            Fleet(
                max_nodes=_checks.integer("max_nodes", max_nodes, 1),
                max_models=2 * _checks.integer("max_models", max_models, 1, 2**16),  # each name counts, too
                clock=clock,
            ),
            policy=_checks.text("policy", policy),
            policy_options=policy_options,
            batching=_checks.text("batching", batching),
            seed=_checks.integer("seed", seed, 0, 2**64 - 1),
            max_requests=_checks.integer("max_requests", max_requests, 1, _MAX_REQUESTS),
            n_tiers=_checks.integer("n_tiers", n_tiers, 1, 64),
            ageing_s=-1.0 if ageing_s is None else _checks.finite("ageing_s", ageing_s),
            clock=clock,
            faults=faults(hedge_quantile, hedge_budget, retry_budget, log_terms, has_log=log is not None),
            door=door(admission, overload_wait_s, tier_capacity, overflow, stale, n_tiers, health),
            residency=managed_by(residency),
            **answers(cache, cache_is_shared),
        )
        self._places = ModelPlaces(self, residency is not None, clock)
        self._own_fleet("an Engine")
        self._log_writer: threading.Thread | None = None
        if log is not None:
            room = _checks.integer("log_buffer_bytes", log_buffer_bytes, 2**12, 2**27)
            self._live().start_log(self.fleet, os.fsencode(_checks.path("log", log)), room)
            self._log_writer = threading.Thread(target=self._live().write_log, name="infcore-log", daemon=True)
        for model in _checks.each("models", models, Model):
            self._add_model(model)

    # ---- life

    def start(self) -> Engine:
        """Start the threads and load every model; `with engine:` does."""
        with self._change:
            if self._state != "new":
                raise EngineClosed(f"the engine is {self._state}; allowed: start a new one once")
            self._state = "running"
            self._start_s = time.monotonic()
            self._dispatcher.start()
            self._places.start()
            if self._log_writer is not None:
                self._log_writer.start()
            try:
                for device in self._first_devices:
                    self.add_device(device)
            except BaseException:
                self.close(drain=False)
                raise
            self._accept(True)
        return self

    def close(self, *, drain: bool = True, timeout_s: float | None = None) -> list[str]:
        """Take no more requests, answer the open ones, join the threads.

        drain      True: let open requests run to their end; False: end them now (EngineClosed)
        timeout_s  how long to drain; what is left then is ended. None: no limit
        Returns    names of devices whose thread could not be joined because their run hangs (also warned of)
        """
        limit_s = _checks.optional_finite("timeout_s", timeout_s)
        if threading.current_thread() in self._own_threads():
            raise EngineClosed("close() was called on a thread of the engine's own; allowed: any other thread")
        try:
            self._check_not_forked()
        except ForkedProcess:  # the threads are the parent's: here there is nothing to end
            self._state = "closed"
            return []
        self._accept(False)
        if not drain:  # at once, even while another thread adds a device
            self._cancel_all()
        with self._change:
            if self._state not in ("running", "closing"):
                self._state = "closed"
                self._end_log()
                return []
            self._state = "closing"  # until the end: a close() that was interrupted can be called again
            if drain:
                wait_until(lambda: self.n_open == 0 or not self._can_go_on(), limit_s)
            self._cancel_all()
            errors = self._end_threads()
            self._state = "closed"
            self._end_log()
        if self._abandoned:
            warnings.warn(
                f"threads of devices {self._abandoned} still hang in run(); they were abandoned",
                RuntimeWarning,
                stacklevel=2,
            )
        if errors:
            raise errors[0]
        return list(self._abandoned)

    def _end_threads(self) -> list[Exception]:
        """Stops workers and dispatcher, whatever a device's close() raises; that is returned."""
        errors = []
        for name, slot in list(self._slots.items()):
            try:
                self._stop_worker(slot)
            except Exception as e:
                errors.append(e)
            del self._slots[name]
        self._stop()
        if self._dispatcher.ident is not None:
            self._dispatcher.join()
        self._places.join()
        live = self._live()
        live.drain_threads()
        live.leave_loops()
        return errors

    def _end_log(self) -> None:
        """What an abandoned device still says is no decision's any more, and not in the log."""
        writer, self._log_writer = self._log_writer, None
        if writer is None:
            return
        self._live().end_log()
        if writer.ident is not None:
            writer.join()
        error = self._live().log_error()
        if error:
            warnings.warn(f"the log ends early: {os.strerror(error)}", RuntimeWarning, stacklevel=3)

    def _own_threads(self) -> list[threading.Thread | None]:
        return [self._dispatcher, self._places.thread, *(slot.thread for slot in list(self._slots.values()))]

    def _can_go_on(self) -> bool:
        """Whether any device is left that could run what waits."""
        states = self.fleet.nodes()["state"]
        return any(state == "up" for state in states)

    def __enter__(self) -> Engine:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(drain=kind is None)

    async def __aenter__(self) -> Engine:
        import asyncio

        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import asyncio

        await asyncio.to_thread(self.close, drain=kind is None)

    def stream(self, model: str, inputs: Mapping[str, npt.NDArray[Any]], **options: Any) -> Stream:
        """The parts of one answer as they come, `async for part in engine.stream(...)`; arguments as asubmit's.

        A TokenModel's are {"tokens": the new ones}, the first as soon as it is there; another model gives one part.
        Leaving the loop takes the request back.
        """
        return Stream(self.asubmit(model, inputs, **options))

    # ---- devices

    def add_device(self, device: Device) -> None:
        """Add a device while the engine runs; returns once it has loaded every model that it serves. With residency= it
        loads what is asked for, beginning now.

        Raises  InvalidArgument where the name is in use, DeviceError where a model can't be loaded: nothing was added
        """
        _checks.each("device", (device,), Device)
        self._check_not_forked()
        with self._change:
            self._must_run("add_device")
            if device.name in self._slots:
                raise InvalidArgument(f"device {device.name!r} is there already; allowed: a name not in use")
            self._own_fleet(None)
            try:
                node = self.fleet.add(device.name, **fleet_arguments(device))
            finally:
                self._own_fleet("an Engine")
            self._slots[device.name] = slot = Slot(device, node, self._add_node(node, *device_limits(device)))
            self._live().node_names[node] = device.name
            work = self._work_tokens if device.takes_tokens else self._emulate if device.emulated else self._work
            slot.thread = threading.Thread(
                target=work, args=(node, device, slot.controls), name=f"infcore-{device.name}", daemon=True
            )
            slot.thread.start()
            try:
                for name, version in list(self._models):
                    self._places.place(slot, name, version)
            except BaseException:
                self.remove_device(device.name)
                raise

    def remove_device(self, name: str, *, timeout_s: float | None = None) -> bool:
        """Drain a device and take it out; what was bound to it goes elsewhere.

        timeout_s  how long its running batch may take; None: no limit but its own run_limit_s
        Returns    False where its thread hangs and was abandoned
        """
        limit_s = _checks.optional_finite("timeout_s", timeout_s)
        self._check_not_forked()
        with self._change:
            self._must_run("remove_device")
            slot = self._present(name)
            self._drain_node(slot.node)
            wait_until(lambda: self._node_empty(slot.node), limit_s)  # lose_device() may end it: still present
            del self._slots[name]
            joined = self._stop_worker(slot)
            self._remove_node(slot.node)
            return joined

    def lose_device(self, name: str) -> bool:
        """Take a device for lost, as after a hung run: what it was given goes elsewhere, and it gets nothing more.

        For a monitor that sees what a run does not tell, such as a card that fell off the bus. Unlike after a hung run,
        an answer of the device does not bring it back: restore_device() does.
        Returns  False where it was lost before
        """
        slot = self._present(name)
        return self._lose_node(slot.node, slot.generation)

    def restore_device(self, name: str) -> bool:
        """Take lose_device() back: requests go there again, once a run that it still sits in has returned.

        Returns  False where lose_device() had not been called
        """
        slot = self._present(name)
        return self._restore_node(slot.node, slot.generation)

    def _present(self, name: str) -> Slot:
        """Without the lock of changes: remove_device() may hold it, waiting for the very run that is lost."""
        self._check_not_forked()
        slot = self._slots.get(name) if isinstance(name, str) else None
        if slot is None:
            raise UnknownName(f"device is {name!r}; allowed: one of {sorted(self._slots)}")
        return slot

    def _stop_worker(self, slot: Slot) -> bool:
        if slot.thread is None or slot.thread.ident is None:  # interrupted before it began
            return True
        slot.is_leaving = True
        slot.controls.append(Call(lambda: None, last=True))
        self._control(slot.node)
        slot.thread.join(_JOIN_S if self._node_empty(slot.node) else self._patience_s(slot))
        while slot.thread.is_alive() and slot.is_loading and not is_lost(self.fleet, slot):
            slot.thread.join(0.1)  # as long as the engine itself would wait for the load
        if slot.thread.is_alive():
            slot.controls.appendleft(None)
            self._give_up_node(slot.node)
            self._abandoned.append(slot.device.name)
            return False
        slot.device.close()
        return True

    @staticmethod
    def _patience_s(slot: Slot) -> float:
        limit_s = slot.device.run_limit_s
        return _JOIN_S if limit_s is None else min(_JOIN_S, limit_s)

    # ---- models

    def load_model(self, model: Model) -> None:
        """Add a model, or a further version of one, while the engine runs; every device that can serve it loads it.

        Versions stand side by side on a device that lists them ("name:2" among its models) or serves any model: there
        the first it holds is run as "name", a further one as "name:2". Elsewhere the newest takes the older's place.
        """
        _checks.each("model", (model,), Model)
        self._check_not_forked()
        with self._change:
            self._add_model(model)
            try:
                for slot in self._slots.values():
                    self._places.place(slot, model.name, model.version)
            except BaseException:
                self.unload_model(model.name, version=model.version)
                raise

    def preload(self, name: str, *, version: int | None = None) -> None:
        """Have a model loaded that is expected to be asked for, once nobody waits for a load; for Engine(residency=).

        Nothing happens where a device holds it already. infcore.cache.plan() says what is worth it, and when.
        version  None: the newest
        Raises   UnknownName; InvalidArgument without residency
        """
        self._check_not_forked()
        with self._change:
            versions = [v for known, v in self._models if known == name]
            if not versions or version not in (None, *versions):
                raise UnknownName(f"model is {name!r}, version {version!r}; allowed: one of {sorted(self._models)}")
            self._live().preload(self._spec(name, max(versions) if version is None else version).id)

    def unload_model(self, name: str, *, version: int | None = None) -> None:
        """Take a model (or one version of it) out: waiting requests end with UnknownName, running ones are answered."""
        self._check_not_forked()
        with self._change:
            gone = [key for key in self._models if key[0] == name and version in (None, key[1])]
            if not gone:
                raise UnknownName(f"model is {name!r}, version {version!r}; allowed: one of {sorted(self._models)}")
            for key in gone:
                del self._models[key]
                spec = self._undefine(*key)
                for slot in self._slots.values():
                    if key in slot.models:
                        self._places.take_away(slot, spec, key)
            left_over = [v for known, v in self._models if known == name]
            if left_over:
                for slot in self._slots.values():
                    self._places.place(slot, name, max(left_over))
            if name in self._aliases:
                left = {v: w for v, w in self._aliases[name].items() if (name, v) in self._models}
                self.set_alias(name, left or None)

    def set_alias(self, name: str, weights: Mapping[int, float] | None) -> None:
        """Spread requests for a model that name no version over its versions; None: the newest gets them all.

        weights  {version: weight > 0 or 0}; shares are kept exactly, by smooth weighted round robin
        """
        self._check_not_forked()
        with self._change:
            versions = {v for known, v in self._models if known == name}
            if not versions and weights is not None:
                raise UnknownName(f"model is {name!r}; allowed: one of {sorted({n for n, _ in self._models})}")
            if weights is None:
                self._aliases.pop(name, None)
                if versions:
                    self._route_alias(name, self._spec(name, max(versions)))
                return
            for version, weight in _checks.mapping("weights", weights).items():
                if version not in versions:
                    raise UnknownName(f"version of model {name!r} is {version!r}; allowed: one of {sorted(versions)}")
                _checks.finite(f"weight of version {version}", weight)
            if not sum(weights.values()) > 0:
                raise InvalidArgument(f"weights is {dict(weights)!r}; allowed: at least one weight > 0")
            self._aliases[name] = dict(weights)
            self._route_alias(name, weighted([(self._spec(name, v), w) for v, w in weights.items() if w > 0]))

    def _add_model(self, model: Model) -> None:
        key = (model.name, model.version)
        if key in self._models:
            raise InvalidArgument(f"model {key} is there already; allowed: another name or version")
        for other in self._models.values():
            if model.fallback == other.name:
                may_fall_back(model, other)
            if other.fallback == model.name:
                may_fall_back(other, model)
        self._define(model)
        self._models[key] = model
        if model.name in self._aliases:
            self.set_alias(model.name, self._aliases[model.name])

    # ---- figures

    def stats(self) -> dict[str, Any]:
        """Counts by outcome and quantiles in seconds, since the start.

        Returns  {"models": {name: ...}, "devices": {name: ...}, "open": requests not yet answered}; each with requests
                 (answered), failed, lost, expired, shed, cancelled, rejected, retried, batches, batch_mean, busy_s,
                 work, infeasible, overloaded, displaced, stale, cached, attached (of them, to an equal request's run),
                 cheaper, deferred, hedged, hedge_won, hedge_wasted_s, unretried, loads, loads_failed, unloads, load_s
                 (these four with residency=), throughput_rps, {p50, p90, p99, p999, mean} of queue_s, batch_wait_s,
                 service_s, latency_s, ttft_s; a model's door: step (or None), limit, open, put_off, wait_s;
                 a device's load_error, and latency {model: batches, mean_s and p99_s of one request of work 1, spread,
                 curve, known ("measured", "expected" or "unknown")}
        """
        self._check_not_forked()
        return figures(self)

    # ---- what the above share

    def _must_run(self, what: str) -> None:
        if self._state not in ("running", "closing"):
            raise EngineClosed(f"the engine is {self._state}; allowed: {what} between start() and close()")
