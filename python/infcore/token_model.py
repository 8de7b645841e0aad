"""Models that answer token by token: what a request carries, and when its answer ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from infcore import _checks
from infcore.errors import InvalidType
from infcore.request import Model, Work

__all__ = ["TokenModel"]


class TokenModel(Model):
    """An immutable description of a model that goes on from a prompt, one token after the other.

    name, version     how requests and devices call it
    max_new_tokens    most tokens of an answer; a request may ask for fewer
    stop_tokens       the answer ends with the first of these, which is its last token
    vocab_size        a prompt's tokens are 0 to vocab_size - 1; None: any >= 0
    work              what the latency model counts of a request. None: its prompt's tokens and the most it may get
    idempotent, slo_s as Model's

    A request's inputs are {"tokens": (n,) int64 or int32, n >= 1}, and where it wants fewer than the model's
    "max_new_tokens": an integer >= 1; its outputs {"tokens": (m,) int64}: the new tokens, without the prompt.
    `engine.stream` gives them as they come. A device that is no TokenDevice, but names the model, answers in one run.
    Raises InvalidType or InvalidArgument naming the argument, the value and what is allowed.
    """

    by_token = True

    __slots__ = ("max_new_tokens", "stop_tokens", "vocab_size")

    max_new_tokens: int
    stop_tokens: tuple[int, ...]
    vocab_size: int | None

    def __init__(
        self,
        name: str,
        *,
        max_new_tokens: int = 256,
        stop_tokens: Iterable[int] = (),
        vocab_size: int | None = None,
        work: Work = None,
        idempotent: bool = True,
        version: int = 1,
        slo_s: float | None = None,
        weights_bytes: int = 0,
        load_s: float = 0.0,
    ) -> None:
        ragged = {"tokens": ("int64", (None,))}
        super().__init__(
            name,
            ragged,
            ragged,
            max_batch_size=1,
            work=work,
            idempotent=idempotent,
            version=version,
            slo_s=slo_s,
            weights_bytes=weights_bytes,
            load_s=load_s,
        )
        put = object.__setattr__  # the object's own assignment refuses
        put(self, "max_new_tokens", _checks.integer("max_new_tokens", max_new_tokens, 1, 2**31 - 1))
        size = None if vocab_size is None else _checks.integer("vocab_size", vocab_size, 1, 2**31 - 1)
        put(self, "vocab_size", size)
        if isinstance(stop_tokens, (str, bytes)) or not isinstance(stop_tokens, Iterable):
            raise InvalidType(f"stop_tokens is {type(stop_tokens).__name__}; allowed: integers")
        last = 2**31 - 1 if size is None else size - 1
        put(self, "stop_tokens", tuple(_checks.integer("a stop token", t, 0, last) for t in stop_tokens))

    def replace(self, **changes: Any) -> TokenModel:
        """The same model with some of its constructor's arguments changed."""
        return TokenModel(**{**self._arguments(), **changes})

    def _arguments(self) -> dict[str, Any]:
        kept = ("name", "work", "idempotent", "version", "slo_s", "weights_bytes", "load_s", *TokenModel.__slots__)
        return {slot: getattr(self, slot) for slot in kept}

    def _key(self) -> tuple[object, ...]:
        return (*super()._key(), *(getattr(self, slot) for slot in TokenModel.__slots__))

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], Model], tuple[dict[str, Any]]]:
        return _rebuild, (self._arguments(),)

    def __repr__(self) -> str:
        return f"TokenModel({self.name!r}, version={self.version}, max_new_tokens={self.max_new_tokens})"


def _rebuild(arguments: dict[str, Any]) -> TokenModel:
    return TokenModel(**arguments)
