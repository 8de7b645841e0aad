"""A suite: which models are asked for, on which devices, with which arrivals. TOML, checked before anything runs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infcore import _shipped
from infcore._toml_table import Table, parse_toml
from infcore.errors import InvalidArgument

DEVICE_KINDS = ("onnx", "emulated", "callable")
PRECISIONS = ("fp32", "int8")
PROCESSES = ("onoff", "poisson")
MODEL_KINDS = ("packaged", "synthetic")


@dataclass(frozen=True)
class ModelLoad:
    """One model's part of the load. Times in seconds; share is its part of all requests, the shares add up to 1."""

    name: str
    kind: str
    slo_s: float
    deadline_s: float | None
    tier: int
    share: float
    max_batch_size: int | None  # None: the model's own
    features: int  # synthetic models: length of the vector; packaged ones: 0


@dataclass(frozen=True)
class Curve:
    """Seconds of a batch of n with works w: base + per_request*n + per_work*sum(w) + per_padded_work*n*max(w)."""

    model: str
    base_s: float
    per_request_s: float
    per_work_s: float
    per_padded_work_s: float


@dataclass(frozen=True)
class DeviceSpec:
    """One device of the fleet. Price in US dollars per hour; busy_w: watts while it runs a batch, None if not known.

    card: UUID or NVML index of the GPU whose energy counter is the device's; "" where none is.
    """

    name: str
    kind: str
    precision: str
    threads: int
    price_per_hour: float
    rtt_s: float
    cv: float
    busy_w: float | None
    card: str
    description: str
    curves: tuple[Curve, ...]

    @property
    def emulated(self) -> bool:
        """Whether its times come from a curve, not from a run."""
        return self.kind == "emulated"


@dataclass(frozen=True)
class ArrivalSpec:
    """How requests arrive; on_s and off_s are the lengths of a burst and of the quiet after it."""

    process: str
    peak_to_mean: float
    on_s: float
    off_s: float


@dataclass(frozen=True)
class RunSpec:
    """How long, how much, and what makes the result valid."""

    seconds: float
    warmup_s: float
    drain_s: float
    probe_s: float
    start_rps: float
    min_samples: int
    check_samples: int
    lateness_slo_part: float


@dataclass(frozen=True)
class Suite:
    """A whole suite, as read from its file."""

    name: str
    description: str
    run: RunSpec
    arrivals: ArrivalSpec
    models: tuple[ModelLoad, ...]
    devices: tuple[DeviceSpec, ...]

    @property
    def lateness_limit_s(self) -> float:
        """The largest p99 lateness of the load generator at which latencies still mean something."""
        return self.run.lateness_slo_part * min(model.slo_s for model in self.models)


def _model(table: Table) -> ModelLoad:
    kind = table.text("kind", "packaged", allowed=MODEL_KINDS)
    model = ModelLoad(
        name=table.text("name"),
        kind=kind,
        slo_s=table.number("slo_s", above=True),
        deadline_s=table.optional("deadline_s"),
        tier=table.integer("tier", 0, low=0, high=7),
        share=table.number("share", above=True, high=1.0),
        max_batch_size=table.integer("max_batch_size", 0, low=0, high=4096) or None,
        features=table.integer("features", 16, low=1, high=1_000_000) if kind == "synthetic" else 0,
    )
    table.done()
    return model


def _curve(table: Table, models: Sequence[str]) -> Curve:
    curve = Curve(
        model=table.text("model", allowed=models),
        base_s=table.number("base_s"),
        per_request_s=table.number("per_request_s", 0.0),
        per_work_s=table.number("per_work_s", 0.0),
        per_padded_work_s=table.number("per_padded_work_s", 0.0),
    )
    table.done()
    return curve


def _device(table: Table, models: Sequence[str]) -> DeviceSpec:
    where = table.at("curve")
    curves = tuple(_curve(row, models) for row in table.rows("curve"))
    device = DeviceSpec(
        name=table.text("name"),
        kind=table.text("kind", allowed=DEVICE_KINDS),
        precision=table.text("precision", "fp32", allowed=PRECISIONS),
        threads=table.integer("threads", 1, low=1, high=1024),
        price_per_hour=table.number("price_per_hour"),
        rtt_s=table.number("rtt_s", 0.0),
        cv=table.number("cv", 0.0, high=2.0),
        busy_w=table.optional("busy_w"),
        card=table.text("card", ""),
        description=table.text("description", ""),
        curves=curves,
    )
    table.done()
    missing = [name for name in models if name not in {curve.model for curve in curves}]
    if device.emulated and missing:
        raise InvalidArgument(
            f"{where} of emulated device {device.name!r} must have a row for each model, none for {', '.join(missing)}"
        )
    if device.emulated and device.card:
        raise InvalidArgument(f"{table.at('card')} is for real devices, device {device.name!r} is emulated")
    if curves and not device.emulated:
        raise InvalidArgument(
            f"{where} is for kind 'emulated' alone, device {device.name!r} is of kind {device.kind!r}"
        )
    return device


