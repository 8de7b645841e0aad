"""Ray Serve's and LiteLLM's ways to choose an endpoint, by their own router objects: no HTTP, no network, no replica.

Ray Serve: its power-of-two router over stand-ins for replicas, whose queue lengths are in its cache. LiteLLM: its
Router with a deployment per endpoint and a made-up key; the synchronous call, which is cheaper than the other.
"""

import asyncio
import os
from datetime import datetime, timedelta
from functools import partial
from types import SimpleNamespace

from router_own import service_s
from router_sides import MODEL, Question, the_best

ASKED = [{"role": "user", "content": "hello"}]


def ray_router(n: int):
    from ray.serve._private.common import DeploymentHandleSource, DeploymentID, ReplicaID
    from ray.serve._private.request_router.pow_2_router import PowerOfTwoChoicesRequestRouter

    deployment = DeploymentID(MODEL, "app")

    async def get_queue_len(*, deadline_s):
        return 0

    def replica(i: int):
        return SimpleNamespace(
            replica_id=ReplicaID(str(i), deployment),
            node_id="node",
            availability_zone=None,
            max_ongoing_requests=1000,
            multiplexed_model_ids=set(),
            get_queue_len=get_queue_len,
        )

    async def made():
        # Its clock stands still: what it knows of queues gets stale after 10 s, and answers would renew it.
        router = PowerOfTwoChoicesRequestRouter(
            deployment_id=deployment,
            handle_source=DeploymentHandleSource.REPLICA,
            use_replica_queue_len_cache=True,
            get_curr_time_s=lambda: 0.0,
        )
        router.update_replicas([replica(i) for i in range(n)])
        while any(router.replica_queue_len_cache.get(one) is None for one in router.curr_replicas):
            await asyncio.sleep(0.001)
        return router

    return asyncio.get_event_loop().run_until_complete(made())


def ray_request():
    from ray.serve._private.common import RequestMetadata

    return RequestMetadata(request_id="r", internal_request_id="i")


def ray_choose(n: int, n_blocks: int) -> Question:
    """choose_replicas alone: two candidates, which are not compared."""
    from ray.serve._private.request_router.common import PendingRequest

    router, metadata = ray_router(n), ray_request()
    replicas = list(router.curr_replicas.values())

    async def made():
        return PendingRequest(args=[], kwargs={}, metadata=metadata)

    pending = asyncio.get_event_loop().run_until_complete(made())

    async def decide():
        return await router.choose_replicas(replicas, pending)

    return Question(decide, lambda ranks: len({one.replica_id for one in ranks[0]}) == min(n, 2))


def ray_whole(n: int, n_blocks: int) -> Question:
    """What a handle's call goes through until it has its replica, and the counts before and after."""
    from ray.serve._private.request_router.common import PendingRequest

    router, metadata = ray_router(n), ray_request()

    async def decide():
        pending = PendingRequest(args=[], kwargs={}, metadata=metadata)
        replica = await router._choose_replica_for_request(pending)
        router.on_send_request(replica.replica_id)
        router.decrement_queue_len_cache(replica.replica_id)
        return replica.replica_id

    return Question(decide, router.curr_replicas.__contains__)


def litellm_router(n: int, strategy: str):
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it fetches its table of prices otherwise
    import litellm

    deployments = [
        {
            "model_name": MODEL,
            "litellm_params": {"model": f"openai/{MODEL}", "api_key": "none", "api_base": f"http://127.0.0.1:9/{i}"},
            "model_info": {"id": str(i)},
        }
        for i in range(n)
    ]
    router = litellm.Router(model_list=deployments, routing_strategy=strategy)
    # It keeps 200 numbers as it comes: of more endpoints it forgets who has what open, and chooses busy ones.
    router.cache.in_memory_cache.max_size_in_memory = max(200, 2 * n)
    return router


def litellm_call(endpoint: int) -> dict:
    """What LiteLLM's logging handlers are told of a request to the endpoint."""
    return {"litellm_params": {"metadata": {"model_group": MODEL}, "model_info": {"id": str(endpoint)}}}


def litellm_question(n: int, decide, best: int | None, router) -> Question:
    def right(deployment) -> bool:
        endpoint = int(deployment["model_info"]["id"])
        return 0 <= endpoint < n if best is None else endpoint == best

    return Question(decide, right, close=router.reset)


def litellm_whole(n: int, best: int | None, router) -> Question:
    """What its completion() asks for where a request goes: who is healthy, in order and allowed; then the strategy."""

    def decide():
        return router.get_available_deployment(MODEL, messages=ASKED, request_kwargs={})

    return litellm_question(n, decide, best, router)


def litellm_strategy(n: int, best: int, router, strategy) -> Question:
    """The strategy alone, among deployments that were found healthy before."""
    healthy = router.get_model_list(model_name=MODEL)

    def decide():
        return strategy(MODEL, healthy)

    return litellm_question(n, decide, best, router)


def litellm_shuffle(n: int, n_blocks: int) -> Question:
    return litellm_whole(n, None, litellm_router(n, "simple-shuffle"))


def least_busy_router(n: int):
    """A request is open at every endpoint but one."""
    router = litellm_router(n, "least-busy")
    for endpoint in set(range(n)) - {the_best(n)}:
        router.leastbusy_logger.log_pre_api_call(MODEL, [], litellm_call(endpoint))
    return router


def latency_router(n: int):
    """Every endpoint has answered ten times, as many as it keeps."""
    router, now = litellm_router(n, "latency-based-routing"), datetime.now()
    for endpoint, takes_s in enumerate(service_s(n)):
        for _ in range(10):
            end = now + timedelta(seconds=takes_s)
            router.lowestlatency_logger.log_success_event(litellm_call(endpoint), None, now, end)
    return router


def litellm_least_busy(n: int, n_blocks: int) -> Question:
    return litellm_whole(n, the_best(n), least_busy_router(n))


def litellm_least_busy_alone(n: int, n_blocks: int) -> Question:
    router = least_busy_router(n)
    return litellm_strategy(n, the_best(n), router, router.leastbusy_logger.get_available_deployments)


def litellm_latency(n: int, n_blocks: int) -> Question:
    return litellm_whole(n, the_best(n), latency_router(n))


def litellm_latency_alone(n: int, n_blocks: int) -> Question:
    router = latency_router(n)
    strategy = partial(router.lowestlatency_logger.get_available_deployments, messages=ASKED)
    return litellm_strategy(n, the_best(n), router, strategy)


WAYS = {
    "Ray Serve, choose_replicas": (ray_choose, "ray"),
    "Ray Serve, whole path and back": (ray_whole, "ray"),
    "LiteLLM simple-shuffle": (litellm_shuffle, "litellm"),
    "LiteLLM least-busy": (litellm_least_busy, "litellm"),
    "LiteLLM least-busy, strategy alone": (litellm_least_busy_alone, "litellm"),
    "LiteLLM latency-based": (litellm_latency, "litellm"),
    "LiteLLM latency-based, strategy alone": (litellm_latency_alone, "litellm"),
}
