"""Devices that run token models in steps: the protocol, and an emulated one whose answers can be checked."""

from __future__ import annotations

import time
import zlib
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from infcore import _checks
from infcore._core.continuous import TokenCurve
from infcore._core.device import Timer
from infcore._core.token_run import TokenRun, step_s
from infcore.device import Arrays, Device
from infcore.errors import InvalidArgument, InvalidType
from infcore.request import Model
from infcore.token_model import TokenModel

if TYPE_CHECKING:  # numpy.typing takes milliseconds to import
    from numpy.typing import NDArray

__all__ = ["EmulatedTokenDevice", "TokenBatch", "TokenDevice"]

_BLOCKS_MAX = 2**30


class TokenBatch(NamedTuple):
    """What one step runs: rows of whole or partial prompts, and rows that go on by one token, end to end.

    Blocks are moved first, in this order: swap_outs, copies, swap_ins. Then every token's key and value is computed,
    put at its slot, and attends to all positions of its sequence up to its own.

    tokens        (T,) int64, row after row
    positions     (T,) int32, each token's place in its sequence
    cu_seqlens    (R + 1,) int32: row r is tokens cu_seqlens[r] to cu_seqlens[r + 1]
    context_lens  (R,) int32: positions of row r's sequence once this step has run
    block_tables  (R, W) int32: the blocks of row r's positions, in order; 0 behind its last
    slot_mapping  (T,) int64: block * block_size + offset, where each token's key and value go
    emits         (R,) bool: whether a new token is wanted of the row, after its last one
    swap_outs     (n, 2) int32: device block, host block
    copies        (n, 2) int32: block to copy, block to copy it to: rows that had shared it part here
    swap_ins      (n, 2) int32: host block, device block
    n_prefill_rows, n_prefill_tokens, n_decode_rows, n_context_tokens
                  what TokenCurve counts; the rows that decode are the first ones, and the context is theirs
    """

    tokens: NDArray[np.int64]
    positions: NDArray[np.int32]
    cu_seqlens: NDArray[np.int32]
    context_lens: NDArray[np.int32]
    block_tables: NDArray[np.int32]
    slot_mapping: NDArray[np.int64]
    emits: NDArray[np.bool_]
    swap_outs: NDArray[np.int32]
    copies: NDArray[np.int32]
    swap_ins: NDArray[np.int32]
    n_prefill_rows: int
    n_prefill_tokens: int
    n_decode_rows: int
    n_context_tokens: int


