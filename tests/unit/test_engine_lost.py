"""Runs that hang: the device is lost, its requests go elsewhere, and it may come back."""

import threading
import warnings

import pytest
from engine_rig import PATHS, WAIT_S, Gated, answer, double, engine_of, model, wait_until, x_of

import infcore
from infcore import CallableDevice, DeadlineExceeded, DeviceLost, EngineClosed, ManualClock

LIMIT_S = 5.0


def triple(name, inputs):
    return {"y": inputs["x"] * 3}


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def hung():
    gated = Gated()
    yield gated
    gated.open()


def state_of(engine, name):
    return next(str(row["state"]) for row in engine.fleet.nodes() if str(row["name"]) == name)


def lose(engine, clock, name="hangs"):
    clock.advance(LIMIT_S + 1)
    wait_until(lambda: state_of(engine, name) == "lost", f"{name} to be lost")


def hangs(hung, name="hangs", **options):
    return CallableDevice(name, hung, run_limit_s=LIMIT_S, **options)


@pytest.mark.parametrize("policy", PATHS)
def test_requests_of_a_lost_device_go_elsewhere_and_it_comes_back(clock, hung, policy):
    at_once = [model(max_batch_delay_s=0.0)]  # nothing moves the clock on for who waits for company
    with engine_of(hangs(hung), models=at_once, clock=clock, policy=policy) as engine:
        first = engine.submit("m", x_of(1))
        hung.wait_entered()
        waiting = [engine.submit("m", x_of(i)) for i in range(2, 5)]
        clock.advance(LIMIT_S - 1)
        engine.add_device(CallableDevice("other", triple))
        assert not first.done()
        lose(engine, clock)
        assert [answer(future) for future in [first, *waiting]] == [3, 6, 9, 12]
        later = [engine.submit("m", x_of(i)) for i in range(6)]
        assert [answer(future) for future in later] == [3 * i for i in range(6)]
        assert {future.device for future in [first, *waiting, *later]} == {"other"}
        assert hung.batches == [[1]]

        hung.open()  # what it says now is nobody's
        wait_until(lambda: state_of(engine, "hangs") == "up", "the device to come back")
        assert answer(first) == 3
        engine.remove_device("other")
        back = engine.submit("m", x_of(7))
        assert answer(back) == 14
        assert back.device == "hangs"
        assert engine.stats()["models"]["m"]["requests"] == 11


def test_what_may_not_run_twice_is_lost_with_its_device(clock, hung):
    with engine_of(hangs(hung), models=[model(idempotent=False)], clock=clock) as engine:
        future = engine.submit("m", x_of(1))
        hung.wait_entered()
        waiting = engine.submit("m", x_of(2))
        lose(engine, clock)
        with pytest.raises(DeviceLost, match=r"'m'.*'hangs'") as caught:
            future.result(timeout_s=WAIT_S)
        assert isinstance(caught.value, infcore.DeviceError)
        assert engine.stats()["models"]["m"]["lost"] == 1
        engine.add_device(CallableDevice("other", triple))
        assert answer(waiting) == 6  # never began, so it may run elsewhere
        hung.open()


def test_a_request_that_hangs_wherever_it_goes_is_given_up(clock):
    hung = Gated()
    with engine_of(*(hangs(hung, name) for name in "abcd"), clock=clock) as engine:
        future = engine.submit("m", x_of(1))
        for _ in range(3):
            hung.wait_entered()
            assert not future.done()
            clock.advance(LIMIT_S + 1)
        assert isinstance(future.exception(timeout_s=WAIT_S), DeviceLost)
        assert hung.batches == [[1]] * 3
        hung.open()


def test_with_every_device_lost_requests_wait_for_their_deadline_or_a_device(clock, hung):
    with engine_of(hangs(hung), clock=clock) as engine:
        first = engine.submit("m", x_of(1), deadline_s=100.0)
        hung.wait_entered()
        lose(engine, clock)
        late, patient = engine.submit("m", x_of(2), deadline_s=50.0), engine.submit("m", x_of(3))
        clock.advance(51.0)
        assert isinstance(late.exception(timeout_s=WAIT_S), DeadlineExceeded)
        assert not first.done()
        clock.advance(50.0)
        assert isinstance(first.exception(timeout_s=WAIT_S), DeadlineExceeded)
        assert not patient.done()
        hung.open()
        assert answer(patient) == 6


