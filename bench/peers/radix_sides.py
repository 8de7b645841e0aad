"""What radix.py asks of Dynamo's RadixTree and of infcore's prefix index, each in its own environment.

Both are told the same events, drawn from a seed, and asked the same prefixes. Blocks leave from the ends of what a node
holds, as engines evict: there the two promise the same scores.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from statistics import median

N_NODES, N_FAMILIES = 40, 12
Match = list[tuple[int, int]]


def block(path: tuple[int, ...]) -> int:
    """A hash of 64 bits for each path of choices, the same in every process: SplitMix64's finaliser, chained."""
    name = 1
    for choice in path:
        name = (name * 0x9E3779B97F4A7C15 + choice + 1) & 0xFFFFFFFFFFFFFFFF
        name = ((name ^ (name >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        name = ((name ^ (name >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        name ^= name >> 31
    return name


def blocks(path: tuple[int, ...]) -> list[int]:
    return [block(path[: i + 1]) for i in range(len(path))]


def drawn_path(draw: random.Random) -> tuple[int, ...]:
    n = draw.randint(1, 24)
    return (draw.randrange(N_FAMILIES), *(draw.randrange(2) if i % 5 == 4 else 0 for i in range(n - 1)))


def operations(seed: int, n: int) -> Iterator[tuple]:
    """("stored", node, blocks, parent), ("removed", node, blocks), ("cleared", node), ("match", blocks)."""
    draw = random.Random(seed)
    held: list[set[tuple[int, ...]]] = [set() for _ in range(N_NODES)]
    for _ in range(n):
        node, what = draw.randrange(N_NODES), draw.random()
        own = held[node]
        if what < 0.55:
            path = drawn_path(draw)
            known = 0  # engines tell of what is new, after what they hold
            while known < len(path) and path[: known + 1] in own:
                known += 1
            if draw.random() < 0.2:
                known = 0  # or all again
            if known < len(path):
                yield "stored", node, blocks(path)[known:], block(path[:known]) if known else None
            own.update(path[: i + 1] for i in range(len(path)))
        elif what < 0.9 and own:
            path = draw.choice(sorted(own))
            gone: list[tuple[int, ...]] = []
            while any(other[: len(path)] == path and other != path for other in own):
                path = draw.choice(sorted(other for other in own if other[: len(path)] == path and other != path))
            for _ in range(draw.randint(1, 8)):  # from its end, as long as nothing else comes after
                gone.append(path)
                own.discard(path)
                path = path[:-1]
                if not path or any(other[: len(path)] == path and other != path for other in own):
                    break
            yield "removed", node, [block(each) for each in gone]
        elif what < 0.92:
            own.clear()
            yield "cleared", node
        yield "match", blocks(drawn_path(draw))


class Dynamo:
    def __init__(self) -> None:
        from dynamo._core import RadixTree

        self.tree, self.n_events = RadixTree(), 0

    def _apply(self, node: int, data: dict | str) -> None:
        self.n_events += 1
        self.tree.apply_event(node, json.dumps({"event_id": self.n_events, "data": data}).encode())

    def stored(self, node: int, names: list[int], parent: int | None) -> None:
        rows = [{"block_hash": name, "tokens_hash": name} for name in names]
        self._apply(node, {"stored": {"parent_hash": parent, "blocks": rows}})

    def removed(self, node: int, names: list[int]) -> None:
        self._apply(node, {"removed": {"block_hashes": names}})

    def cleared(self, node: int) -> None:
        self._apply(node, "cleared")

    def match(self, names: list[int]) -> Match:
        return sorted((worker, held) for (worker, _), held in self.tree.find_matches(names).scores.items())

    def reader(self, names: list[int]) -> Callable[[], object]:
        return lambda: self.tree.find_matches(names).scores


class Infcore:
    def __init__(self, n_nodes: int = N_NODES) -> None:
        import infcore

        fleet = infcore.Fleet(max_nodes=max(n_nodes, 64))
        for node in range(n_nodes):
            fleet.add(f"n{node}")
        self.index = infcore.Router(fleet).prefix

    def stored(self, node: int, names: list[int], parent: int | None) -> None:
        assert self.index.stored(node, names, after=parent) == len(names)

    def removed(self, node: int, names: list[int]) -> None:
        assert self.index.removed(node, names) == len(names)

    def cleared(self, node: int) -> None:
        self.index.cleared(node)

    def match(self, names: list[int]) -> Match:
        nodes, held = self.index.match(names)
        return list(zip(nodes.tolist(), held.tolist(), strict=True))

    def reader(self, names: list[int]) -> Callable[[], object]:
        import numpy as np

        row = np.array(names, np.uint64)
        return lambda: self.index.match(row)


def scores(side: Dynamo | Infcore, seed: int, n: int) -> list[Match]:
    found = []
    for what, *arguments in operations(seed, n):
        if what == "match":
            found.append(side.match(*arguments))
        else:
            getattr(side, what)(*arguments)
    return found


def speed_ns(side: Dynamo | Infcore, n_nodes: int, n_blocks: int, loops: int) -> float:
    """The median of nine rounds: one match of n_blocks that n_nodes hold."""
    names = blocks((0,) * n_blocks)
    for node in range(n_nodes):
        side.stored(node, names, None)
    read = side.reader(names)
    read()
    rounds = []
    for _ in range(9):
        start = time.perf_counter_ns()
        for _ in range(loops):
            read()
        rounds.append((time.perf_counter_ns() - start) / loops)
    assert side.match(names) == [(node, n_blocks) for node in range(n_nodes)]
    return median(rounds)


def side_of(name: str, n_nodes: int = N_NODES) -> Dynamo | Infcore:
    return Dynamo() if name.startswith("Dynamo") else Infcore(n_nodes)


def measure(name: str, task: dict) -> dict:
    if task["what"] == "scores":
        return {"scores": scores(side_of(name), task["seed"], task["n"])}
    side = side_of(name, task["nodes"])
    return {"ns": speed_ns(side, task["nodes"], task["blocks"], task["loops"])}
