from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infcore._core.kv import KVBlocks

class TokenCurve:
    def __init__(
        self,
        *,
        base_s: float = 0.0,
        prefill_base_s: float = 0.0,
        per_prefill_token_s: float = 0.0,
        per_prefill_token2_s: float = 0.0,
        decode_base_s: float = 0.0,
        per_decode_s: float = 0.0,
        per_context_token_s: float = 0.0,
        per_context_token2_s: float = 0.0,
        swap_block_s: float = 0.0,
    ) -> None: ...
    def step_s(self, n_prefill_tokens: int, n_decode_rows: int, n_context_tokens: int) -> float: ...

class TokenStep:
    @property
    def rows(self) -> NDArray[Any]: ...
    @property
    def swap_outs(self) -> NDArray[np.int32]: ...
    @property
    def copies(self) -> NDArray[np.int32]: ...
    @property
    def swap_ins(self) -> NDArray[np.int32]: ...
    @property
    def preempted(self) -> NDArray[np.uint64]: ...
    @property
    def expired(self) -> NDArray[np.uint64]: ...
    @property
    def expired_cookies(self) -> NDArray[np.uint64]: ...
    @property
    def n_prefill_tokens(self) -> int: ...
    @property
    def n_prefill_rows(self) -> int: ...
    @property
    def n_decode_rows(self) -> int: ...
    @property
    def n_context_tokens(self) -> int: ...
    @property
    def n_matched_tokens(self) -> int: ...
    @property
    def block_tables(self) -> NDArray[np.int32]: ...
    def __len__(self) -> int: ...

class ContinuousBatcher:
    def __init__(
        self,
        kv: KVBlocks,
        *,
        token_budget: int = 2048,
        max_running: int = 256,
        max_sequences: int = 4096,
        max_sequence_tokens: int | None = None,
        ageing_s: float | None = None,
        curve: TokenCurve | None = None,
        clock: Any = None,
    ) -> None: ...
    def add(
        self,
        prompt: NDArray[Any] | Sequence[int] | int,
        n_output_tokens_max: int,
        *,
        cookie: int = 0,
        tier: int = 0,
        deadline_s: float | None = None,
        arrival_s: float | None = None,
        salt: int = 0,
        prompt_hashes: NDArray[np.uint64] | None = None,
        now_s: float | None = None,
    ) -> int: ...
    def cancel(self, id: int) -> bool: ...
    def fork(self, id: int, *, cookie: int = 0) -> int: ...
    def step(self, *, now_s: float | None = None) -> TokenStep: ...
    def advance(
        self, *, tokens: NDArray[Any] | Sequence[int] | None = None, ended: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]: ...
    @property
    def kv(self) -> KVBlocks: ...
    @property
    def n_running(self) -> int: ...
    @property
    def n_waiting(self) -> int: ...
    @property
    def n_preempted(self) -> int: ...
    @property
    def n_swapped_out(self) -> int: ...
    @property
    def next_event_s(self) -> float | None: ...
