"""What choosing a replica costs in Ray Serve, infcore beside Ray's own power of two: in `make test-ray`'s environment

    .venv-ray/bin/python bench/peers/serve_router.py [--replicas 16] [--requests 20000] [--rounds 5]

One Ray, one deployment of each, both routers as Ray made them, each driven on its own event loop by turns. Processor
time of that thread for each request: choose_replicas alone; and with what either does of itself until the request has
ended (reports of queue lengths, credit, learning). Replicas are real, but nothing is sent to them.
"""

import argparse
import asyncio
import os
import statistics
import time
from typing import Any

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.request_router import PendingRequest

OURS = "infcore.integrations.ray:InfcoreRequestRouter"


class Result:
    """Of a request that ends when told to."""

    def add_done_callback(self, callback: Any) -> None:
        self.end = callback


@serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=100)
class Idle:
    async def __call__(self) -> None: ...


async def measured(router: Any, metadata: Any, n: int, whole: bool) -> float:
    """Microseconds of processor time a request."""
    replicas = list(router.curr_replicas.values())
    began_s = time.thread_time()
    for i in range(n):
        request = PendingRequest(args=[], kwargs={}, metadata=metadata)
        [[first, *_]] = await router.choose_replicas(replicas, request)
        if whole:
            result = Result()
            router.on_send_request(first.replica_id)
            router.on_new_queue_len_info(first.replica_id, 1)
            router.on_request_routed(request, first.replica_id, result)
            if hasattr(result, "end"):
                result.end(None)
            router.decrement_queue_len_cache(first.replica_id)
        if i % 100 == 99:
            await asyncio.sleep(0)  # what was handed to the loop is part of it
    return (time.thread_time() - began_s) / n * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=16)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        routers: dict[str, Any] = {}
        for name, config in (("Ray power_of_two", {}), ("infcore slo_cost", {"request_router_class": OURS})):
            deployment = Idle.options(
                num_replicas=args.replicas, request_router_config=RequestRouterConfig(**config), name=name.split()[0]
            )
            handle = serve.run(deployment.bind(), name=name.split()[0], route_prefix=None)
            handle.remote().result()
            routers[name] = handle._router._asyncio_router.request_router
        metadata = ray.serve._private.common.RequestMetadata(request_id="r", internal_request_id="i")
        for whole in (False, True):
            times: dict[str, list[float]] = {name: [] for name in routers}
            for _ in range(args.rounds):
                for name, router in routers.items():
                    running = measured(router, metadata, args.requests, whole)
                    times[name].append(asyncio.run_coroutine_threadsafe(running, router._event_loop).result())
            for name, each in times.items():
                what = "choose_replicas to the end of the request" if whole else "choose_replicas"
                spread = f"{min(each):.1f} to {max(each):.1f}"
                print(f"{args.replicas} replicas, {what}: {name} {statistics.median(each):.1f} us ({spread})")
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
