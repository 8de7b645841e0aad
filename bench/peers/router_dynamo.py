"""NVIDIA Dynamo's ways to choose an endpoint, in process: its SelectionService (prefix and load), and its RadixTree.

SelectionService is told by KV events, as engines publish them, that every endpoint holds the prompt; every endpoint but
one has a request. What it spends idle, a fiftieth of a core or two with 1,024 endpoints, is in its CPU time.
"""

import asyncio
import time

import numpy as np
import radix_sides
from router_own import matched
from router_sides import BLOCK_SIZE, MODEL, Question, tokens

TOLD_WITHIN_S = 120.0


class Selection:
    def __init__(self, n: int, n_blocks: int):
        import zmq
        from dynamo._core import SelectionService

        self.n, self.request = n, {"model_name": MODEL, "token_ids": tokens(n_blocks)}
        self.service = SelectionService()
        self.socket = zmq.Context.instance().socket(zmq.XPUB)  # as PUB, and it says who has subscribed
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, int(1000 * TOLD_WITHIN_S))
        self.port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        asyncio.get_event_loop().run_until_complete(self._made(n_blocks))

    async def _made(self, n_blocks: int) -> None:
        for endpoint in range(self.n):
            await self.service.upsert_worker(
                {
                    "worker_id": endpoint,
                    "model_name": MODEL,
                    "block_size": BLOCK_SIZE,
                    "endpoint": f"http://127.0.0.1:9/{endpoint}",
                    "kv_events_endpoint": f"tcp://127.0.0.1:{self.port}",  # one for all: all hold the same
                    "total_kv_blocks": 1_000_000,
                    "max_num_batched_tokens": 8192,
                }
            )
        for _ in range(self.n):
            if (said := self.socket.recv()) != b"\x01":
                raise AssertionError(f"a worker subscribed with {said!r}, not to all events")
        self._tell(n_blocks)
        until_s = time.monotonic() + TOLD_WITHIN_S
        while (n_told := await self._n_holding(n_blocks)) < self.n:
            if time.monotonic() > until_s:
                raise AssertionError(f"{n_told} of {self.n} workers were told within {TOLD_WITHIN_S} s")
            await asyncio.sleep(0.1)
        for seed in range(self.n - 1):
            await self.service.select_and_reserve(self.request | {"token_ids": tokens(4, seed=1000 + seed)})
        (loads,) = self.service.loads()
        (self.idle,) = (one["worker_id"] for one in loads["loads"] if one["active_requests"] == 0)

    async def _n_holding(self, n_blocks: int) -> int:
        scores = await self.service.overlap_scores(self.request)
        return sum(worker["device_blocks"] == n_blocks for worker in scores["workers"])

    def _tell(self, n_blocks: int) -> None:
        """A batch as vLLM writes it: time, events, rank. An event: kind, names, parent, tokens, block size, adapter."""
        import msgspec

        names = list(range(1, n_blocks + 1))
        stored = ["BlockStored", names, None, self.request["token_ids"], BLOCK_SIZE, None]
        batch = msgspec.msgpack.encode([time.time(), [stored], 0])
        self.socket.send_multipart([b"", bytes(8), batch])

    def right(self, answer: dict) -> bool:
        held = answer["overlap"]["longest_matched"]
        return answer["worker_id"] == self.idle and held == len(self.request["token_ids"])

    def close(self) -> None:
        self.service.shutdown()
        self.socket.close(0)


def dynamo_select(n: int, n_blocks: int) -> Question:
    """select: nothing is booked."""
    made = Selection(n, n_blocks)
    select, request = made.service.select, made.request

    async def decide():
        return await select(request)

    return Question(decide, made.right, close=made.close)


def dynamo_hashes(n: int, n_blocks: int) -> Question:
    """select, where the prompt was hashed before: by block alone, and chained, as it names them itself."""
    from dynamo._core import compute_block_hash_for_seq

    made = Selection(n, n_blocks)
    service, prompt = made.service, made.request["token_ids"]

    async def chained():
        answer = await service.select_and_reserve(made.request)
        await service.free_reservation(answer["selection_id"])
        return answer["sequence_hashes"]

    alone = np.array(compute_block_hash_for_seq(prompt, BLOCK_SIZE), np.uint64).view(np.int64).tolist()
    chain = asyncio.get_event_loop().run_until_complete(chained())
    request = {"model_name": MODEL, "block_hashes": alone, "sequence_hashes": chain, "isl_tokens": len(prompt)}

    async def decide():
        return await service.select(request)

    return Question(decide, made.right, close=made.close)


def dynamo_reserve(n: int, n_blocks: int) -> Question:
    """select_and_reserve, then free_reservation: the counterpart of pick and done."""
    made = Selection(n, n_blocks)
    reserve, free, request = made.service.select_and_reserve, made.service.free_reservation, made.request

    async def decide():
        answer = await reserve(request)
        await free(answer["selection_id"])
        return answer

    return Question(decide, made.right, close=made.close)


def row_of(scores: dict) -> list[tuple[int, int]]:
    return sorted((worker, held) for (worker, _), held in scores.items())


def dynamo_match(n: int, n_blocks: int) -> Question:
    side = radix_sides.Dynamo()
    return matched(side, n, n_blocks, side.reader, row_of)


def dynamo_match_unread(n: int, n_blocks: int) -> Question:
    """Its answer is left as it is, in Rust: nobody knows yet who holds what."""
    side = radix_sides.Dynamo()
    return matched(
        side, n, n_blocks, lambda names: lambda: side.tree.find_matches(names), lambda answer: row_of(answer.scores)
    )


WAYS = {
    "Dynamo select": (dynamo_select, "ai-dynamo-runtime"),
    "Dynamo select, hashes": (dynamo_hashes, "ai-dynamo-runtime"),
    "Dynamo select_and_reserve, free": (dynamo_reserve, "ai-dynamo-runtime"),
    "Dynamo find_matches and its scores": (dynamo_match, "ai-dynamo-runtime"),
    "Dynamo find_matches": (dynamo_match_unread, "ai-dynamo-runtime"),
}
