"""A Sampler on a bare fleet, under a clock of the test's."""

import math
import os
import threading

import pynvml
import pytest
from engine_rig import wait_until
from nvml_rig import Machine, held, uuid_of

from infcore import Fleet, ForkedProcess, InvalidArgument, ManualClock, UnknownName
from infcore.telemetry import Sampler
from infcore.telemetry.sampler import REOPEN_S


@pytest.fixture
def machine():
    yield Machine()
    assert held() == (0, 0), "NVML was not given back"


@pytest.fixture
def clock():
    return ManualClock(100.0)


@pytest.fixture
def fleet(clock):
    fleet = Fleet(clock=clock)
    for name in ("a", "b", "host"):
        fleet.add(name)
    return fleet


@pytest.fixture
def sampler(machine, fleet, clock):
    sampler = Sampler(fleet, {"a": 0, "b": uuid_of(1), "host": "cpu"}, clock=clock)
    yield sampler
    sampler.close()


def row(fleet, name):
    return next(row for row in fleet.nodes() if row["name"] == name)


def states(fleet):
    return {str(row["name"]): str(row["state"]) for row in fleet.nodes()}


def test_figures_become_signals(machine, fleet, clock, sampler):
    machine.card(1, utilization="90 5", memory="60 80")
    sampler.sample_once()
    assert (row(fleet, "a")["gpu"], row(fleet, "a")["memory"]) == (0.37, 0.25)
    assert (row(fleet, "b")["gpu"], row(fleet, "b")["memory"]) == (0.9, 0.75)
    assert math.isnan(row(fleet, "host")["gpu"])
    assert 0.0 < row(fleet, "host")["memory"] < 1.0
    assert math.isnan(row(fleet, "a")["cpu"]), "the first reading has nothing to compare with"
    machine.card(0, utilization="100 1", memory=None)
    clock.advance(1.0)
    sampler.sample_once()
    assert (row(fleet, "a")["gpu"], row(fleet, "a")["memory"]) == (1.0, 0.25)
    latest = sampler.latest()
    assert (latest["a"].memory_used_bytes, latest["b"].uuid, latest["host"].kind) == (None, uuid_of(1), "cpu")
    stats = sampler.stats()
    assert (stats.n_samples, stats.n_errors, stats.as_of_s, stats.lost, stats.missing) == (2, 0, 101.0, (), ())


def test_signals_carry_the_time_of_the_reading(machine, fleet, clock, sampler):
    clock.advance(10.0)
    assert fleet.signal("a", gpu=0.5, as_of_s=105.0)
    sampler.sample_once(now_s=104.0)  # older than what the node said itself
    assert row(fleet, "a")["gpu"] == 0.5
    sampler.sample_once(now_s=106.0)
    assert row(fleet, "a")["gpu"] == 0.37


@pytest.mark.parametrize(
    ("card", "error", "message"),
    [
        (2, UnknownName, rf'cards\[\'x\'\] is 2; allowed: "cpu" or one of 0 \({uuid_of(0)}\), 1 \({uuid_of(1)}\)'),
        ("GPU-none", UnknownName, "is 'GPU-none'; allowed"),
        (-1, UnknownName, "is -1; allowed"),
        (None, TypeError, "is NoneType; allowed"),
        (True, TypeError, "is bool; allowed"),
    ],
)
def test_a_card_that_is_not_there(machine, fleet, card, error, message):
    with pytest.raises(error, match=message):
        Sampler(fleet, {"x": card})


def test_without_a_driver_the_cpu_can_be_sampled(machine, fleet, clock):
    machine.put({"init": 9})
    with pytest.raises(UnknownName, match='is 0; allowed: "cpu": the NVIDIA driver is not loaded'):
        Sampler(fleet, {"a": 0})
    sampler = Sampler(fleet, {"a": "cpu"}, clock=clock)
    sampler.sample_once()
    assert row(fleet, "a")["memory"] > 0.0
    sampler.close()


def test_a_lost_card_takes_its_node_out_until_it_is_back(machine, fleet, clock, sampler):
    sampler.sample_once()
    machine.card(0, lost=15)
    sampler.sample_once()
    assert states(fleet) == {"a": "lost", "b": "up", "host": "up"}
    assert sampler.stats().lost == ("a",)
    assert row(fleet, "a")["gpu"] == 0.37, "nothing is said of a lost card"
    machine.card(0, lost=None)
    clock.advance(REOPEN_S - 1)
    sampler.sample_once()
    assert states(fleet)["a"] == "lost", "NVML has not looked for its cards anew"
    clock.advance(1)
    sampler.sample_once()
    assert states(fleet)["a"] == "up"
    assert (sampler.stats().lost, sampler.stats().n_errors) == ((), 0)
    assert held() == (1, 1)


