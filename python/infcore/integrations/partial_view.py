"""What one of several routers knows of replicas that all of them send to: the part that no server's own code is in.

Each router sees its own requests at once, and the others' only in what replicas report. So credit is kept for its own
(infcore.Router), and a report is laid over it as of the time at which the request that brought it was sent: what the
replica counts beyond that is the others'. Nobody reports who is sent nothing, so whoever was silent for long is to be
asked (to_ask). Reports are old when they are used: routers that see the same one must draw differently (seed, and
slo_cost's herd_margin).
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from infcore import Clock, Decision, Fleet, InvalidArgument, NoNodeAvailable, Router

__all__ = ["PartialView", "Pick", "Replica"]

# Replicas of one kind may be unlike by intent, so that a slow one is not taken for a sick one: costs avoid it as it is.
JUDGED_BY_ERRORS = {"slow_factor": 1e6}


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica as its server lists it.

    name         unique; the other fields but models are those of Fleet.add
    pending_max  requests that it takes at once, from everybody; None: no bound
    models       names of what it holds besides the view's own model
    """

    name: str
    pending_max: int | None = None
    kind: str = "replica"
    zone: str = ""
    rtt_s: float = 0.0
    slots: int = 1
    price_per_hour: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    models: frozenset[str] = frozenset()


class Pick:
    """A request's replica, and the credit on it: held until `ended`, or until nobody has the pick any more.

    So no way in which a server may drop a request has to be known here, and none can leave credit behind. What is
    dropped is given back with the view's next pick or report: objects go in any thread, even within a router's call.
    `ended` may be called in any thread, too; all else belongs to the one that has the view.
    """

    __slots__ = ("_at_s", "_began_s", "_decision", "_model", "_shared_by", "_view", "name")
    _began_s: float | None  # None: not to be learned from
    _decision: Decision | None  # None: ended

    def __init__(self, view: "PartialView", name: str, model: str, decision: Decision, at_s: float) -> None:
        self.name, self._view, self._model, self._decision, self._at_s = name, view, model, decision, at_s
        self._began_s, self._shared_by = None, 1.0

    def accepted(self, ongoing: float | None) -> None:
        """The replica works on it; ongoing: its own count of requests just then, with this one, if it told."""
        view = self._view
        if self._decision is not None and self._decision.load_s == 0.0:  # a load's time is not the service's
            self._began_s = view.now_s()
        if ongoing is not None:
            self._shared_by = max(1.0, ongoing / view.slots_of(self.name))
            view.heard(self.name, ongoing, as_of_s=self._at_s)

    def ended(self, ok: bool | None) -> bool:
        """It has its answer (ok), failed, or was taken back (None). Returns False where it had ended before.

        The replica's time is taken as shared by what it had going when it accepted: k requests at once that take s
        seconds each count as s / k, whether it ran them side by side or one after the other.
        """
        view, decision, self._decision = self._view, self._decision, None
        if decision is None:
            return False
        if ok and self._model != view.model:
            view.answered.append((self.name, self._model))
        if ok is None or self._began_s is None:
            return view.router.cancel(decision)
        now_s = view.now_s()
        service_s = max(now_s - self._began_s, 1e-9) / self._shared_by
        return view.router.done(decision, ok=ok, service_s=service_s, now_s=now_s)

    def __del__(self) -> None:
        if self._decision is not None:
            self._view.dropped.append(self._decision)


