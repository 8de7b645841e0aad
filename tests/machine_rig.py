"""A state machine on small fleets, for tests that say what happens when; nothing sleeps."""

from infcore import Fleet
from infcore._core.machine import Machine

MS = 1_000_000
S = 1000 * MS
FAST = (1e-3, 1e-4, 0.0, 0.0)  # a batch of n: 1 ms + n * 0.1 ms
SLOW = (1.5e-3, 1e-3, 0.0, 0.0)


class Rig:
    """Nodes that hold model 0, and a machine. Every event is a step: event, tick, schedule; returns the actions."""

    def __init__(self, *curves, slots=1, run_limit_ns=None, model=None, **machine):
        self.fleet = Fleet(max_nodes=8)
        self.machine = Machine(self.fleet, **{"batching": "greedy", **machine})
        self.model = self.machine.add_model("m", **(model or {}))
        for at, curve in enumerate(curves):
            node = self.fleet.add(f"node{at}", slots=slots)
            self.machine.add_node(node, run_limit_ns=run_limit_ns)
            self.machine.set_resident(0, self.model, node, prior=curve)
        self.handles = {}

    def step(self, now_ns):
        self.machine.tick(now_ns)
        self.machine.schedule(now_ns)
        return self.machine.actions()

    def arrive(self, now_ns, *cookies, model=None, **request):
        for cookie in cookies:
            self.handles[cookie] = self.machine.arrive(
                now_ns, cookie, self.model if model is None else model, **request
            )
        return self.step(now_ns)

    def run(self, now_ns, node):
        """The node takes its batch and starts it."""
        batch_id, _, cookies = self.machine.claim(now_ns, node)
        self.machine.started(now_ns, node, batch_id)
        self.step(now_ns)
        return batch_id, cookies

    def complete(self, now_ns, node, batch_id, ok=True):
        assert self.machine.complete(now_ns, node, batch_id, ok)
        return self.step(now_ns)

    def lose(self, now_ns, node):
        self.machine.node_lost(now_ns, node)
        return self.step(now_ns)


def dispatched(actions):
    """{cookie: node}"""
    return {cookie: node for kind, cookie, node, *_ in actions if kind == "dispatch"}


def ended(actions):
    """{cookie: (kind, reason)}"""
    return {a[1]: (a[0], a[5]) for a in actions if a[0] not in ("dispatch", "retry")}