def test_a_card_whose_handle_is_gone(machine, fleet, clock, sampler):
    sampler.sample_once()
    machine.card(0, uuid="!2")
    sampler.sample_once()
    assert states(fleet)["a"] == "lost"
    machine.card(0, uuid=uuid_of(0))
    clock.advance(REOPEN_S)
    sampler.sample_once()
    assert states(fleet)["a"] == "up"


def test_a_card_whose_handle_we_may_not_ask(machine, fleet, sampler):
    machine.card(0, uuid="!4")
    sampler.sample_once()
    assert states(fleet)["a"] == "up"
    assert row(fleet, "a")["gpu"] == 0.37


def test_a_card_is_followed_when_the_others_get_new_numbers(machine, fleet, clock, sampler):
    sampler.sample_once()
    machine.card(0, lost=15)
    machine.card(1, utilization="55 0")
    machine.put({"slots": "1"})  # as after the next init: the card that had number 1 has 0 now
    for _ in range(3):
        clock.advance(REOPEN_S)
        sampler.sample_once()
    assert states(fleet) == {"a": "lost", "b": "up", "host": "up"}
    assert row(fleet, "b")["gpu"] == 0.55
    assert (sampler.latest()["b"].index, sampler.latest()["a"].lost) == (0, True)


def test_a_card_that_is_hidden_is_not_lost(machine, fleet, clock, sampler):
    machine.card(1, lost=15)
    sampler.sample_once()
    machine.card(0, handle="!4")
    clock.advance(REOPEN_S)
    sampler.sample_once()
    assert states(fleet) == {"a": "up", "b": "lost", "host": "up"}
    assert "a" not in sampler.latest()


def test_xids(machine, fleet, clock, sampler):
    sampler.sample_once()
    assert sampler.latest()["a"].xid is None
    machine.xid(0, 31)
    machine.xid(1, 48)
    machine.xid(1, 13)
    sampler.sample_once()
    assert (sampler.latest()["a"].xid, sampler.latest()["b"].xid) == (31, 13)
    assert set(states(fleet).values()) == {"up"}
    machine.xid(0, 79)
    sampler.sample_once()
    assert states(fleet)["a"] == "lost"
    assert sampler.latest()["a"].xid == 79
    clock.advance(REOPEN_S)
    sampler.sample_once()  # it answers a fresh init
    assert states(fleet)["a"] == "up"
    assert sampler.latest()["a"].xid is None


def test_a_storm_of_xids_does_not_hold_the_round_up(machine, sampler):
    for number in range(100):
        machine.events.append(f"event 0 {number}")
    machine.put({})
    sampler.sample_once()
    assert sampler.latest()["a"].xid == 63
    sampler.sample_once()
    assert sampler.latest()["a"].xid == 99


def test_energy(machine, clock, sampler):
    assert sampler.energy_j() == {"a": None, "b": None, "host": None}
    sampler.sample_once()
    machine.card(0, energy=5_002_500)
    machine.card(1, energy=None)
    sampler.sample_once()
    assert sampler.energy_j() == {"a": 2.5, "b": 0.0, "host": None}
    machine.card(0, energy=1_000)  # the driver was loaded anew
    sampler.sample_once()
    machine.card(0, energy=2_000)
    sampler.sample_once()
    assert sampler.energy_j()["a"] == pytest.approx(3.5)


def test_two_names_of_one_card(machine, fleet, clock):
    sampler = Sampler(fleet, {"a": 0, "b": uuid_of(0)}, clock=clock)
    sampler.sample_once()
    assert row(fleet, "a")["gpu"] == row(fleet, "b")["gpu"] == 0.37
    machine.card(0, lost=15)
    sampler.sample_once()
    assert states(fleet) == {"a": "lost", "b": "lost", "host": "up"}
    sampler.close()


