"""Who goes with whom in a batch, and how many: like work where padding costs, preferred sizes, no idle waiting."""

import heapq

import pytest

from infcore import Fleet, InvalidArgument, InvalidType, Model
from infcore._core.machine import Machine

MS = 1_000_000
PADDED = (0.001, 0.0, 0.0, 0.001)  # 1 ms a batch, 1 ms a request and unit of the largest work
PLAIN = (0.001, 0.001, 0.0, 0.0)


class Rig:
    def __init__(self, curve, ageing_ns=None, batching="dynamic", **model):
        self.fleet = Fleet(max_nodes=1)
        self.machine = Machine(self.fleet, max_requests=512, n_tiers=2, ageing_ns=ageing_ns, batching=batching)
        self.model = self.machine.add_model("m", **{"max_batch_size": 16, "batch_delay_ns_max": 0, **model})
        self.node = self.fleet.add("n")
        self.machine.add_node(self.node)
        self.machine.set_resident(0, self.model, self.node, True, prior=curve)

    def arrive(self, now_ns, works, **rest):
        for cookie, work in works:
            self.machine.arrive(now_ns, cookie, self.model, work=work, **rest)

    def decide(self, now_ns):
        """Cookies of what was sent."""
        self.machine.tick(now_ns)
        self.machine.schedule(now_ns)
        return [a[1] for a in self.machine.actions() if a[0] == "dispatch"]

    def answer(self, now_ns):
        """The node's batch is done at once: nothing is learnt of it. Then what goes next."""
        batch_id, _, _ = self.machine.claim(now_ns, self.node)
        self.machine.started(now_ns, self.node, batch_id)
        assert self.machine.complete(now_ns, self.node, batch_id)
        return self.decide(now_ns)


def mixed(*works):
    return list(enumerate(works))


def test_a_padded_batch_holds_like_work_with_whoever_comes_first():
    rig = Rig(PADDED)
    rig.arrive(0, mixed(5.0, 100.0, 4.0, 90.0, 5.0, 4.5, 100.0))
    assert rig.decide(0) == [0, 2, 4, 5]
    assert rig.answer(0) == [1, 3, 6]


def test_the_large_and_rare_one_goes_when_its_turn_comes():
    rig = Rig(PADDED)
    rig.arrive(0, mixed(5.0, 100.0, *[5.0] * 100))
    assert rig.decide(0) == [0, *range(2, 17)]
    for cookie in range(200, 300):  # however many come
        rig.arrive(0, [(cookie, 5.0)])
    assert rig.answer(0) == [1]


def test_what_is_pressed_for_time_goes_first_whatever_its_length():
    rig = Rig(PADDED)
    rig.arrive(0, mixed(5.0, 5.0, 5.0))
    rig.arrive(0, [(9, 100.0)], deadline_ns=5000 * MS)
    assert rig.decide(0) == [9]


def test_padding_that_costs_next_to_nothing_leaves_the_order_alone():
    rig = Rig((0.001, 0.001, 0.0, 1e-9), max_batch_size=4)
    rig.arrive(0, mixed(5.0, 100.0, 4.0, 90.0, 5.0))
    assert rig.decide(0) == [0, 1, 2, 3]


def test_buckets_decide_where_the_curve_does_not_say():
    rig = Rig(PLAIN, length_buckets=[8.0, 64.0])
    rig.arrive(0, mixed(5.0, 100.0, 8.0, 64.0, 9.0, 70.0))
    assert rig.decide(0) == [0, 2]
    assert rig.answer(0) == [1, 5]
    assert rig.answer(0) == [3, 4]


@pytest.mark.parametrize("curve", [PADDED, PLAIN])
def test_nobody_unlike_joins_an_open_batch(curve):
    rig = Rig(curve, length_buckets=[8.0, 64.0])
    rig.arrive(0, mixed(5.0))
    assert rig.decide(0) == [0]
    rig.arrive(1, [(1, 100.0)])
    assert rig.decide(1) == []
    rig.arrive(2, [(2, 5.0)], tier=0)
    assert rig.decide(2) == []  # behind the one that waits: the order holds
    assert rig.answer(3) == [1]
    rig.arrive(4, [(3, 90.0)])
    assert rig.answer(4) == [2]


def test_a_batch_is_cut_down_to_a_preferred_size():
    rig = Rig(PLAIN, preferred_batch_sizes=[4, 8])
    rig.arrive(0, mixed(*[1.0] * 15))
    assert rig.decide(0) == list(range(8))
    assert rig.answer(0) == list(range(8, 12))
    assert rig.answer(0) == [12, 13, 14]  # fewer than the least of them


