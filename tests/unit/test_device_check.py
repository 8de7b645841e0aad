"""Checks of a device itself: who is asked, when, and what comes of it."""

import threading

import pytest
from engine_rig import WAIT_S, answer, double, engine_of, x_of
from machine_rig import FAST, Rig, S, dispatched

import infcore
from infcore.sim import replay

HEALTH = {"errors_in_a_row": 3, "eject_s": 1000.0, "eject_s_max": 1000.0, "probes": 2}


class Checked:
    """A device that fails what it runs while it is sick, and says how it is when asked."""

    def __init__(self, name):
        self.sick = False
        self.asked = threading.Semaphore(0)
        self.device = infcore.CallableDevice(name, self.run, check=self.check)

    def run(self, name, inputs):
        if self.sick:
            raise OSError("planned")
        return double(name, inputs)

    def check(self):
        self.asked.release()
        if self.sick:
            raise OSError("planned")

    def wait_asked(self, clock, seconds):
        """Until it is asked, so many seconds after it was heard of; what its worker says of it may be a little late."""
        for _ in range(1000):
            clock.advance(seconds)
            if self.asked.acquire(timeout=WAIT_S / 1000):
                return
        raise AssertionError("the device was never asked")


def state_of(engine, name):
    nodes = engine.fleet.nodes()
    return nodes["state"][nodes["name"] == name][0]


def test_an_ejected_device_is_asked_and_comes_back_when_it_is_well():
    clock = infcore.ManualClock(start_s=100.0)
    a, b = Checked("a"), Checked("b")
    options = {"health": HEALTH, "policy": "round_robin", "clock": clock}
    with engine_of(a.device, b.device, **options) as engine:
        for i in range(16):
            answer(engine.submit("m", x_of(i)))
        a.sick = True
        for i in range(40):
            answer(engine.submit("m", x_of(i)))  # tried once more on b
            if state_of(engine, "a") == "ejected":
                break
        assert state_of(engine, "a") == "ejected"
        assert not a.asked.acquire(blocking=False), "it had been heard of just now"
        for _ in range(2):
            a.wait_asked(clock, 1.0)
        assert state_of(engine, "a") == "ejected"
        a.sick = False
        asked_s = clock.now_s()
        for _ in range(3):
            a.wait_asked(clock, 1.0)
            if state_of(engine, "a") == "up":
                break
        for _ in range(10_000):
            answer(engine.submit("m", x_of(1)))
            if state_of(engine, "a") == "up":
                break
        assert state_of(engine, "a") == "up"
        assert clock.now_s() - asked_s < 500.0, "long before its 1,000 s are over"


def test_an_idle_device_is_asked_once_in_a_while_and_one_without_a_check_is_not():
    clock = infcore.ManualClock(start_s=100.0)
    a, quiet = Checked("a"), infcore.CallableDevice("quiet", double)
    with engine_of(a.device, quiet, clock=clock):
        for _ in range(3):
            a.wait_asked(clock, 10.0)


def test_without_health_nobody_is_asked():
    clock = infcore.ManualClock(start_s=100.0)
    a = Checked("a")
    with engine_of(a.device, clock=clock, health=False) as engine:
        clock.advance(100.0)
        assert answer(engine.submit("m", x_of(2))) == 4.0
        assert not a.asked.acquire(timeout=0.6)  # two of its worker's looks


def test_what_is_no_check_is_refused():
    with pytest.raises(infcore.InvalidType, match=r"check is int; allowed: None, or a callable"):
        infcore.CallableDevice("a", double, check=3)


def test_when_a_node_wants_to_be_asked():
    rig = Rig(FAST, FAST, FAST, model={"max_batch_size": 1}, health=True)
    wants = rig.machine.wants_check
    assert not wants(9 * S, 0) and wants(10 * S, 0), "nothing was heard of it for 10 s"
    assert not wants(10 * S, 0) and wants(20 * S, 0)
    (at,) = dispatched(rig.arrive(21 * S, 1)).values()
    assert not wants(40 * S, at), "it has something to run"
    batch, _ = rig.run(40 * S, at)
    rig.complete(41 * S, at, batch)
    assert not wants(50 * S, at) and wants(51 * S, at)
    assert not Rig(FAST).machine.wants_check(100 * S, 0)


def test_bad_checks_in_a_row_eject_and_good_ones_bring_back_and_a_log_tells_it_again(tmp_path):
    path = str(tmp_path / "log")
    rig = Rig(FAST, FAST, FAST, FAST, model={"max_batch_size": 1}, health=HEALTH, log=path)
    states = lambda: rig.fleet.nodes()["state"].tolist()  # noqa: E731
    for i in range(3):
        assert states()[1] == "up"
        rig.machine.checked(i * S, 1, False)
    assert states() == ["up", "ejected", "up", "up"]
    assert set(dispatched(rig.arrive(3 * S, *range(4))).values()) == {0, 2, 3}
    sent = {}
    for i in range(2):
        rig.machine.checked((4 + i) * S, 1, True)
        sent |= dispatched(rig.step((4 + i) * S))
    assert states()[1] == "up"
    assert list(sent.values()) == [1], "who had waited for a device goes there at once"
    rig.machine.end_log()
    result = replay(path)
    assert result.equal, result.first_difference
