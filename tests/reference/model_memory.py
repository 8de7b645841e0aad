"""One node's memory as reference.model_loads keeps it, readably: what is there or on its way, and why it stays."""

from dataclasses import dataclass, field

from reference.eviction import Limits
from reference.eviction_models import model_of

ON_ITS_WAY, IN_USE, WANTED, AWAITED = "on its way", "in use", "wanted", "awaited"  # why a model does not go


@dataclass
class Place:
    bytes: int
    cost_us: float
    reuse: float = 1.0
    held: set[str] = field(default_factory=set)


class Memory:
    """Nothing goes by itself: the owner removes what the policy names. 0 bytes: not bounded."""

    def __init__(self, policy: str, n_models: int, memory_bytes: int) -> None:
        self.places: dict[int, Place] = {}  # by model
        self.capacity_bytes = memory_bytes or 2**64 - 1
        self.policy = model_of(policy)
        self.policy.attach(self, Limits(n_models, self.capacity_bytes))

    # What the policy asks of its view.
    def key(self, model: int) -> int:
        return (model + 1) * 0x9E3779B97F4A7C15 % 2**64

    def bytes(self, model: int) -> int:
        return max(self.places[model].bytes, 1)

    def cost_us(self, model: int) -> float:
        return self.places[model].cost_us

    def reuse(self, model: int) -> float:
        return self.places[model].reuse

    def next_use(self, model: int) -> int | None:
        return None

    def grow(self, n_models: int) -> None:
        if hasattr(self.policy, "grow"):
            self.policy.grow(n_models)

    def free_bytes(self) -> int:
        return max(0, self.capacity_bytes - sum(place.bytes for place in self.places.values()))

    def can_fit(self, n_bytes: int) -> bool:
        """If all that may go had gone."""
        return n_bytes <= self.free_bytes() + sum(place.bytes for place in self.places.values() if not place.held)

    def insert(self, model: int, n_bytes: int, cost_us: float, reuse: float = 1.0, on_its_way: bool = False) -> None:
        self.places[model] = Place(n_bytes, cost_us, reuse, {ON_ITS_WAY} if on_its_way else set())
        self.policy.on_insert(model)
        if not on_its_way:
            self.policy.on_evictable(model)

    def remove(self, model: int) -> None:
        self.policy.on_remove(model)
        del self.places[model]

    def hold(self, model: int, why: str, on: bool) -> None:
        if model not in self.places:
            return
        held = self.places[model].held
        was_held = bool(held)
        (held.add if on else held.discard)(why)
        if was_held != bool(held):
            (self.policy.on_held if held else self.policy.on_evictable)(model)


@dataclass
class Loads:
    """Of a node."""

    memory: Memory
    beside_runs: bool
    loading: int | None = None
    is_reserved: bool = False  # nothing new begins there, so that what has to go for a load gets out of use
    reserves: bool = False  # likewise, as of the plan at hand
    over_ns: int | None = None  # when the last load was
    is_unwanted: bool = False  # it goes as soon as it is there
    expected_end_ns: int = 0
    may_fill: bool = True  # there may be room for something nobody waits for
    in_use: list[int] = field(default_factory=list)  # models of the batches that are there
    awaited: list[int] = field(default_factory=list)  # loaded for somebody, and not yet used
    allowed: set[int] = field(default_factory=set)  # what it may hold
    failed: dict[int, int] = field(default_factory=dict)  # what could not be loaded, until when it is left alone
