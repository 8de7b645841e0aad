"""infcore.integrations.ray in a real Ray Serve on this machine: `make test-ray`. Counts and ratios, no clocks.

Each handle made here is a partial view of its own, as are those of the frontend's replicas. What the views of this
process hold is looked at; what replicas got is what they say in their answers.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import cloudpickle, serve
from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle

import infcore

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's workers have no tests to import

PATIENCE_S = 120.0
OURS = {"request_router_class": "infcore.integrations.ray:InfcoreRequestRouter"}


def descendants(pid: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found, pending = set(), [pid]
    while pending:
        pending += (below := children.get(pending.pop(), []))
        found.update(below)
    return found


def until(what: Callable[[], Any]) -> Any:
    """What becomes true some time; how long it takes is not ours to promise."""
    end_s = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < end_s, "it did not come true"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A Ray of our own, its proxy's port; at the end none of its processes is left."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=80 * 2**20,
        _node_ip_address="127.0.0.1",
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        yield port
    finally:
        started = descendants(os.getpid())
        serve.shutdown()
        ray.shutdown()
        until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in started & descendants(os.getpid())))


@ray.remote(num_cpus=0)
class Numbers:
    """0, 1, 2, ... to the replicas, in the order in which they come up."""

    def __init__(self) -> None:
        self.next_one = 0

    def take(self) -> int:
        self.next_one += 1
        return self.next_one - 1


@serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=8)
class Unlike:
    """One request after the other; replica i takes service_s[i], the last one's for those after it; 0: it fails."""

    def __init__(self, numbers: Any, service_s: list[float]) -> None:
        self.index = ray.get(numbers.take.remote())
        self.service_s = service_s[min(self.index, len(service_s) - 1)]
        self.one_at_a_time = asyncio.Lock()

    async def __call__(self, x: Any, infcore: Any = None) -> list[Any]:
        async with self.one_at_a_time:
            await asyncio.sleep(self.service_s)
        if x == "fail" or self.service_s == 0:
            raise ValueError("asked to")
        return [self.index, os.getpid(), x]

    def record_replica_metadata(self) -> dict[str, Any]:
        return {"infcore": {"kind": "slow" if self.index == 0 else "fast", "price_per_hour": 0.5}}

    def record_routing_stats(self) -> dict[str, Any]:
        return {"cpu": 0.25, "of_no_interest": "x"}


@serve.deployment(ray_actor_options={"num_cpus": 0}, num_replicas=2, request_router_config=RequestRouterConfig(**OURS))
class Front:
    """Asks another deployment five times for each request of its own: calls that share its id."""

    def __init__(self, behind: Any) -> None:
        self.behind = behind

    async def __call__(self, request: Any) -> list[list[Any]]:
        x = int(request.query_params["x"])
        return await asyncio.gather(*(self.behind.remote(5 * x + i, infcore={"work": 1.0}) for i in range(5)))


@serve.deployment(ray_actor_options={"num_cpus": 0}, num_replicas=3, request_router_config=RequestRouterConfig(**OURS))
class Many:
    """Two models at a time; says with each answer whether it had to load its model."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    @serve.multiplexed(max_num_models_per_replica=2)
    async def model(self, name: str) -> str:
        self.loaded.append(name)
        await asyncio.sleep(0.05)
        return name

    async def __call__(self) -> tuple[str, int, bool]:
        before = len(self.loaded)
        name = await self.model(serve.get_multiplexed_model_id())
        return name, os.getpid(), len(self.loaded) > before


def run(name: str, service_s: list[float], n_replicas: int, router: dict[str, Any] = OURS) -> None:
    deployment = Unlike.options(num_replicas=n_replicas, request_router_config=RequestRouterConfig(**router))
    serve.run(deployment.bind(Numbers.remote(), service_s), name=name, route_prefix=None)


def new_handle(name: str, deployment: str = "Unlike") -> DeploymentHandle:
    """With a router of its own; Serve's get_app_handle gives the same one again."""
    return DeploymentHandle(deployment, name)


def router_of(handle: Any) -> Any:
    return handle._router._asyncio_router.request_router


def ask_all(handle: Any) -> dict[str, int | None]:
    """Ray's own question to every replica of a handle's router; our view hears the answers."""
    router = router_of(handle)
    answers = router._probe_queue_lens(list(router.curr_replicas.values()), 5)
    found = asyncio.run_coroutine_threadsafe(answers, router._event_loop).result(PATIENCE_S)
    return {replica.replica_id.unique_id: ongoing for replica, ongoing in found}


