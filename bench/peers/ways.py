"""The peers' batchers as closed_loop.py wants them: a context that takes run(stacked inputs) and gives `await call(x)`.

In process: no HTTP, no serialisation, no replica of its own; what is measured is the code that makes batches. Each gets
at most 64 requests a batch and runs the model in a thread, outside the event loop.
"""

import asyncio
from contextlib import contextmanager

import numpy as np
from closed_loop import MAX_BATCH, by_hand, by_infcore

# How long they wait for more. Ray: its default; .0, .1 and 1 ms made no difference beyond the noise, in what it serves
# and in what it costs. batched: its default of 5 ms serves half of what .01 to .5 ms do.
RAY_WAIT_S, BATCHED_WAIT_MS = 0.01, 0.1


def _rows(run, xs):
    return list(run(np.stack(xs)))


@contextmanager
def bentoml(run):
    """BentoML's adaptive batching: the dispatcher behind @bentoml.api(batchable=True)."""
    from bentoml._internal.marshal.dispatcher import CorkDispatcher

    def unavailable():
        raise RuntimeError("BentoML gave a request up")

    def call(xs):
        return _rows(run, xs)

    # 60 s: its default, the goal that it may wait within; it never gives up a request of these runs.
    dispatcher = CorkDispatcher(60_000, MAX_BATCH, fallback=unavailable, get_batch_size=lambda x: 1)
    try:
        yield dispatcher(call)
    finally:
        dispatcher.shutdown()


@contextmanager
def ray_serve(run):
    """Ray Serve's @serve.batch. It wants to be inside a replica, to compare two settings: told that it is."""
    from ray import serve
    from ray.serve._private.common import DeploymentID, ReplicaID
    from ray.serve._private.config import DeploymentConfig
    from ray.serve.context import _set_internal_replica_context
    from ray.serve.schema import ReplicaRank

    _set_internal_replica_context(
        replica_id=ReplicaID("replica", DeploymentID("model", "app")),
        servable_object=None,
        _deployment_config=DeploymentConfig(max_ongoing_requests=1000),
        rank=ReplicaRank(rank=0, node_rank=0, local_rank=0),
        world_size=1,
    )
    loop = asyncio.get_running_loop()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=RAY_WAIT_S)
    async def call(xs):
        return await loop.run_in_executor(None, _rows, run, xs)

    yield call


@contextmanager
def batched(run):
    """batched.aio.dynamically, its small-batch rule as it comes."""
    import batched as package

    loop = asyncio.get_running_loop()

    async def call(xs):
        return await loop.run_in_executor(None, _rows, run, xs)

    yield package.aio.dynamically(call, batch_size=MAX_BATCH, timeout_ms=BATCHED_WAIT_MS)


# Name in the tables: the way, the package whose release is told.
WAYS = {
    "by hand": (by_hand, None),
    "infcore": (by_infcore, "infcore"),
    "BentoML": (bentoml, "bentoml"),
    "Ray Serve": (ray_serve, "ray"),
    "batched": (batched, "batched"),
}
