"""A token device that runs PyTorch decoders, their keys and values in paged blocks."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from infcore import _checks
from infcore._paged_attention import PagedCache, PagedStep
from infcore._torch_module import torch_module
from infcore._torch_place import TorchPlace
from infcore.errors import InvalidArgument, InvalidType
from infcore.request import Model
from infcore.token_device import TokenBatch, TokenDevice

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TorchTokenDevice"]

_WANTED = ("n_layers", "n_kv_heads", "head_dim")


class TorchTokenDevice(TokenDevice):
    """A token device that runs PyTorch decoders (extra `gpu`) on the CPU or a CUDA device, and answers greedily.

    models   {model name: a torch.nn.Module as below}; put into evaluation mode, and copied if it lies on another device
    device   "cpu", "cuda" or "cuda:N"
    threads  of one run on the CPU; None: as torch.set_num_threads has it
    The other arguments are those of TokenDevice.

    A module has n_layers, n_kv_heads and head_dim, and two methods:

        forward(tokens, positions, attend)
            (T,) int64 both, of many sequences end to end -> hidden states (T, width). It calls attend(layer, q, k, v)
            once a layer: q (T, heads, head_dim), k and v (T, n_kv_heads, head_dim) -> what each gathers, shaped as q
        logits(hidden)
            (n, width) -> (n, vocabulary)

    infcore.models.decoder.small_decoder() makes one. Attention masks and gathers with PyTorch's own operations: a
    reference for block tables, not the fastest way. Override `choose` for another choice than the likeliest token.
    Not run on a GPU yet.
    Raises  MissingExtra without PyTorch; InvalidArgument, InvalidType, UnknownName naming the argument
    """

    def __init__(
        self,
        name: str,
        models: Mapping[str, Any],
        *,
        device: str = "cpu",
        threads: int | None = 1,
        kind: str | None = None,
        **options: Any,
    ) -> None:
        given = _checks.mapping("models", models)
        if not given:
            raise InvalidArgument("models is empty; allowed: at least one {name: module}")
        self._modules = {_checks.text("models", key): _checked(key, module) for key, module in given.items()}
        self._torch = torch_module()
        self._place = TorchPlace(self._torch, _checks.text("device", device))
        super().__init__(name, models=tuple(self._modules), kind=kind or self._place.kind, **options)
        self.threads = None if threads is None else _checks.integer("threads", threads, 1)
        self._thread = 0  # for which that is set
        self._held: dict[str, tuple[Any, PagedCache]] = {}

    def load(self, model: Model) -> None:
        """Put the model's module onto the device, and make room for its blocks."""
        super().load(model)
        module, where = self._modules[model.name], self._place.where
        parameters = list(module.parameters())
        if any(parameter.device != where for parameter in parameters):
            module = copy.deepcopy(module).to(where)
        shape = (module.n_layers, module.n_kv_heads, module.head_dim)
        dtype = parameters[0].dtype if parameters else self._torch.float32
        blocks = (self.n_blocks, self.block_size, self.n_host_blocks)
        with self._place.in_use():
            self._held[model.name] = module.eval(), PagedCache(self._torch, shape, blocks, where, dtype)

    def unload(self, name: str) -> None:
        """Take the module and its blocks off the device."""
        super().unload(name)
        self._held.pop(name, None)

    def close(self) -> None:
        """Give modules and memory back."""
        super().close()
        self._held.clear()
        self._place.close()

    def run_step(self, model_name: str, step: TokenBatch) -> NDArray[np.int64]:
        """Run one step, without the GIL while PyTorch computes. See TokenDevice.run_step."""
        self._model(model_name)
        torch = self._torch
        module, cache = self._held[model_name]
        if self.threads is not None and not self._place.on_gpu and self._thread != threading.get_ident():
            torch.set_num_threads(self.threads)
            self._thread = threading.get_ident()
        with self._place.in_use(), torch.inference_mode():
            cache.move(step)
            if len(step.tokens) == 0:
                return np.empty(0, np.int64)
            tokens = torch.from_numpy(step.tokens).to(self._place.where)
            positions = torch.from_numpy(step.positions.astype(np.int64)).to(self._place.where)
            hidden = module(tokens, positions, PagedStep(cache, step).attend)
            last = torch.from_numpy((step.cu_seqlens[1:][step.emits] - 1).astype(np.int64)).to(self._place.where)
            chosen: NDArray[np.int64] = self.choose(model_name, module.logits(hidden[last])).cpu().numpy()
            return chosen

    def choose(self, model_name: str, logits: Any) -> Any:
        """The new token of each row, (n,), of its logits (n, vocabulary): the likeliest."""
        return logits.argmax(-1)


def _checked(name: str, module: Any) -> Any:
    missing = [word for word in (*_WANTED, "logits", "forward", "parameters") if not hasattr(module, word)]
    if missing:
        raise InvalidType(
            f"models[{name!r}] is {type(module).__name__} without {missing}; allowed: a torch.nn.Module with "
            f"{[*_WANTED, 'logits']}"
        )
    for word in _WANTED:
        _checks.integer(f"models[{name!r}].{word}", getattr(module, word), 1)
    return module
