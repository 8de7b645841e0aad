"""The ways of infcore, and of plain Python, to choose an endpoint: what routers.py measures peers against.

pick and done as bench/micro/test_router.py has them: done releases and does not learn, but for the way that says so.
infcore is imported where it runs: the peers' environment has none.
"""

import radix_sides
from router_sides import BLOCK_SIZE, MODEL, Question, the_best, tokens

N_AT_ONCE = 1000
QUICK_S, SLOW_S = 0.001, 0.02  # one endpoint is 20 times as quick as the others, which are alike but for microseconds


def service_s(n: int) -> list[float]:
    return [QUICK_S if endpoint == the_best(n) else SLOW_S + 1e-6 * endpoint for endpoint in range(n)]


def least_by_hand(n: int, n_blocks: int) -> Question:
    """Who has least open: a dict and min(). One endpoint is idle."""
    open_at = {endpoint: int(endpoint != the_best(n)) for endpoint in range(n)}

    def decide():
        endpoint = min(open_at, key=open_at.__getitem__)
        open_at[endpoint] += 1
        open_at[endpoint] -= 1
        return endpoint

    return Question(decide, lambda endpoint: endpoint == the_best(n))


def cost_by_hand(n: int, n_blocks: int) -> Question:
    """Who is done first, by what is open there and what a request takes there."""
    open_at, takes_s = [1] * n, service_s(n)

    def decide():
        endpoint = min(range(n), key=lambda i: (open_at[i] + 1) * takes_s[i])
        open_at[endpoint] += 1
        open_at[endpoint] -= 1
        return endpoint

    return Question(decide, lambda endpoint: endpoint == the_best(n))


def router_of(n: int, policy: str, health: bool = False):
    import infcore

    fleet = infcore.Fleet(max_nodes=max(n, 64))
    for endpoint in range(n):
        fleet.load_model(fleet.add(f"n{endpoint}"), MODEL)
    router = infcore.Router(fleet, policy=policy, health=health)
    for endpoint, takes_s in enumerate(service_s(n)):
        router.set_prior(MODEL, endpoint, base_s=takes_s, per_work_s=takes_s / 100_000)
    return router, fleet


def asked_of(router, right, **arguments) -> Question:
    pick, done = router.pick, router.done

    def decide():
        decision = pick(MODEL, **arguments)
        done(decision, ok=False)
        return decision

    return Question(decide, lambda decision: right(decision.node))


def power_of_two(n: int, n_blocks: int) -> Question:
    return asked_of(router_of(n, "power_of_two")[0], lambda node: 0 <= node < n)


def least_outstanding(n: int, n_blocks: int) -> Question:
    """One endpoint is idle: each of the others has a request."""
    router, _ = router_of(n, "least_outstanding")
    opened = [router.pick(MODEL) for _ in range(n - 1)]
    busy = {decision.node for decision in opened}
    return asked_of(router, lambda node: node not in busy and len(busy) == n - 1)._replace(close=opened.clear)


def slo_cost(n: int, n_blocks: int) -> Question:
    return asked_of(router_of(n, "slo_cost")[0], lambda node: node == the_best(n))


def signalling(n: int, health: bool):
    router, fleet = router_of(n, "slo_cost", health)
    for endpoint in range(n):
        fleet.signal(endpoint, gpu=endpoint % 7 / 10, network=endpoint % 5 / 10)
    return router


def slo_cost_signals(n: int, n_blocks: int) -> Question:
    """Every endpoint has said how busy it is, and the request has a deadline."""
    return asked_of(signalling(n, health=False), lambda node: node == the_best(n), deadline_s=60.0)


def slo_cost_learning(n: int, n_blocks: int) -> Question:
    """The same, and done says how long it took: the latency curve learns, the endpoint is judged beside its peers."""
    router, takes_s = signalling(n, health=True), service_s(n)
    pick, done = router.pick, router.done

    def decide():
        decision = pick(MODEL, deadline_s=60.0)
        done(decision, service_s=takes_s[decision.node])
        return decision

    return Question(decide, lambda decision: 0 <= decision.node < n)  # now and then it tries one that it knows less of


def holding(n: int, n_blocks: int):
    """A router whose every endpoint holds the prompt, its blocks, and how much work it is."""
    import infcore

    router, _ = router_of(n, "slo_cost")
    blocks = infcore.block_hashes(tokens(n_blocks), BLOCK_SIZE)
    for endpoint in range(n):
        router.prefix.stored(endpoint, blocks)
    return router, blocks, float(n_blocks * BLOCK_SIZE)


def slo_cost_blocks(n: int, n_blocks: int) -> Question:
    router, blocks, work = holding(n, n_blocks)
    return asked_of(router, lambda node: node == the_best(n), work=work, blocks=blocks)


def slo_cost_tokens(n: int, n_blocks: int, prompt) -> Question:
    """Its blocks are hashed each time."""
    import infcore

    router, _, work = holding(n, n_blocks)
    hashed, pick, done = infcore.block_hashes, router.pick, router.done

    def decide():
        decision = pick(MODEL, work=work, blocks=hashed(prompt, BLOCK_SIZE))
        done(decision, ok=False)
        return decision

    return Question(decide, lambda decision: decision.node == the_best(n))


def slo_cost_list(n: int, n_blocks: int) -> Question:
    return slo_cost_tokens(n, n_blocks, tokens(n_blocks))


def slo_cost_array(n: int, n_blocks: int) -> Question:
    import numpy as np

    return slo_cost_tokens(n, n_blocks, np.array(tokens(n_blocks), np.int32))


def slo_cost_many(n: int, n_blocks: int) -> Question:
    import numpy as np

    router, _ = router_of(n, "slo_cost")
    work = np.ones(N_AT_ONCE)

    def decide():
        decisions = router.pick_many(MODEL, work)
        router.done(decisions, ok=False)
        return decisions

    def right(decisions) -> bool:  # most go to the quickest, some to others once it has a queue
        node = decisions.node
        return len(node) == N_AT_ONCE and np.bincount(node, minlength=n).argmax() == the_best(n)

    return Question(decide, right, N_AT_ONCE)


def matched(side, n: int, n_blocks: int, reader, row_of) -> Question:
    """Who holds these blocks: every endpoint does, all of them. side is one of radix_sides, Dynamo's or infcore's."""
    names = radix_sides.blocks((0,) * n_blocks)
    for endpoint in range(n):
        side.stored(endpoint, names, None)
    everyone = [(endpoint, n_blocks) for endpoint in range(n)]
    return Question(reader(names), lambda answer: row_of(answer) == everyone)


def match(n: int, n_blocks: int) -> Question:
    def row_of(answer):
        nodes, held = answer
        return list(zip(nodes.tolist(), held.tolist(), strict=True))

    side = radix_sides.Infcore(n)
    return matched(side, n, n_blocks, side.reader, row_of)


WAYS = {
    "plain Python, least open": least_by_hand,
    "plain Python, lowest cost": cost_by_hand,
    "infcore power_of_two": power_of_two,
    "infcore least_outstanding": least_outstanding,
    "infcore slo_cost": slo_cost,
    "infcore slo_cost, signals and deadline": slo_cost_signals,
    "infcore slo_cost, the same and learning": slo_cost_learning,
    "infcore slo_cost, pick_many": slo_cost_many,
    "infcore slo_cost, blocks": slo_cost_blocks,
    "infcore slo_cost, list of tokens": slo_cost_list,
    "infcore slo_cost, array of tokens": slo_cost_array,
    "infcore match": match,
}