class PartialView:
    """The replicas of one model, or of several that any of them can load, as one of several routers sees them.

    model          what every replica holds
    seed           not the other routers' (see above)
    load_s         what loading another model is taken to cost
    models_max     other models that a replica holds at once, before one has to go; 0: any number
    ask_s          whoever said nothing for so long is to be asked
    believe_s      for so long after an answer a model is taken to be where it came from, though the server lists it not
    replicas_max   how many there may be
    clock, policy, health, prefix, policy_options   as of infcore.Router; health None: judged by errors alone
    Raises         as infcore.Router
    """

    def __init__(
        self,
        model: str,
        *,
        policy: str = "slo_cost",
        seed: int = 0,
        load_s: float = 1.0,
        models_max: int = 0,
        ask_s: float = 0.25,
        believe_s: float = 5.0,
        replicas_max: int = 1024,
        clock: Clock | None = None,
        health: bool | Mapping[str, float] | None = None,
        prefix: str | Mapping[str, str | float] = "approximate",
        **policy_options: Any,
    ) -> None:
        self._clock = Clock() if clock is None else clock
        self.now_s = self._clock.now_s
        self.fleet = Fleet(max_nodes=replicas_max, clock=self._clock)
        health = JUDGED_BY_ERRORS if health is None else health
        self.router = Router(self.fleet, policy=policy, seed=seed, health=health, prefix=prefix, **policy_options)
        self.model = model
        self._load_s, self._models_max = load_s, models_max
        self._ask_s, self._believe_s = ask_s, believe_s
        self._nodes: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._replicas: dict[str, Replica] = {}
        self._heard_s: dict[str, float] = {}  # who was heard of, or asked, longest ago comes first
        self._held: dict[str, dict[str, float]] = {}  # by replica: its models, and until when each is believed
        # From any thread, for the next call of whoever has the view:
        self.dropped: deque[Decision] = deque()
        self.answered: deque[tuple[str, str]] = deque()  # replica and model, which it so holds
        self._lost: set[str] = set()
        self._known: set[str] = set()

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, name: str) -> bool:
        return name in self._nodes

    def update(self, replicas: Iterable[Replica]) -> None:
        """These are all replicas there are now; those that were there before keep what is known of them."""
        self._settle()
        there = {replica.name: replica for replica in replicas}
        for name in self._nodes.keys() - there.keys():
            self.remove(name)
        for name, replica in there.items():
            if name not in self._nodes:
                self._add(replica)
            elif replica.pending_max != self._replicas[name].pending_max:
                self.fleet.bound_pending(self._nodes[name], replica.pending_max)
            self._replicas[name] = replica
            self._hold(name, replica.models)

    def _add(self, replica: Replica) -> None:
        node = self.fleet.add(
            replica.name,
            kind=replica.kind,
            zone=replica.zone,
            memory_bytes=self._models_max,  # a model counts as one byte
            price_per_hour=replica.price_per_hour,
            rtt_s=replica.rtt_s,
            slots=replica.slots,
            pending_max=replica.pending_max,
            labels=replica.labels,
        )
        self.fleet.load_model(node, self.model)
        self._nodes[replica.name], self._names[node] = node, replica.name
        self._heard_s[replica.name] = float("-inf")
        self._held[replica.name] = {}

    def remove(self, name: str) -> None:
        """The replica is gone. What it still has of ours ends, or is taken back, in its own time."""
        node = self._nodes.pop(name, None)
        if node is None:
            return
        self.fleet.remove(node)
        for table in (self._replicas, self._heard_s, self._held):
            table.pop(name, None)
        self._lost.discard(name)
        del self._names[node]

    def _hold(self, name: str, listed: frozenset[str]) -> None:
        held, now_s = self._held[name], self.now_s()
        for model in [m for m, until_s in held.items() if m not in listed and until_s <= now_s]:
            del held[model]
            self.fleet.unload_model(self._nodes[name], model)
        for model in listed:
            self._load(name, model, now_s)

    def _load(self, name: str, model: str, until_s: float) -> None:
        if model not in self._held[name] and self._knows(model):
            self.fleet.load_model(self._nodes[name], model)
        elif model not in self._held[name]:
            return
        self._held[name][model] = until_s

    def _knows(self, model: str) -> bool:
        if model != self.model and model not in self._known:
            try:
                self.fleet.add_model(model, weights_bytes=min(1, self._models_max), load_s=self._load_s)
            except InvalidArgument:  # more than a fleet can tell apart: they go where `model` would
                return False
            self._known.add(model)
        return True

    def _settle(self) -> None:
        while self.dropped:
            self.router.cancel(self.dropped.popleft())
        while self.answered:
            name, model = self.answered.popleft()
            if name in self._nodes:
                self._load(name, model, self.now_s() + self._believe_s)

    def heard(self, name: str, ongoing: float, *, as_of_s: float | None = None) -> None:
        """A replica said how many requests it has, everybody's; as_of_s: when what it counts of ours was sent."""
        self._settle()
        node = self._nodes.get(name)
        if node is None:
            return
        self.fleet.signal(node, inflight=ongoing, as_of_s=as_of_s)
        if name in self._lost:
            self._lost.remove(name)
            self.fleet.restore(node)
        self._asked(name)

    def signal(self, name: str, **figures: float) -> None:
        """What else it says of itself: figures of Fleet.signal but inflight."""
        if name in self._nodes:
            self.fleet.signal(self._nodes[name], **figures)

    def lost(self, name: str) -> None:
        """The replica does not answer: nothing is sent there until it is heard of."""
        if name in self._nodes:
            self._lost.add(name)
            self.fleet.lose(self._nodes[name])

    def _asked(self, name: str) -> None:
        self._heard_s.pop(name, None)
        self._heard_s[name] = self.now_s()

    def to_ask(self, n: int, *, silent_s: float | None = None) -> list[str]:
        """Names of up to n replicas that were silent for that long (None: ask_s), longest first; asked from now on."""
        before_s = self.now_s() - (self._ask_s if silent_s is None else silent_s)
        names: list[str] = []
        for name, heard_s in self._heard_s.items():
            if heard_s > before_s or len(names) == n:
                break
            names.append(name)
        for name in names:
            self._asked(name)
        return names

    def pick(self, model: str | None = None, **arguments: Any) -> Pick:
        """Choose a replica and hold credit on it.

        model      None: the view's own
        arguments  of infcore.Router.pick; a deadline that nobody would meet is no error
        Raises     NoNodeAvailable, InvalidArgument, InvalidType, UnknownName
        """
        self._settle()
        asked = self.model if model is None else model
        model, now_s = (asked if self._knows(asked) else self.model), self.now_s()
        try:
            decision = self.router.pick(model, allow_late=True, now_s=now_s, **arguments)
        except NoNodeAvailable:
            if model == self.model:
                raise
            # A policy that has nothing loaded: wherever it sends the request, the model will be.
            decision = self.router.pick(self.model, allow_late=True, now_s=now_s, **arguments)
        return Pick(self, self._names[decision.node], asked, decision, now_s)

    def slots_of(self, name: str) -> int:
        """How many requests the replica runs at once; 1 where it is gone."""
        replica = self._replicas.get(name)
        return 1 if replica is None else replica.slots