class TokenDevice(Device):
    """What runs token models: many requests at once, step by step, over a paged cache of their keys and values.

    Subclass it with your own `run_step`; load, unload and close may be overridden too. The engine's worker for it lets
    requests join and leave between steps, and decides each step by a ContinuousBatcher over KVBlocks: one for each
    model that is loaded, with n_blocks each.

    n_blocks       blocks of the cache
    block_size     positions of a block
    n_host_blocks  blocks of host memory that sequences can be swapped out to; 0: they are computed again
    token_budget   most tokens of a step, prompts and decodes together
    max_running    most sequences that run at once
    slots          most requests that an engine hands it at once; None: max_running
    run_limit_s    a step longer than this (up to a quarter more) marks the device lost
    models         names of the TokenModels that it serves; None: any TokenModel
    The other arguments are those of Device.

    A step that raises is run again row by row, where its model is idempotent and no block was moved: a row that raises
    alone fails alone. Where all raise, the device is out for a while and what it ran goes elsewhere, from where it was.
    """

    takes_tokens = True
    # By which a sequence that must make room is swapped out or computed again; all 0: always computed again.
    moving_curve = TokenCurve()

    def __init__(
        self,
        name: str,
        *,
        n_blocks: int,
        block_size: int = 16,
        n_host_blocks: int = 0,
        token_budget: int = 2048,
        max_running: int = 256,
        slots: int | None = None,
        kind: str = "gpu",
        **options: Any,
    ) -> None:
        self.n_blocks = _checks.integer("n_blocks", n_blocks, 1, _BLOCKS_MAX)
        self.block_size = _checks.integer("block_size", block_size, 1, 2**16)
        self.n_host_blocks = _checks.integer("n_host_blocks", n_host_blocks, 0, _BLOCKS_MAX)
        self.token_budget = _checks.integer("token_budget", token_budget, 1, 2**20)
        self.max_running = _checks.integer("max_running", max_running, 1, 2**16)
        if options.get("batch_axis"):
            raise InvalidArgument(f"batch_axis is {options['batch_axis']!r}; allowed: none, tokens have no other axis")
        super().__init__(name, kind=kind, slots=self.max_running if slots is None else slots, **options)

    @property
    def batch_limit_s(self) -> float | None:
        """A quarter more than a step may take: the worker says only so often that a step was done."""
        return None if self.run_limit_s is None else 1.25 * self.run_limit_s

    def load(self, model: Model) -> None:
        """Get ready to run a model. Raises InvalidType where it is no TokenModel; else as Device.load."""
        if not isinstance(model, TokenModel):
            raise InvalidType(
                f"model {model.name!r} is a {type(model).__name__}; allowed on token device {self.name!r}: a TokenModel"
            )
        super().load(model)

    @abstractmethod
    def run_step(self, model_name: str, step: TokenBatch) -> NDArray[np.int64]:
        """Run one step, on a thread of the device's own; may release the GIL.

        step     valid only until this returns; not to be changed
        Returns  (n,) integers: a new token of the model's vocabulary for each row that emits, in order
        Raises   whatever went wrong: see the class. A step may be run again, unless it moves blocks: what it writes
                 must not depend on what was at its slots before
        """

    def new_run(self, model_name: str) -> TokenRun:
        """A batcher over blocks of its own for a model that is loaded; `run_step` runs what it says."""
        self._model(model_name)
        return TokenRun(
            n_blocks=self.n_blocks,
            block_size=self.block_size,
            n_host_blocks=self.n_host_blocks,
            token_budget=self.token_budget,
            max_running=self.max_running,
            max_sequences=self.slots + self.max_running,
            make_step=TokenBatch,
            curve=self.moving_curve,
        )

    def run(self, model_name: str, inputs: Arrays) -> Arrays:
        """One prompt after the other to its end, for callers without an engine; an engine calls run_step.

        inputs   {"tokens": (n, m) int64}, prompts of one length
        Returns  {"tokens": (n, k) int64}, k the longest answer; behind a shorter one stands its last token again
        """
        model = self._model(model_name)
        assert isinstance(model, TokenModel)
        answers = [self._alone(model, model_name, prompt) for prompt in inputs["tokens"]]
        longest = max((len(answer) for answer in answers), default=0)
        padded = [answer + answer[-1:] * (longest - len(answer)) for answer in answers]
        return {"tokens": np.array(padded, np.int64).reshape(len(answers), longest)}

    def _alone(self, model: TokenModel, model_name: str, prompt: NDArray[np.int64]) -> list[int]:
        run = self.new_run(model_name)
        made: list[int] = []
        run.add(prompt, model.max_new_tokens)
        while (step := run.step()) is not None:
            tokens = self.run_step(model_name, step)
            made.extend(int(token) for token in tokens)
            ended = bool(made) and (made[-1] in model.stop_tokens or len(made) == model.max_new_tokens)
            run.advance(tokens, np.full(len(tokens), ended))
        return made