def test_a_device_without_a_limit_is_never_lost(clock, hung):
    with engine_of(CallableDevice("slow", hung, run_limit_s=None), clock=clock) as engine:
        future = engine.submit("m", x_of(1))
        hung.wait_entered()
        clock.advance(1e6)
        with pytest.raises(TimeoutError):
            future.result(timeout_s=0.05)
        assert state_of(engine, "slow") == "up"
        hung.open()
        assert answer(future) == 2


def test_a_cancelled_request_is_not_carried_elsewhere(clock, hung):
    other = Gated(triple)
    with engine_of(hangs(hung), clock=clock) as engine:
        future = engine.submit("m", x_of(1))
        hung.wait_entered()
        future.cancel()
        engine.add_device(CallableDevice("other", other))
        lose(engine, clock)
        other.open()
        assert answer(engine.submit("m", x_of(2))) == 6
        assert other.batches == [[2]]
        hung.open()


def test_a_removed_device_that_hangs_leaves_its_place_to_others(clock, hung):
    """The abandoned thread comes back after its node's id was given to another device."""
    with engine_of(hangs(hung), clock=clock) as engine:
        first = engine.submit("m", x_of(1))
        hung.wait_entered()
        removed = []
        removing = threading.Thread(target=lambda: removed.append(engine.remove_device("hangs", timeout_s=0)))
        removing.start()
        removing.join(WAIT_S)
        assert removed == [False]
        engine.add_device(CallableDevice("heir", triple))
        assert answer(first) == 3
        hung.open()
        wait_until(lambda: not any(t.name == "infcore-hangs" for t in threading.enumerate()), "the thread to end")
        futures = [engine.submit("m", x_of(i)) for i in range(50)]
        assert [answer(future) for future in futures] == [3 * i for i in range(50)]
        assert {future.device for future in futures} == {"heir"}
        assert hung.batches == [[1]]
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            engine.close()
        assert all("hangs" in str(w.message) for w in warned)


@pytest.mark.parametrize("drain", [True, False])
def test_closing_with_a_thread_that_hangs(hung, drain):
    engine = engine_of(CallableDevice("hangs", hung, run_limit_s=0.1)).start()
    future = engine.submit("m", x_of(1))
    hung.wait_entered()
    waiting = engine.submit("m", x_of(2))
    with pytest.warns(RuntimeWarning, match="'hangs'"):
        assert engine.close(drain=drain, timeout_s=0.2) == ["hangs"]
    for each in (future, waiting):
        assert isinstance(each.exception(timeout_s=0), EngineClosed)
    assert engine.n_open == 0


def test_draining_ends_when_no_device_is_left(hung):
    """What waits without a deadline would wait for ever."""
    engine = engine_of(CallableDevice("hangs", hung, run_limit_s=0.05)).start()
    future = engine.submit("m", x_of(1))
    hung.wait_entered()
    with pytest.warns(RuntimeWarning, match="'hangs'"):
        assert engine.close() == ["hangs"]
    assert isinstance(future.exception(timeout_s=0), EngineClosed)


def test_loading_does_not_wait_for_a_device_that_hangs(clock, hung):
    with engine_of(hangs(hung), CallableDevice("other", double), clock=clock) as engine:
        futures = [engine.submit("m", x_of(i)) for i in range(2)]
        hung.wait_entered()
        lose(engine, clock)
        loading = threading.Thread(target=engine.load_model, args=(model("new"),), daemon=True)
        loading.start()
        loading.join(2.0)
        stuck = loading.is_alive()
        hung.open()
        loading.join(WAIT_S)
        assert [answer(future) for future in futures] == [0, 2]
        assert answer(engine.submit("new", x_of(4))) == 8
        assert not stuck
