"""Token devices that raise, answer wrongly, hang or are lost: who fails, what goes on elsewhere, and from where."""

import asyncio
import threading

import numpy as np
import pytest
from engine_rig import WAIT_S, wait_until
from token_device_rig import (
    GatedTokens,
    Watched,
    answer_of,
    emulated,
    engine_of_tokens,
    expected,
    inputs_of,
    prompt_of,
    token_model,
)

import infcore

BAD = 13  # a prompt that begins with it makes its steps raise


class Picky(Watched):
    def run_step(self, model_name, step):
        if BAD in step.tokens[step.positions == 0]:
            raise ValueError("not thirteen")
        return super().run_step(model_name, step)


class Broken(Watched):
    """Raises from its n-th step on, until mended."""

    def __init__(self, *args, after=0, **options):
        super().__init__(*args, **options)
        self.after, self.mended = after, threading.Event()

    def run_step(self, model_name, step):
        if len(self.steps) >= self.after and not self.mended.is_set():
            raise OSError("dead")
        return super().run_step(model_name, step)


def test_a_bad_row_fails_alone():
    device, gate = emulated(kind=Picky), threading.Event()
    plain = device.run_step
    device.run_step = lambda name, step: (gate.wait(WAIT_S), plain(name, step))[1]
    with engine_of_tokens(device) as engine:
        first = engine.submit("t", inputs_of([1]))
        wait_until(lambda: device.runs, "the first step")
        futures = [engine.submit("t", inputs_of([token])) for token in (2, BAD, 4)]
        gate.set()
        error = futures[1].exception(timeout_s=WAIT_S)
        assert isinstance(error, infcore.DeviceError)
        assert "ValueError: not thirteen" in str(error)
        assert isinstance(error.__cause__, ValueError)
        assert [answer_of(f) for f in (first, futures[0], futures[2])] == [expected([i], 8) for i in (1, 2, 4)]
        figures = engine.stats()["models"]["t"]
    assert (figures["requests"], figures["failed"], figures["retried"]) == (3, 1, 0)
    assert device.is_clean()


def test_a_device_that_breaks_hands_over_what_it_ran():
    """They go on elsewhere from where they were: the tokens that were made are not made again."""
    device, other = emulated(kind=Broken, after=4), emulated("e", kind=Watched)
    with engine_of_tokens(device) as engine:
        future = engine.submit("t", inputs_of([1, 2, 3]))
        wait_until(lambda: engine.fleet.nodes()["state"][0] == "lost", "the pause")
        engine.add_device(other)
        assert answer_of(future) == expected([1, 2, 3], 8)
        assert future.device == "e"
        assert engine.stats()["models"]["t"]["retried"] >= 1
        device.mended.set()
        wait_until(lambda: engine.fleet.nodes()["state"][0] == "up", "the end of its pause")
    assert other.steps[0].n_prefill_tokens == 3 + 4
    assert len(other.steps) == 4
    assert other.is_clean()


def test_a_lone_device_that_stays_broken_fails_its_requests():
    with engine_of_tokens(emulated(kind=Broken)) as engine:
        future = engine.submit("t", inputs_of([1]))
        error = future.exception(timeout_s=WAIT_S)
        assert isinstance(error, infcore.DeviceError)
        assert "OSError: dead" in str(error)
        assert future.device == "d"
        figures = engine.stats()["models"]["t"]
        assert (figures["failed"], figures["retried"]) == (1, 2)


def test_what_may_not_run_twice_fails_with_its_step():
    with engine_of_tokens(emulated(kind=Broken), models=[token_model(idempotent=False)]) as engine:
        assert isinstance(engine.submit("t", inputs_of([1])).exception(timeout_s=WAIT_S), infcore.DeviceError)
        assert engine.stats()["models"]["t"]["retried"] == 0


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda n: None, "NoneType"),
        (lambda n: [0] * n, "list"),
        (lambda n: np.zeros(n), "float64"),
        (lambda n: np.zeros(n + 1, np.int64), "shape (2,)"),
        (lambda n: np.zeros((n, 1), np.int64), "shape (1, 1)"),
        (lambda n: np.full(n, -1), "-1 for row 0; allowed: tokens of 0 to 999"),
        (lambda n: np.full(n, 1000, np.int32), "1000 for row 0"),
        (lambda n: np.full(n, 2**64 - 1, np.uint64), "18446744073709551615 for row 0"),
    ],
)
def test_wrong_answers_of_a_step(made, words):
    device = emulated()
    device.run_step = lambda name, step: made(int(step.emits.sum()))
    with engine_of_tokens(device, models=[token_model(idempotent=False)]) as engine:
        error = engine.submit("t", inputs_of([1])).exception(timeout_s=WAIT_S)
        assert type(error) is infcore.DeviceError
        for word in ("'d'", "'t'", "run_step", "allowed", words):
            assert word in str(error)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, StopIteration])
def test_whatever_is_raised_the_worker_lives_on(error):
    device, raised = emulated(), []
    plain = device.run_step

    def run_step(name, step):
        if not raised:
            raised.append(True)
            raise error("planned")
        return plain(name, step)

    device.run_step = run_step
    with engine_of_tokens(device) as engine:
        assert answer_of(engine.submit("t", inputs_of([1]))) == expected([1], 8)