def _arrivals(table: Table) -> ArrivalSpec:
    spec = ArrivalSpec(
        process=table.text("process", allowed=PROCESSES),
        peak_to_mean=table.number("peak_to_mean", 10.0, low=1.0, high=1000.0),
        on_s=table.number("on_s", 0.02, above=True),
        off_s=table.number("off_s", 0.38, above=True),
    )
    table.done()
    if spec.process == "onoff" and spec.peak_to_mean * spec.on_s > (spec.on_s + spec.off_s) * (1 + 1e-9):
        allowed = (spec.on_s + spec.off_s) / spec.on_s
        raise InvalidArgument(
            f"{table.at('peak_to_mean')} must be <= (on_s + off_s) / on_s = {allowed:g}, got {spec.peak_to_mean:g}: "
            "bursts alone would carry more than the mean"
        )
    return spec


def _run(table: Table) -> RunSpec:
    run = RunSpec(
        seconds=table.number("seconds", above=True, high=86_400.0),
        warmup_s=table.number("warmup_s", 1.0, high=3600.0),
        drain_s=table.number("drain_s", 5.0, above=True, high=3600.0),
        probe_s=table.number("probe_s", 1.2, above=True, high=3600.0),
        start_rps=table.number("start_rps", 50.0, above=True, high=1e6),
        min_samples=table.integer("min_samples", 300, low=1, high=10_000_000),
        check_samples=table.integer("check_samples", 8, low=0, high=10_000),
        lateness_slo_part=table.number("lateness_slo_part", 0.1, above=True, high=1.0),
    )
    table.done()
    return run


def _once(table: Table, key: str, field: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InvalidArgument(f"{table.at(key)}.{field} must be unique, got {name!r} {names.count(name)} times")


def parse(text: str, *, where: str) -> Suite:
    """Read a suite from TOML text; `where` names it. Raises InvalidArgument: line, key, value and what is allowed."""
    top = parse_toml(text, where=where)
    if "node" in top or "workload" in top:
        raise InvalidArgument(
            f"{top.at('node' if 'node' in top else 'workload')} belongs to a scenario of `infcore simulate`; "
            "a bench suite has [[device]] and [arrivals]"
        )
    models = tuple(_model(row) for row in top.rows("model"))
    _once(top, "model", "name", [model.name for model in models])
    if not models:
        raise InvalidArgument(f"{top.at('model')} must have at least one row, got none")
    total = math.fsum(model.share for model in models)
    if abs(total - 1.0) > 1e-6:
        raise InvalidArgument(f"{top.at('model')}.share must add up to 1, got {total:g}")
    names = [model.name for model in models]
    devices = tuple(_device(row, names) for row in top.rows("device"))
    _once(top, "device", "name", [device.name for device in devices])
    _once(top, "device", "card", [device.card for device in devices if device.card])
    if not devices:
        raise InvalidArgument(f"{top.at('device')} must have at least one row, got none")
    _kinds_fit(top, models, devices)
    suite = Suite(
        name=top.text("name"),
        description=top.text("description", ""),
        run=_run(top.table("run")),
        arrivals=_arrivals(top.table("arrivals")),
        models=models,
        devices=devices,
    )
    top.done()
    return suite


def _kinds_fit(top: Table, models: Sequence[ModelLoad], devices: Sequence[DeviceSpec]) -> None:
    """A callable device computes synthetic models, an ONNX device packaged ones."""
    fits: dict[str, Callable[[ModelLoad], bool]] = {
        "callable": lambda model: model.kind == "synthetic",
        "onnx": lambda model: model.kind == "packaged",
        "emulated": lambda model: True,
    }
    for i, device in enumerate(devices):
        for model in models:
            if not fits[device.kind](model):
                raise InvalidArgument(
                    f"{top.source.at(('device', i, 'kind'))} must be one that runs {model.kind} model {model.name!r}, "
                    f"got {device.kind!r} for device {device.name!r}"
                )


def shipped() -> list[str]:
    """Names of the bench suites that come with infcore, sorted."""
    return _shipped.names("suite")


def load(name_or_path: str) -> Suite:
    """The shipped suite of that name, or the suite in that file. Raises UnknownName or InvalidArgument."""
    text, where = _shipped.read(name_or_path, "suite")
    return parse(text, where=where)
