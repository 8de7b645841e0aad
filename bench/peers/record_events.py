"""Records KV events of the engines' own code: python bench/peers/record_events.py vllm|sglang OUT.jsonl.gz FOLDER

Requests with shared beginnings come and go in a small cache, so that blocks are stored after others, reused, and
evicted; at the end it is reset. A line is an event batch as a subscriber decodes it from msgpack, or a prompt and how
many of its leading blocks the engine itself finds: what a router that was told the events must say, too.

vllm: its block pool (vllm_pool.py), with msgspec, pyzmq, cbor2 and xxhash. sglang: its radix cache, out of its wheel as
well, with msgspec, pyzmq, pydantic and PyTorch; its hash in C++ is replaced by SHA-256 of the same chain. FOLDER holds
the modules; those of vLLM are fetched there.
"""

import gzip
import hashlib
import importlib
import json
import random
import sys
from array import array
from pathlib import Path
from types import SimpleNamespace

import vllm_pool

BLOCK_SIZE, N_BLOCKS, N_REQUESTS = 16, 96, 60
SGLANG = [f"sglang.srt.{name}" for name in (
    "mem_cache.radix_cache", "mem_cache.base_prefix_cache", "mem_cache.events", "mem_cache.utils",
    "mem_cache.evict_policy", "mem_cache.cache_init_params", "disaggregation.kv_events",
)]  # fmt: skip


class Vllm:
    release = f"vllm {vllm_pool.RELEASE}"

    def __init__(self, folder: Path) -> None:
        vllm_pool.MODULES.append(vllm_pool.EVENTS)
        vllm_pool.fetch(folder, sys.executable)
        pools, kv, hashing = vllm_pool.load(folder)
        kv.envs = SimpleNamespace(VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES=True)  # vLLM's default
        kv.init_none_hash(hashing.sha256)
        self.events = sys.modules[vllm_pool.EVENTS]
        self.hasher = kv.get_request_block_hasher(BLOCK_SIZE, hashing.sha256)
        self.pool = pools.BlockPool(N_BLOCKS + 1, True, BLOCK_SIZE, enable_kv_cache_events=True)

    def _request(self, tokens: list[int]):
        request = vllm_pool.request(tokens)
        request.session_id = None
        request.block_hashes = self.hasher(request)
        return request

    def _found(self, request) -> list:
        blocks = []
        for name in request.block_hashes:
            cached = self.pool.get_cached_block(name, [0])
            if not cached:
                break
            blocks += cached
        return blocks

    def run(self, tokens: list[int]) -> None:
        request = self._request(tokens)
        hit = self._found(request)
        self.pool.touch(hit)
        fresh = self.pool.get_new_blocks(len(request.block_hashes) - len(hit))
        if fresh:
            blocks = hit + fresh
            self.pool.cache_full_blocks(request, blocks, len(hit), len(blocks), BLOCK_SIZE, 0)
        self.pool.free_blocks(reversed(hit + fresh))

    def n_held(self, tokens: list[int]) -> int:
        return len(self._found(self._request(tokens)))

    def reset(self) -> None:
        assert self.pool.reset_prefix_cache()

    def take_events(self) -> list:
        return self.pool.take_events()


class Sglang:
    release = "sglang 0.5.23"

    def __init__(self, folder: Path) -> None:
        sys.meta_path.insert(0, vllm_pool.Finder(folder, SGLANG))
        self.radix, self.base, _, utils, *_, self.events = map(importlib.import_module, SGLANG)
        utils.get_native_hash = self._chain
        allocator = SimpleNamespace(device="cpu", free_segment=lambda indices, start_pos: None)
        self.cache = self.radix.RadixCache.create_simulated(
            page_size=BLOCK_SIZE, enable_kv_cache_events=True, mock_allocator=allocator
        )

    @staticmethod
    def _chain(key, prior: bytes | None, page_size: int | None) -> str | list[str]:
        names, tokens = [], key.raw_token_ids()
        for at in range(0, len(tokens), page_size or len(tokens)):
            page = tokens[at : at + (page_size or len(tokens))]
            prior = hashlib.sha256((prior or b"") + array("q", page).tobytes()).digest()
            names.append(prior.hex())
        return names if page_size else names[-1]

    def _key(self, tokens: list[int]):
        return self.radix.RadixKey(array("q", tokens[: len(tokens) // BLOCK_SIZE * BLOCK_SIZE]))

    def run(self, tokens: list[int]) -> None:
        key = self._key(tokens)
        if not len(key):
            return
        too_many = self.cache.total_size() + len(key) - self.n_held(tokens) * BLOCK_SIZE - N_BLOCKS * BLOCK_SIZE
        if too_many > 0:
            self.cache.evict(self.base.EvictParams(num_tokens=too_many))
        self.cache.insert(self.base.InsertParams(key=key))

    def n_held(self, tokens: list[int]) -> int:
        key = self._key(tokens)
        if not len(key):
            return 0
        return self.cache.match_prefix(self.base.MatchPrefixParams(key=key)).device_prefix_len // BLOCK_SIZE

    def reset(self) -> None:
        self.cache.reset()

    def take_events(self) -> list:
        return self.cache.kv_events.take()


def prompt(draw: random.Random) -> list[int]:
    """One of four beginnings of up to 12 blocks, cut anywhere, and then its own."""
    family = draw.randrange(4)
    n_shared = draw.randint(1, 12) * BLOCK_SIZE
    shared = [family * 1000 + i % 997 for i in range(n_shared)]
    return shared + [draw.randrange(50_000) for _ in range(draw.randint(0, 6 * BLOCK_SIZE))]


def main(engine: Vllm | Sglang, out: Path) -> None:
    import msgspec

    draw = random.Random(7)
    prompts = [prompt(draw) for _ in range(N_REQUESTS)]
    lines: list[dict] = []

    def tell(ts: float) -> None:
        batch = engine.events.KVEventBatch(ts=ts, events=engine.take_events())
        if batch.events:
            lines.append({"batch": msgspec.msgpack.decode(msgspec.msgpack.encode(batch))})

    def look(tokens: list[int]) -> None:
        lines.append({"tokens": tokens, "held": engine.n_held(tokens)})

    for at, tokens in enumerate(prompts):
        engine.run(tokens)
        tell(float(at))
        look(draw.choice(prompts[: at + 1]))
    engine.reset()
    tell(float(N_REQUESTS))
    look(prompts[-1])
    with gzip.GzipFile(out, "wb", mtime=0) as file:
        file.write("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode())
    print(f"{out}: {len(lines)} lines, {out.stat().st_size} bytes, of {engine.release}")


if __name__ == "__main__":
    main({"vllm": Vllm, "sglang": Sglang}[sys.argv[1]](Path(sys.argv[3])), Path(sys.argv[2]))