def is_quiet(handle: Any) -> bool:
    """Nothing is in flight: the replicas say so, and no credit is held (waiting is of our own credit alone)."""
    if any(ongoing != 0 for ongoing in ask_all(handle).values()):
        return False
    rows = router_of(handle)._view.fleet.nodes()
    return len(rows) > 0 and bool((rows["wait_s"] == 0.0).all() and (rows["inflight"] == 0.0).all())


def one_by_one(name: str, n_handles: int, n_each: int) -> tuple[list[Any], Counter[int]]:
    """Requests of several handles, each sending its next when it has its answer; how many each replica had."""

    def client(handle: Any) -> list[int]:
        answers = [handle.remote(i).result(timeout_s=PATIENCE_S) for i in range(n_each)]
        assert [x for _, _, x in answers] == list(range(n_each))
        return [index for index, _, _ in answers]

    handles = [new_handle(name) for _ in range(n_handles)]
    with ThreadPoolExecutor(n_handles) as pool:
        return handles, Counter(index for indices in pool.map(client, handles) for index in indices)


def test_the_slow_replica_gets_fewer_than_under_power_of_two(port):
    service_s, n_handles, n_each = [0.2, 0.02], 3, 80
    counts = {}
    for name, router in (("ours", OURS), ("theirs", {})):
        run(name, service_s, 4, router)
        handles, counts[name] = one_by_one(name, n_handles, n_each)
        assert counts[name].total() == n_handles * n_each
        if name == "ours":
            assert len({id(router_of(handle)._view) for handle in handles}) == n_handles
            until(lambda: all(is_quiet(handle) for handle in handles))  # noqa: B023
            rows = router_of(handles[0])._view.fleet.nodes()
            assert Counter(rows["kind"].tolist()) == {"fast": 3, "slow": 1} and set(rows["price_per_hour"]) == {0.5}
        serve.delete(name)
    print(f"\n   slow replica of four, of {n_handles * n_each}: infcore {counts['ours'][0]}, Ray {counts['theirs'][0]}")
    equal = n_handles * n_each / 4
    assert counts["ours"][0] < counts["theirs"][0] / 2
    assert counts["ours"][0] < equal / 3
    assert min(counts["ours"][i] for i in (1, 2, 3)) > equal / 3


def test_views_that_see_the_same_reports_do_not_all_run_to_one_replica(port):
    run("alike", [0.02], 4)
    _, counts = one_by_one("alike", 8, 40)
    assert counts.total() == 320 and len(counts) == 4
    assert max(counts.values()) <= 1.5 * 320 / 4
    serve.delete("alike")


def test_what_other_views_sent_moves_this_view_away(port):
    run("seen", [0.3], 2)
    first, second = new_handle("seen"), new_handle("seen")
    warm = {first.remote("").result(timeout_s=PATIENCE_S)[0] for _ in range(6)}
    assert warm == {0, 1}
    second.remote("").result(timeout_s=PATIENCE_S)
    burden = [first.remote(i) for i in range(10)]
    until(lambda: sum(ongoing or 0 for ongoing in ask_all(second).values()) >= 8)
    rows = router_of(second)._view.fleet.nodes()
    assert sum(rows["inflight"]) >= 6  # none of them its own
    assert max(Counter(r.result(timeout_s=PATIENCE_S)[0] for r in burden).values()) <= 7
    until(lambda: is_quiet(first) and is_quiet(second))
    serve.delete("seen")


