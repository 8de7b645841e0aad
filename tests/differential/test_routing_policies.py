"""The further routing policies decide as their plain Python models, with options, sessions, tiers and labels."""

import math

import pytest
from reference import routing, routing_policies
from test_routing import MODELS, TICK_NS, TICK_S, Pair

import infcore

ROOT_5, ROOT_2, ROOT_3 = 0x3C6EF372FE94F82B, 0x6A09E667F3BCC909, 0xBB67AE8584CAA73B
MASK = 2**64 - 1


def session_hash(number):
    """Of an int: csrc/infcore/contracts/session_hash.hpp."""
    x = (number + ROOT_5) & MASK
    x = (x ^ x >> 32) * ROOT_2 & MASK
    x = (x ^ x >> 29) * ROOT_3 & MASK
    return (x ^ x >> 32) or 1


class PolicyPair(Pair):
    """As Pair, with what these policies look at besides."""

    def pick(self):
        rng = self.rng
        model, work = rng.choice(MODELS), rng.choice((0.0, 1.0, 3.7, 50.0))
        deadline_ticks = rng.choice((None, None, None, 4, 40))
        session = rng.choice((None, *range(20)))
        tier = rng.choice((0, 0, 1, 3))
        require = rng.choice(({}, {}, {}, {"zone": "z1"}, {"location": "edge"}, {"zone": "z9"}))
        query = routing.Query(
            model,
            work,
            None if deadline_ticks is None else deadline_ticks * TICK_NS,
            require,
            self.tick * TICK_NS,
            tier=tier,
            session=0 if session is None else session_hash(session),
        )
        deadline_s = None if deadline_ticks is None else deadline_ticks * TICK_S
        if hasattr(self.model, "start_at"):
            query.model = self.model.start_at(query)
        expected = self.model.select(query)
        call = {"work": work, "deadline_s": deadline_s, "require": require, "session": session, "tier": tier}
        if expected is None:
            with pytest.raises((infcore.NoNodeAvailable, infcore.DeadlineInfeasible)):
                self.router.pick(model, **call)
            return
        node = self.node(expected)
        terms = self.model.terms(query, node)
        decision = self.router.pick(model, **call)
        assert (decision.node, decision.model) == (expected, query.model)
        assert decision.cost_us == float(terms.cost) + self.model.added_us
        node.add_credit(self.tick * TICK_NS, decision.service_s, 1)
        self.open.append((decision, node, query.model, self.tick))

    def report(self):
        """A request ends, and its caller says how confident the answer was."""
        if not self.open:
            return
        decision, node, model, _ = self.open.pop(self.rng.randrange(len(self.open)))
        confidence = self.rng.choice((0.0, 0.5, 0.8, 1.0))
        assert self.router.done(decision, ok=False, confidence=confidence)
        if hasattr(self.model, "report"):
            self.model.report(model, confidence)
            assert decision.next_model == self.model.next_model(model, confidence)
        node.add_credit(self.tick * TICK_NS, decision.service_s, -1)


CASES = [
    ("weighted", {"weight": "slots"}),
    ("weighted", {"weight": "speed"}),
    ("weighted", {"weight": "label"}),
    ("prequal", {}),
    ("prequal", {"q_rif": 0.0, "probes": 1, "pool": 4, "reuse": 1, "age_s": 0.05}),
    ("prequal", {"q_rif": 1.0, "probes": 5, "pool": 3, "reuse": 8}),
    ("consistent_hash", {}),
    ("consistent_hash", {"bound": 3.0}),
    ("priority", {"reserve": 0.5}),
    ("locality", {"zone": "z1"}),
    ("locality", {"zone": "z2", "data": "x", "spill": 4.0, "risk": 0.0}),
    ("edge_first", {"load": 1.0}),
    ("edge_first", {"load": 3.0, "explore": 0.2}),
    ("cascade", {"models": ["m", "n"]}),
    ("cascade", {"models": ["n", "m"], "min_confidence": 0.5, "explore": 0.0}),
]


def case_name(value):
    return value if isinstance(value, str) else ",".join(f"{name}={each}" for name, each in value.items()) or "default"


@pytest.mark.parametrize("n_nodes", [5, 40])
@pytest.mark.parametrize(("policy", "options"), CASES, ids=case_name)
def test_same_decisions(policy, options, n_nodes):
    pair = PolicyPair(policy, 1, n_nodes, **options)
    steps = [pair.pick] * 8 + [pair.end] * 4 + [pair.report] * 2 + [pair.signal] * 4 + [pair.advance] * 3 + [pair.change]
    for _ in range(400):
        pair.rng.choice(steps)()
    pair.compare_fleet()
    while pair.open:
        pair.end()
    pair.compare_fleet()


def test_log_of_the_model_is_the_cores():
    """Weighted ranks hang on it: consistent_hash compares logarithms where slots differ."""
    for x in (2.0**-54, 1e-9, 0.1, 0.5, 0.7071, 0.7072, 0.999999, 1.0 - 2.0**-53):
        assert routing_policies.log(x) == pytest.approx(math.log(x), rel=1e-14)