def test_nodes_that_come_and_go(machine, fleet, sampler):
    fleet.remove("b")
    sampler.sample_once()
    assert (sampler.stats().missing, sampler.stats().n_errors) == (("b",), 0)
    fleet.add("b")
    machine.card(1, lost=15)
    sampler.sample_once()
    assert (sampler.stats().missing, states(fleet)["b"]) == ((), "lost")
    fleet.remove("b")
    fleet.add("b")  # another node of that name, on the same lost card
    sampler.sample_once()
    assert states(fleet)["b"] == "lost"
    sampler.watch("b", 0)  # it was put on another card
    sampler.sample_once()
    assert states(fleet)["b"] == "up"
    sampler.unwatch("a")
    sampler.unwatch("never there")
    assert set(sampler.latest()) == {"b", "host"}


def test_nvml_shut_down_by_somebody_else(machine, fleet, sampler):
    sampler.sample_once()
    pynvml.nvmlShutdown()
    assert held()[0] == 0
    sampler.sample_once()
    assert (sampler.stats().n_errors, sampler.stats().last_error[:11]) == (1, "SessionOver")
    assert set(states(fleet).values()) == {"up"}
    machine.card(0, utilization="1 0")
    sampler.sample_once()
    assert row(fleet, "a")["gpu"] == 0.01
    assert (sampler.stats().n_errors, held()[0]) == (1, 1)
    pynvml.nvmlLib.nvmlEventSetFree(pynvml.c_nvmlEventSet_t())  # the first session's died with it


def test_a_driver_that_does_not_start_again_is_counted_and_loses_nothing_more(machine, fleet, clock, sampler):
    machine.card(0, lost=15)
    sampler.sample_once()
    machine.put({"init": 18})
    clock.advance(REOPEN_S)
    sampler.sample_once()
    assert states(fleet) == {"a": "lost", "b": "up", "host": "up"}
    assert "of different versions" in sampler.stats().last_error
    sampler.sample_once()
    assert sampler.stats().n_errors == 1, "tried again only after a while"
    machine.put({"init": 0})
    machine.card(0, lost=None)
    clock.advance(REOPEN_S)
    sampler.sample_once()
    assert set(states(fleet).values()) == {"up"}


def test_what_goes_wrong_is_counted(machine, fleet, clock):
    class Broken:
        def now_s(self):
            raise OSError("no time")

    sampler = Sampler(fleet, {"host": "cpu"}, clock=Broken())
    sampler.sample_once()
    assert (sampler.stats().n_errors, sampler.stats().last_error) == (1, "OSError: no time")
    sampler.sample_once(now_s=1.0)
    assert sampler.stats().n_errors == 1
    sampler.close()


def test_a_thread_of_its_own(machine, fleet):
    fleet = Fleet()
    fleet.add("a")
    with Sampler(fleet, {"a": 0}, interval_s=0.001) as sampler:
        wait_until(lambda: sampler.stats().n_samples > 3, "three rounds")
        machine.card(0, utilization="99 0")
        wait_until(lambda: row(fleet, "a")["gpu"] == 0.99, "the new figure")
        with pytest.raises(InvalidArgument, match="start"):
            sampler.start()
    assert not any(thread.name == "infcore-telemetry" for thread in threading.enumerate())
    assert held() == (0, 0)
    with pytest.raises(InvalidArgument, match="closed"):
        sampler.sample_once()
    assert sampler.close() is True
    assert sampler.stats().n_errors == 0


def test_a_driver_that_hangs_holds_nobody(machine, fleet):
    fleet = Fleet()
    fleet.add("a")
    sampler = Sampler(fleet, {"a": 0}, interval_s=0.001).start()
    wait_until(lambda: sampler.stats().n_samples > 0, "a round")
    machine.put({"hang": 1})
    seen = -1

    def stuck():
        nonlocal seen
        before, seen = seen, sampler.stats().n_samples
        threading.Event().wait(0.05)
        return before == seen

    wait_until(stuck, "the driver to hang")
    assert sampler.latest()["a"].utilization == 0.37
    assert sampler.close(timeout_s=0.01) is False
    machine.put({"hang": None})
    wait_until(lambda: held() == (0, 0), "the thread to give NVML back")


def test_a_forked_child_has_no_sampler(machine, sampler):
    sampler.sample_once()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            try:
                sampler.sample_once()
            except ForkedProcess:
                try:
                    sampler.watch("c", 0)
                except ForkedProcess:
                    code = 0 if sampler.close() and held() == (1, 1) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    sampler.sample_once()
    assert sampler.stats().n_errors == 0