def test_calls_that_share_an_id_over_http(port):
    behind = Unlike.options(num_replicas=3, request_router_config=RequestRouterConfig(**OURS))
    serve.run(Front.bind(behind.bind(Numbers.remote(), [0.05, 0.005])), name="chain", route_prefix="/chain")

    def get(x: int) -> list[list[Any]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/chain?x={x}", timeout=PATIENCE_S) as answer:
            return json.load(answer)

    with ThreadPoolExecutor(4) as pool:
        answers = [row for rows in pool.map(get, range(24)) for row in rows]
    assert sorted(x for _, _, x in answers) == list(range(5 * 24))  # each once
    counts = Counter(index for index, _, _ in answers)
    assert counts[0] < 5 * 24 / 3 and len(counts) == 3
    serve.delete("chain")


def test_what_is_wrong_with_a_request_is_its_own_error(port):
    run("wrong", [0.005], 2, OURS | {"request_router_kwargs": {"policy": "least_outstanding"}})
    handle = new_handle("wrong")
    with pytest.raises(infcore.InvalidArgument, match="work"):
        handle.remote(1, infcore={"work": -1.0}).result(timeout_s=PATIENCE_S)
    with pytest.raises(TypeError, match="colour"):
        handle.remote(1, infcore={"colour": "red"}).result(timeout_s=PATIENCE_S)
    with pytest.raises(ValueError, match="asked to"):
        handle.remote("fail").result(timeout_s=PATIENCE_S)
    assert router_of(handle)._view.router.policy == "least_outstanding"
    assert handle.remote(2, infcore={"work": 2.0, "deadline_s": 1e-6}).result(timeout_s=PATIENCE_S)[2] == 2
    until(lambda: is_quiet(handle))
    serve.delete("wrong")


def test_a_replica_that_fails_at_once_draws_nothing_where_answers_are_watched(port):
    kwargs = {"watch_errors": True, "health": {"eject_s": 600.0, "eject_s_max": 600.0, "slow_factor": 1e6}}
    run("broken", [0.0, 0.02], 3, OURS | {"request_router_kwargs": kwargs})
    handle = new_handle("broken")
    n_failed = 0
    for i in range(120):
        with contextlib.suppress(ValueError):
            n_failed -= handle.remote(i).result(timeout_s=PATIENCE_S)[2] == i
        n_failed += 1
    assert 0 < n_failed <= 10  # five in a row eject it
    until(lambda: all(ongoing == 0 for ongoing in ask_all(handle).values()))
    serve.delete("broken")


def test_requests_taken_back_leave_no_credit(port):
    run("cancel", [0.1], 2)
    handle = new_handle("cancel")
    handle.remote(0).result(timeout_s=PATIENCE_S)
    responses = [handle.remote(i) for i in range(40)]  # 16 fit, the others wait for a place
    for response in responses[::2]:
        response.cancel()
    kept = [response.result(timeout_s=PATIENCE_S)[2] for response in responses[1::2]]
    assert kept == list(range(1, 40, 2))
    until(lambda: is_quiet(handle))
    serve.delete("cancel")


def test_a_replica_that_dies_is_left_and_its_successor_found(port):
    run("mortal", [0.01], 3)
    handles, counts = one_by_one("mortal", 2, 30)
    assert set(counts) == {0, 1, 2}
    index, victim, _ = handles[0].remote("").result(timeout_s=PATIENCE_S)
    before = {view: set(router_of(handle)._by_name) for view, handle in enumerate(handles)}
    burden = [handles[i % 2].remote(i) for i in range(12)]
    os.kill(victim, signal.SIGKILL)  # one of the replicas that this Ray started
    lost = 0
    for response in burden:
        try:
            response.result(timeout_s=PATIENCE_S)
        except ray.exceptions.RayActorError:
            lost += 1
    assert lost <= 8  # no more than it can have had; each ended
    for handle in handles:  # nobody else loses anything, and the dead one is nobody's choice
        answers = [handle.remote(i).result(timeout_s=PATIENCE_S) for i in range(20)]
        assert index not in {i for i, _, _ in answers}
    for view, handle in enumerate(handles):
        until(lambda: len(router_of(handle)._view) == 3 and set(router_of(handle)._by_name) != before[view])  # noqa: B023
        until(lambda: handle.remote("").result(timeout_s=PATIENCE_S)[0] > 2)  # noqa: B023
        until(lambda: is_quiet(handle))  # noqa: B023
    serve.delete("mortal")


def test_a_multiplexed_model_goes_to_where_it_is(port):
    kwargs = {"models_max": 2, "load_s": 0.05}
    config = RequestRouterConfig(**OURS, request_router_kwargs=kwargs)
    serve.run(Many.options(request_router_config=config).bind(), name="many", route_prefix=None)
    models = ["a", "b", "c", "d"]
    handles = [new_handle("many", "Many") for _ in range(2)]
    clients = {
        (h, model): handle.options(multiplexed_model_id=model) for h, handle in enumerate(handles) for model in models
    }

    def all_once() -> list[tuple[str, int, bool]]:
        sent = [(model, client.remote()) for (_, model), client in clients.items()]
        answers = [(model, response.result(timeout_s=PATIENCE_S)) for model, response in sent]
        assert all(model == answer[0] for model, answer in answers)
        return [answer for _, answer in answers]

    all_once()
    until(lambda: not any(loaded for _, _, loaded in all_once() + all_once()))
    loads = sum(loaded for _ in range(15) for _, _, loaded in all_once())
    print(f"\n   loads in {15 * len(clients)} requests for models that are loaded: {loads}")
    assert loads <= 2
    until(lambda: all(is_quiet(handle) for handle in handles))
    serve.delete("many")