def test_a_hang_is_taken_for_lost_and_goes_on_elsewhere():
    device, other = emulated(kind=GatedTokens, run_limit_s=0.05), emulated("e", kind=Watched)
    with engine_of_tokens(device) as engine:
        future = engine.submit("t", inputs_of([1, 2]))
        device.let(2)
        for _ in range(3):
            device.wait_entered()
        wait_until(lambda: engine.fleet.nodes()["state"][0] == "lost", "the run limit")
        engine.add_device(other)
        assert answer_of(future) == expected([1, 2], 8)
        assert future.device == "e"
        device.open()  # it answers: nobody waits for that any more, and it is back
        wait_until(lambda: engine.fleet.nodes()["state"][0] == "up", "its return")
        assert engine.lose_device("e")
        assert answer_of(engine.submit("t", inputs_of([5]))) == expected([5], 8)
    assert other.steps[0].n_prefill_tokens == 2 + 2
    assert device.is_clean()


def test_long_answers_are_no_hang():
    """Each step is shorter than the limit, the whole much longer."""
    clock = infcore.ManualClock()
    device = emulated(kind=Watched, run_limit_s=1.0)
    plain = device.run_step
    device.run_step = lambda name, step: (clock.advance(0.2), plain(name, step))[1]
    with engine_of_tokens(device, models=[token_model(max_new_tokens=40)], clock=clock) as engine:
        assert answer_of(engine.submit("t", inputs_of([1]))) == expected([1], 40)
        assert engine.stats()["models"]["t"]["retried"] == 0


def test_a_device_that_a_monitor_loses():
    device, other = emulated(kind=GatedTokens), emulated("e")
    with engine_of_tokens(device) as engine:
        future = engine.submit("t", inputs_of([1]))
        device.wait_entered()
        engine.add_device(other)
        assert engine.lose_device("d")
        assert answer_of(future) == expected([1], 8)
        device.open()
        wait_until(device.is_clean, "its blocks")
        assert engine.fleet.nodes()["state"].tolist() == ["lost", "up"]
        assert engine.restore_device("d")
        assert engine.remove_device("e")
        again = engine.submit("t", inputs_of([2]))
        assert answer_of(again) == expected([2], 8)
        assert again.device == "d"


def test_a_stream_goes_on_where_its_device_was_lost():
    device, other = emulated(kind=GatedTokens), emulated("e")

    async def main():
        async with engine_of_tokens(device) as engine:
            stream = engine.stream("t", inputs_of([4, 2]))
            found = []
            for _ in range(3):
                device.let()
                found += (await anext(stream))["tokens"].tolist()
            await asyncio.to_thread(engine.add_device, other)
            assert engine.lose_device("d")
            found += [token async for part in stream for token in part["tokens"].tolist()]
            device.open()
            return found

    assert asyncio.run(main()) == expected([4, 2], 8)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_worker_that_hangs_for_ever_is_abandoned(monkeypatch):
    monkeypatch.setattr("infcore.engine._JOIN_S", 0.1)
    device = emulated(kind=GatedTokens, run_limit_s=0.05)
    engine = engine_of_tokens(device, emulated("e")).start()
    futures = [engine.submit("t", inputs_of([i])) for i in range(8)]
    device.wait_entered()
    assert [answer_of(future) for future in futures] == [expected([i], 8) for i in range(8)]
    assert engine.close() == ["d"]
    device.open()


class Flaky(Watched):
    """Some steps raise, by a seed, unless they move blocks or not."""

    def __init__(self, *args, seed, **options):
        super().__init__(*args, **options)
        self.draw = np.random.default_rng(seed)

    def run_step(self, model_name, step):
        if self.draw.random() < 0.02:
            raise OSError("planned")
        return super().run_step(model_name, step)


@pytest.mark.parametrize("seed", range(4))
def test_random_schedules(seed):
    """Cancels, pre-emption, failing steps, a device that leaves: each ends once, with the right tokens or an error."""
    draw = np.random.default_rng(seed)
    devices = [
        emulated(kind=Flaky, seed=seed, n_blocks=24, max_running=6, slots=12, token_budget=32, n_host_blocks=seed * 8),
        emulated("e", kind=Flaky, seed=seed + 100, n_blocks=40, max_running=4, slots=20, token_budget=9),
        emulated("guest", kind=Watched, n_blocks=30),
    ]
    devices[0].moving_curve = infcore.TokenCurve(per_prefill_token_s=1.0, swap_block_s=1e-9)
    devices[0].step_s = lambda step: 0.0
    prompts = [prompt_of(int(n), int(n) % 5) for n in draw.integers(1, 60, 150)]
    outcomes = []
    with engine_of_tokens(*devices, models=[token_model(max_new_tokens=24)]) as engine:
        futures = []
        for i, prompt in enumerate(prompts):
            n_new = int(draw.integers(1, 25))
            futures.append((engine.submit("t", inputs_of(prompt, max_new_tokens=n_new), tier=i % 3), prompt, n_new))
            if draw.random() < 0.2:
                futures[int(draw.integers(len(futures)))][0].cancel()
            if i == 75:
                engine.remove_device("guest")
        for future, prompt, n_new in futures:
            try:
                assert answer_of(future) == expected(prompt, n_new)
                outcomes.append("ok")
            except (infcore.DeviceError, infcore.Cancelled) as error:
                outcomes.append(type(error).__name__)
        wait_until(lambda: engine.n_open == 0, "the end")
        figures = engine.stats()["models"]["t"]
    ended = [figures[how] for how in ("requests", "failed", "cancelled")]
    assert sum(ended) == len(prompts)
    # A cancel may come when its request has ended already, but its caller has not been told.
    assert ended[0] >= outcomes.count("ok") > 100
    assert ended[1] >= outcomes.count("DeviceError")
    assert ended[2] <= outcomes.count("Cancelled")
    assert devices[2].is_clean()
    assert all(run.figures()["sequences"] == 0 for device in devices for run in device.runs)
