"""What routers.py asks of each side: decisions one after another, timed alike whoever makes them.

A way (router_own.py, router_peers.py, router_dynamo.py) makes a Question for so many endpoints and a prompt of so many
blocks: what decides, and which answers are right. Wherever a way can tell, one endpoint is the best (idle, or the
quickest) and must be chosen, before the clock runs and after.
"""

import asyncio
import inspect
import platform
import random
import time
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import NamedTuple

BLOCK_SIZE, MODEL, N_CHUNKS = 16, "m", 7


class Question(NamedTuple):
    decide: Callable  # makes a decision and, where the way is of both, takes it back; may be a coroutine function
    right: Callable[[object], bool]  # of an answer of decide
    n_decisions: int = 1  # in one call
    close: Callable[[], object] = lambda: None


Way = Callable[[int, int], Question]


def the_best(n_endpoints: int) -> int:
    return n_endpoints // 2


def tokens(n_blocks: int, seed: int = 5) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(100_000) for _ in range(n_blocks * BLOCK_SIZE)]


def looped(decide: Callable, loop: asyncio.AbstractEventLoop) -> Callable[[int], object]:
    """Decides n times and returns the last answer."""
    if not inspect.iscoroutinefunction(decide):

        def one_by_one(n: int):
            for _ in range(n - 1):
                decide()
            return decide()

        return one_by_one

    async def awaited(n: int):
        for _ in range(n - 1):
            await decide()
        return await decide()

    return lambda n: loop.run_until_complete(awaited(n))


class Side:
    """Measures a way; keeps what it made for the last numbers of endpoints and blocks."""

    def __init__(self, way: Way):
        self.way, self.loop = way, asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.asked: tuple[int, int] | None = None

    def measure(self, task: dict) -> dict[str, float]:
        asked = task["endpoints"], task["blocks"]
        if asked != self.asked:
            if self.asked is not None:
                self.question.close()
            self.question, self.asked = self.way(*asked), asked
            self.run = looped(self.question.decide, self.loop)
        return self.timed(task["chunk_s"])

    def close(self) -> None:
        if self.asked is not None:
            self.question.close()
        asyncio.set_event_loop(None)
        self.loop.close()

    def timed(self, chunk_s: float) -> dict[str, float]:
        """CPU time of the whole process and the median of the chunks' wall time, microseconds a decision."""
        self.check(self.run(1))
        n = self.calls_in(chunk_s)
        chunks, cpu_ns = [], time.process_time_ns()
        for _ in range(N_CHUNKS):
            start = time.perf_counter_ns()
            answer = self.run(n)
            chunks.append(time.perf_counter_ns() - start)
        cpu_ns = time.process_time_ns() - cpu_ns
        self.check(answer)
        decisions = n * self.question.n_decisions
        return {"cpu_us": cpu_ns / (N_CHUNKS * decisions * 1000), "wall_us": median(chunks) / (decisions * 1000)}

    def calls_in(self, chunk_s: float) -> int:
        n = 1
        while True:
            start = time.perf_counter()
            self.run(n)
            if time.perf_counter() - start >= chunk_s:
                return n
            n *= 2

    def check(self, answer: object) -> None:
        if not self.question.right(answer):
            raise AssertionError(f"{self.asked[0]} endpoints, {self.asked[1]} blocks: {str(answer)[:200]} is not right")


def side(name: str) -> tuple[Callable[[dict], dict[str, float]], str]:
    """What measures the way of that name, and the release of whose way it is."""
    import router_own

    if name in router_own.WAYS:
        release = version("infcore") if name.startswith("infcore") else platform.python_version()
        return Side(router_own.WAYS[name]).measure, release
    import router_dynamo
    import router_peers

    way, package = (router_peers.WAYS | router_dynamo.WAYS)[name]
    return Side(way).measure, version(package)
