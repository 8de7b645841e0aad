"""A real engine, two devices on two cards, and a card that falls off the bus."""

import threading

import pytest
from engine_rig import WAIT_S, Gated, answer, engine_of, model, wait_until, x_of
from nvml_rig import Machine, held, uuid_of

import infcore
from infcore import CallableDevice, DeviceLost, ManualClock
from infcore.telemetry import Sampler
from infcore.telemetry.sampler import REOPEN_S


def triple(name, inputs):
    return {"y": inputs["x"] * 3}


@pytest.fixture
def machine():
    yield Machine()
    assert held() == (0, 0), "NVML was not given back"


class Sampling:
    """A sampler under a clock of its own."""

    def __init__(self):
        self.clock = ManualClock(100.0)
        self.sampler = None

    def start(self, engine, cards):
        self.sampler = Sampler(engine, cards, clock=self.clock)
        return self.sampler

    def once(self, after_s=1.0):
        self.clock.advance(after_s)
        self.sampler.sample_once()
        return self.sampler.stats()


@pytest.fixture
def sampling(machine):
    sampling = Sampling()
    yield sampling
    sampling.sampler.close()


def state_of(engine, name):
    return next(str(row["state"]) for row in engine.fleet.nodes() if str(row["name"]) == name)


@pytest.mark.parametrize("policy", infcore.Router.policies())
def test_a_card_falls_off_while_it_runs(machine, sampling, policy):
    hung = Gated()
    with engine_of(CallableDevice("a", hung), policy=policy) as engine:
        sampling.start(engine, {"a": 0, "b": uuid_of(1)})
        sampling.once()
        first = engine.submit("m", x_of(1))
        hung.wait_entered()
        waiting = [engine.submit("m", x_of(i)) for i in range(2, 5)]
        engine.add_device(CallableDevice("b", triple))
        assert not first.done()
        machine.card(0, lost=15)
        sampling.once()
        assert state_of(engine, "a") == "lost"
        assert [answer(future) for future in [first, *waiting]] == [3, 6, 9, 12]
        assert {future.device for future in [first, *waiting]} == {"b"}
        hung.open()  # the run comes back, the card does not
        later = [engine.submit("m", x_of(i)) for i in range(20)]
        assert [answer(future) for future in later] == [3 * i for i in range(20)]
        assert {future.device for future in later} == {"b"}
        wait_until(lambda: hung.batches == [[1]], "nothing more to be sent there")
        assert state_of(engine, "a") == "lost"

        machine.card(0, lost=None)
        sampling.once(REOPEN_S)
        assert state_of(engine, "a") == "up"
        engine.remove_device("b")
        back = engine.submit("m", x_of(7))
        assert (answer(back), back.device) == (14, "a")
        assert engine.stats()["models"]["m"]["requests"] == 25
        stats = sampling.once()
        assert (stats.n_errors, stats.missing) == (0, ("b",))


def test_a_card_that_is_back_before_its_run_has_returned(machine, sampling):
    """Until the worker has left the lost run, it could claim nothing of what it was sent."""
    hung = Gated()
    with engine_of(CallableDevice("a", hung)) as engine:
        sampling.start(engine, {"a": 0})
        first = engine.submit("m", x_of(1))
        hung.wait_entered()
        machine.card(0, lost=15)
        sampling.once()
        machine.card(0, lost=None)
        assert sampling.once(REOPEN_S).lost == ()
        assert state_of(engine, "a") == "lost"
        assert not first.done()
        hung.open()
        assert answer(first) == 2
        assert hung.batches == [[1], [1]]
        assert state_of(engine, "a") == "up"


def test_what_may_not_run_twice_is_lost_with_its_card(machine, sampling):
    hung = Gated()
    with engine_of(CallableDevice("a", hung), models=[model(idempotent=False)]) as engine:
        sampling.start(engine, {"a": 0})
        future = engine.submit("m", x_of(1))
        hung.wait_entered()
        machine.xid(0, 79)
        sampling.once()
        with pytest.raises(DeviceLost, match=r"'m'.*'a'"):
            future.result(timeout_s=WAIT_S)
        hung.open()


@pytest.mark.parametrize("policy", ["fastest_finish", "round_robin"])
def test_nothing_is_lost_or_doubled_under_load(machine, sampling, policy):
    """Both cards fall off in turn while four threads submit. Twice in a wave: a request is run three times at most."""
    n_waves, n_each = 5, 100
    devices = [CallableDevice(name, triple) for name in "ab"]
    with engine_of(*devices, policy=policy, models=[model(max_batch_size=4)]) as engine:
        sampling.start(engine, {"a": 0, "b": 1})
        for _ in range(n_waves):
            answers = [[] for _ in range(4)]
            some = threading.Semaphore(0)

            def submit(start, mine, some):
                for first in range(start, start + n_each, 10):
                    futures = [engine.submit("m", x_of(i)) for i in range(first, first + 10)]
                    some.release()
                    mine.extend(answer(future) / 3 for future in futures)

            threads = [threading.Thread(target=submit, args=(1000 * i, mine, some)) for i, mine in enumerate(answers)]
            for thread in threads:
                thread.start()
            for slot in range(2):
                for _ in range(6):  # of the 40 times that ten are submitted
                    assert some.acquire(timeout=WAIT_S)
                machine.card(slot, lost=15)
                assert sampling.once().lost == ("ab"[slot],)
                machine.card(slot, lost=None)
                assert sampling.once(REOPEN_S).lost == ()
            for thread in threads:
                thread.join()
            assert answers == [list(range(1000 * i, 1000 * i + n_each)) for i in range(4)]
        figures = engine.stats()["models"]["m"]
        assert (figures["requests"], figures["failed"], figures["lost"]) == (n_waves * 4 * n_each, 0, 0)
        assert engine.n_open == 0
        assert sampling.once().n_errors == 0


def test_a_closed_engine_has_no_devices(machine, sampling):
    engine = engine_of(CallableDevice("a", triple))
    with engine:
        sampling.start(engine, {"a": 0})
    machine.card(0, lost=15)
    assert sampling.once().missing == ("a",)