@pytest.mark.parametrize(("deadline_ms", "n"), [(None, 8), (60, 8), (17, 8), (16, 11)])
def test_a_preferred_size_gives_way_to_a_deadline(deadline_ms, n):
    rig = Rig(PLAIN, preferred_batch_sizes=[8])  # 11.1 and 4.9 ms at the upper quantile, one after the other; 14.8
    rig.arrive(0, mixed(*[1.0] * 11), deadline_ns=deadline_ms and deadline_ms * MS)
    assert len(rig.decide(0)) == n


def test_a_preferred_size_gives_way_to_who_has_waited_long():
    rig = Rig(PLAIN, ageing_ns=5 * MS, preferred_batch_sizes=[8])
    rig.arrive(0, mixed(1.0))
    assert rig.decide(0) == [0]
    batch_id, _, _ = rig.machine.claim(0, rig.node)
    rig.arrive(0, [(i, 1.0) for i in range(1, 12)])
    rig.machine.started(5 * MS, rig.node, batch_id)
    assert rig.machine.complete(5 * MS, rig.node, batch_id)
    assert len(rig.decide(5 * MS)) == 11


# ---- no waiting where it buys nothing


def test_a_lone_caller_is_never_held():
    rig = Rig((0.01, 0.001, 0.0, 0.0), batch_delay_ns_max=50 * MS)
    now_ns = 0
    for cookie in range(20):
        rig.arrive(now_ns, [(cookie, 1.0)])
        assert rig.decide(now_ns) == [cookie]
        batch_id, _, _ = rig.machine.claim(now_ns, rig.node)
        rig.machine.started(now_ns, rig.node, batch_id)
        now_ns += 11 * MS
        assert rig.machine.complete(now_ns, rig.node, batch_id)
        now_ns += 1000


def test_a_closed_loop_of_callers_ends_in_full_batches():
    """64 callers, each asks again as soon as it was answered: one batch of all, not one of 1 and one of 63 for ever."""
    rig = Rig((0.001, 0.0001, 0.0, 0.0), max_batch_size=64, batch_delay_ns_max=2 * MS)
    asks = [(cookie * 2_000, cookie) for cookie in range(64)]  # (when, who)
    ends, sizes, now_ns = None, [], 0
    while len(sizes) < 30:
        timer_ns = rig.machine.next_timer_ns
        times = [asks[0][0] if asks else None, ends[0] if ends else None, timer_ns]
        now_ns = max(now_ns, min(t for t in times if t is not None))
        while asks and asks[0][0] <= now_ns:
            rig.arrive(now_ns, [(heapq.heappop(asks)[1], 1.0)])
        if ends and ends[0] <= now_ns:
            _, batch_id, cookies = ends
            ends = None
            assert rig.machine.complete(now_ns, rig.node, batch_id)
            for i, cookie in enumerate(cookies):
                heapq.heappush(asks, (now_ns + 2_000 * (i + 1), cookie))
        rig.decide(now_ns)
        if ends is None and (batch := rig.machine.claim(now_ns, rig.node)):
            rig.machine.started(now_ns, rig.node, batch[0])
            sizes.append(len(batch[2]))
            ends = (now_ns + 1_000_000 + 100_000 * len(batch[2]), batch[0], batch[2])
    assert sizes[-10:] == [64] * 10, sizes


# ---- what a model may ask for


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"length_buckets": (64, 64)}, InvalidArgument, "length_buckets has 64; allowed: at most 64 ascending numbers"),
        ({"length_buckets": (-1,)}, InvalidArgument, "length_buckets"),
        ({"length_buckets": (float("inf"),)}, InvalidArgument, "length_buckets is inf"),
        ({"length_buckets": range(65)}, InvalidType, "length_buckets is range"),
        ({"length_buckets": list(range(65))}, InvalidArgument, "length_buckets has 65"),
        ({"length_buckets": "64"}, InvalidType, "length_buckets is str"),
        ({"preferred_batch_sizes": (0, 8)}, InvalidArgument, "preferred_batch_sizes has 0; allowed"),
        ({"preferred_batch_sizes": (8, 128)}, InvalidArgument, "preferred_batch_sizes has 128; allowed.*1 to 64"),
        ({"preferred_batch_sizes": (1.5,)}, InvalidArgument, "preferred_batch_sizes has 1.5; allowed: whole numbers"),
    ],
)
def test_a_model_refuses(given, error, says):
    x = {"x": ("float32", (2,))}
    with pytest.raises(error, match=says):
        Model("m", x, x, **given)


def test_a_model_keeps_them():
    x = {"x": ("float32", (2,))}
    model = Model("m", x, x, length_buckets=[64, 128], preferred_batch_sizes=[8, 16])
    assert (model.length_buckets, model.preferred_batch_sizes) == ((64.0, 128.0), (8, 16))
    assert model.replace(version=2).preferred_batch_sizes == (8, 16)