class EmulatedTokenDevice(TokenDevice):
    """A token device that computes no model: steps take as long as a curve says, and it is shown as emulated.

    curve       the TokenCurve of every model; None: steps take no time
    cv          coefficient of variation: each step takes the curve's time times a lognormal factor of mean 1
    seed        with the name it gives the factors: same name, seed and steps, same times
    vocab_size  its tokens are 0 to vocab_size - 1, where the model does not say how many it has
    The other arguments are those of TokenDevice.

    Its tokens follow from the sequence so far, and it reads that from its blocks, by slots and block tables, as a real
    device does keys and values: token_after() says what must come out, however requests were batched.
    """

    emulated = True

    def __init__(
        self,
        name: str,
        *,
        curve: TokenCurve | None = None,
        cv: float = 0.0,
        seed: int = 0,
        vocab_size: int = 32000,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        if curve is not None and not isinstance(curve, TokenCurve):
            raise InvalidType(f"curve is {type(curve).__name__}; allowed: a TokenCurve, or None")
        self.moving_curve = TokenCurve() if curve is None else curve
        self.vocab_size = _checks.integer("vocab_size", vocab_size, 1, 2**31 - 1)
        seed = _checks.integer("seed", seed, 0, 2**32 - 1) << 32 | zlib.crc32(self.name.encode())
        self._timer = Timer(_checks.finite("cv", cv), seed)
        self._held: dict[str, tuple[NDArray[np.uint64], NDArray[np.uint64], int]] = {}

    def load(self, model: Model) -> None:
        super().load(model)
        size = getattr(model, "vocab_size", None) or self.vocab_size
        cache = np.zeros((self.n_blocks, self.block_size), np.uint64)
        self._held[model.name] = cache, np.zeros((self.n_host_blocks, self.block_size), np.uint64), size

    def unload(self, name: str) -> None:
        super().unload(name)
        self._held.pop(name, None)

    def close(self) -> None:
        super().close()
        self._held.clear()

    def step_s(self, step: TokenBatch) -> float:
        """Seconds that the next step takes: the curve's, times the next lognormal factor."""
        return self._timer.service_s((step_s(self.moving_curve, step), 0.0, 0.0, 0.0), 1, 0.0, 0.0)

    def run_step(self, model_name: str, step: TokenBatch) -> NDArray[np.int64]:
        """Sleep as long as the step takes, and say the tokens that follow."""
        begin_s = time.monotonic()
        self._model(model_name)
        cache, host, vocab_size = self._held[model_name]
        host[step.swap_outs[:, 1]] = cache[step.swap_outs[:, 0]]
        cache[step.copies[:, 1]] = cache[step.copies[:, 0]]
        cache[step.swap_ins[:, 1]] = host[step.swap_ins[:, 0]]
        slots, bounds = cache.reshape(-1), step.cu_seqlens
        first = step.positions[bounds[:-1]]
        before = np.maximum(first - 1, 0)
        rows = np.arange(len(first))
        blocks = step.block_tables[rows, before // self.block_size].astype(np.int64)
        base = np.where(first > 0, slots[blocks * self.block_size + before % self.block_size], np.uint64(0))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_parts(step.tokens, step.positions), dtype=np.uint64)])
        own = np.repeat(base - sums[bounds[:-1]], np.diff(bounds))
        slots[step.slot_mapping] = sums[1:] + own
        last = bounds[1:][step.emits] - 1
        made = _said(slots[step.slot_mapping[last]], vocab_size)
        time.sleep(max(0.0, begin_s + self.step_s(step) - time.monotonic()))
        return made


def token_after(tokens: NDArray[np.int64], vocab_size: int) -> int:
    """The token that an EmulatedTokenDevice says after a whole sequence."""
    sequence = np.asarray(tokens, np.int64)
    total = np.sum(_parts(sequence, np.arange(len(sequence))), dtype=np.uint64)
    return int(_said(np.array([total], np.uint64), vocab_size)[0])


def _parts(tokens: NDArray[np.int64], positions: NDArray[Any]) -> NDArray[np.uint64]:
    """What each token adds to the sum that stands for a sequence: of its position, too, so that order tells."""
    return _stirred(tokens.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + _stirred(positions.astype(np.uint64)))


def _said(sums: NDArray[np.uint64], vocab_size: int) -> NDArray[np.int64]:
    return (_stirred(sums) % np.uint64(vocab_size)).astype(np.int64)


def _stirred(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """MurmurHash3's finalizer: every bit of the word tells in every bit of the result."""
    words = (words ^ words >> np.uint64(33)) * np.uint64(0xFF51AFD7ED558CCD)
    words = (words ^ words >> np.uint64(33)) * np.uint64(0xC4CEB9FE1A85EC53)
    return words ^ words >> np.uint64(33)
