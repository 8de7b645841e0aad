"""What the tests of requests with equal keys share."""

from engine_rig import model, x_of

import infcore

SINGLE = model(max_batch_size=1)


def engine_of(run, models=(SINGLE,), **options):
    cache = infcore.Cache(1 << 16, policy="lru")
    return cache, infcore.Engine(
        [infcore.CallableDevice("d", run=run, run_limit_s=None)], models, cache=cache, **options
    )


def keyed(engine, value, **options):
    return engine.submit("m", x_of(value), key="k", **options)


def in_order(engine):
    """Once this returns, the engine has heard of everything that was said before."""
    engine.stats()  # whose first figures are from before it heard of them
    return engine.stats()["models"].get("m")
