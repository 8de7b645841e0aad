"""The live engine with everything at its door, on devices that fail and hang: each request ends once, whoever asked,
however full it is and whatever is taken away meanwhile; and the log tells the same decisions again."""

import asyncio
import random
import threading
import time
import warnings
from collections import Counter

import numpy as np
import pytest
from engine_rig import WAIT_S, model, x_of

import infcore
from infcore import CallableDevice, EmulatedDevice, Engine, sim

SECONDS = 0.2  # that requests keep coming
N_THREADS = N_TASKS = 3


class Flaky:
    """A run that sometimes raises, and sometimes takes longer than it may."""

    def __init__(self, seed, p_fails, p_hangs, end_hangs):
        self.draw, self.p_fails, self.p_hangs, self.end_hangs = random.Random(seed), p_fails, p_hangs, end_hangs

    def __call__(self, name, inputs):
        chance = self.draw.random()
        if chance < self.p_fails:
            raise ValueError("by chance")
        if chance < self.p_fails + self.p_hangs:
            self.end_hangs.wait(0.1)
        time.sleep(self.draw.random() * 0.002)
        return {"y": inputs["x"] * 2}


class Callers:
    """Threads and a loop that submit whatever is allowed, and how their futures ended."""

    def __init__(self, engine, seed):
        self.engine, self.seed = engine, seed
        self.until_s = time.monotonic() + SECONDS
        self.futures, self.told = [], Counter()  # appended to, and counted, by the callers' and the engine's threads
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.submit, args=(at,)) for at in range(N_THREADS)]
        self.threads.append(threading.Thread(target=lambda: asyncio.run(self.loop())))

    def arguments(self, draw, i):
        return {
            "model": draw.choice("aabc"),
            "inputs": x_of(i),
            "work": draw.choice([None, None, None, 0.0, 1e15]),
            "tenant": draw.choice(["", "x", "y"]),
            "tier": draw.randrange(3),
            "deadline_s": draw.choice([None, 1e-4, 0.01, 0.2, 1e6]),
            "defer_s": draw.choice([None, 0.02]),
            "require": draw.choice([None, None, {"zone": "eu"}]),
        }

    def note(self, future):
        with self.lock:
            self.told[id(future)] += 1

    def taken(self, future, draw):
        future.add_done_callback(self.note)
        with self.lock:
            self.futures.append(future)
        if draw.random() < 0.1:
            future.cancel()

    def submit(self, at):
        draw, i = random.Random(f"{self.seed} thread {at}"), 0
        while time.monotonic() < self.until_s:
            i += 1
            try:
                self.taken(self.engine.submit(**self.arguments(draw, i)), draw)
            except infcore.InfcoreError:
                time.sleep(1e-4)

    async def loop(self):
        await asyncio.gather(*(self.asubmit(at) for at in range(N_TASKS)))

    async def asubmit(self, at):
        draw, mine = random.Random(f"{self.seed} task {at}"), []
        while time.monotonic() < self.until_s:
            try:
                mine.append(self.engine.asubmit(**self.arguments(draw, len(mine))))
                self.taken(mine[-1], draw)
            except infcore.InfcoreError:
                pass
            await asyncio.sleep(1e-4 if len(mine) % 8 else 2e-3)
        if mine:
            _, pending = await asyncio.wait(mine, timeout=WAIT_S)
            assert not pending


def engine_for(seed, overflow, log, end_hangs):
    draw = random.Random(seed)
    zones = draw.choice([("eu", "us"), ("us", "eu")])
    devices = [
        CallableDevice(
            f"d{at}", Flaky(f"{seed} {at}", 0.05, 0.01, end_hangs), run_limit_s=0.05, labels={"zone": zones[at]}
        )
        for at in range(2)
    ]
    devices.append(EmulatedDevice("e", base_s=1e-3, per_request_s=1e-4, slots=2, labels={"zone": "eu"}))
    models = [
        model("a", max_batch_size=4, fallback="b"),
        model("b", max_batch_size=8),
        model("c", max_batch_size=3, idempotent=False),
    ]
    admission = infcore.admission_policies()
    draw.shuffle(admission)
    return Engine(
        devices,
        models,
        n_tiers=3,
        max_requests=draw.choice([2, 8, 64]),
        ageing_s=0.01,
        tier_capacity=draw.choice([None, [4, 2, 1]]),
        overload_wait_s=draw.choice([None, 0.002]),
        admission=admission,
        stale=lambda name, inputs: {"y": np.zeros(2, np.float32)} if inputs["x"][0] % 2 == 0 else None,
        overflow=overflow,
        log=log,
    )


@pytest.mark.parametrize(("seed", "overflow"), [(3, "reject"), (4, "block"), (5, "shed_lowest")])
def test_each_ends_once(seed, overflow, tmp_path):
    end_hangs = threading.Event()
    engine = engine_for(seed, overflow, tmp_path / "door.log", end_hangs)
    engine.start()
    callers = Callers(engine, seed)
    for thread in callers.threads:
        thread.start()
    time.sleep(SECONDS / 4)
    engine.add_device(CallableDevice("late", Flaky(f"{seed} late", 0.05, 0.0, end_hangs), labels={"zone": "eu"}))
    engine.lose_device("d0")
    engine.stats()
    time.sleep(SECONDS / 4)
    engine.restore_device("d0")
    engine.unload_model("c")
    engine.remove_device("d1", timeout_s=1.0)
    for thread in callers.threads:
        thread.join(WAIT_S)
        assert not thread.is_alive(), "somebody waits for ever"
    end_hangs.set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a thread that hung a little too long
        engine.close(timeout_s=WAIT_S)
    assert engine.n_open == 0
    assert all(future.done() for future in callers.futures) and len(callers.futures) > 20
    assert [callers.told[id(future)] for future in callers.futures] == [1] * len(callers.futures)
    result = sim.replay(tmp_path / "door.log")
    assert result.equal, result.first_difference
