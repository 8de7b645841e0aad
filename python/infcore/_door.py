"""What an engine is told of its door: who enters, in which form, and what happens where it is full."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from infcore import _checks
from infcore._core import admission as _core
from infcore.errors import InvalidArgument, InvalidType, UnknownName

if TYPE_CHECKING:
    from infcore.request import Array, Model

__all__ = ["OVERFLOWS", "Door", "Stale", "admission_policies", "door", "may_fall_back"]

Outputs = Mapping[str, "Array"]
Stale = Callable[[str, Mapping[str, "Array"]], Outputs | None]
OVERFLOWS = ("reject", "shed_lowest", "block")


class Door(NamedTuple):
    admission: tuple[str, ...]
    overload_wait_s: float | None
    tier_capacity: tuple[int, ...]
    overflow: str
    stale: Stale | None
    steps: tuple[str, ...]  # of the ladder, in the order in which it climbs
    health: bool | Mapping[str, float]  # who of the devices is sent anything

    @property
    def stale_rung(self) -> int:
        """From which rung on the ladder asks for answers from before; beyond all of them where it never does."""
        return self.steps.index("stale") + 1 if "stale" in self.steps else len(self.steps) + 1


def admission_policies() -> list[str]:
    """Names that Engine(admission=...) takes, in the order in which a ladder of all of them climbs.

    infeasible    always asked: what no device can answer in time is refused at once (DeadlineInfeasible, best_s)
    shorter_wait  a step: batches do not wait for company
    stale         a step: an answer from before, where Engine(stale=...) has one
    cheaper       a step: Model(fallback=...) answers
    off_peak      a step: what says defer_s is put off, until the load is gone or its time is up
    shed_last     a step: an urgent arrival takes the place of the least urgent that waits; the last tier is refused
    refuse        a step: nothing more enters than is served within the wait that counts as overload (retry_after_s)
    gradient      always asked: a limit on what is open at once for each model, learned from its latencies
    """
    return [name for name, _ in _core.admission_policies()]


def door(
    admission: Sequence[str],
    overload_wait_s: float | None,
    tier_capacity: Sequence[int] | None,
    overflow: str,
    stale: Stale | Mapping[str, Callable[[Mapping[str, Array]], Outputs | None]] | None,
    n_tiers: int,
    health: bool | Mapping[str, float] = True,
) -> Door:
    """Checks the arguments of Engine that say who enters."""
    known = dict(_core.admission_policies())
    if isinstance(admission, str) or not isinstance(admission, Iterable):
        raise InvalidType(f"admission is {type(admission).__name__}; allowed: a sequence of names, of {list(known)}")
    names = tuple(admission)
    for name in names:
        if name not in known:
            raise UnknownName(f"admission has {name!r}; allowed: {list(known)}")
        if names.count(name) > 1:
            raise InvalidArgument(f"admission has {name!r} twice; allowed: each policy once")
    if overflow not in OVERFLOWS:
        raise InvalidArgument(f"overflow is {overflow!r}; allowed: one of {list(OVERFLOWS)}")
    if tier_capacity is not None and not isinstance(tier_capacity, Iterable):
        raise InvalidType(f"tier_capacity is {type(tier_capacity).__name__}; allowed: None, or a number for each tier")
    capacities = () if tier_capacity is None else tuple(tier_capacity)
    if capacities and len(capacities) != n_tiers:
        raise InvalidArgument(f"tier_capacity has {len(capacities)} numbers; allowed: one for each of {n_tiers} tiers")
    return Door(
        admission=names,
        overload_wait_s=_checks.optional_finite("overload_wait_s", overload_wait_s, above=True),
        tier_capacity=tuple(_checks.integer("tier_capacity", n, 1, 2**24) for n in capacities),
        overflow=overflow,
        stale=_stale(stale, "stale" in names),
        steps=tuple(name for name in names if known[name]),
        health=health,
    )


def _stale(stale: Any, is_asked: bool) -> Stale | None:
    if stale is None:
        return None
    if not is_asked:
        raise InvalidArgument("stale is given, and admission has no 'stale'; allowed: both, or neither")
    if isinstance(stale, Mapping):
        by_model = dict(stale)
        return lambda model, inputs: by_model[model](inputs) if model in by_model else None
    if not callable(stale):
        raise InvalidType(f"stale is {type(stale).__name__}; allowed: a callable, or a mapping of one for each model")
    found: Stale = stale
    return found


def may_fall_back(model: Model, fallback: Model) -> None:
    """Raises InvalidArgument where requests to the one are none to the other, or answers differ in form."""
    if model.inputs != fallback.inputs or model.outputs != fallback.outputs or model.by_token != fallback.by_token:
        raise InvalidArgument(
            f"fallback of model {model.name!r} is {fallback.name!r}, whose inputs or outputs differ; allowed: a model "
            f"with the same"
        )
