"""What a module returned, checked against the Model, on the host, and cut into each request's own rows."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from infcore._torch_batch import KERNEL_DTYPES, current_stream
from infcore.errors import DeviceError

if TYPE_CHECKING:
    from infcore._torch_batch import TorchBatch
    from infcore.request import Array, TensorSpec

__all__ = ["Answers", "by_name"]


def by_name(who: str, found: Any, specs: tuple[TensorSpec, ...]) -> Mapping[str, Any]:
    """What a module returned as {output: tensor}; a lone one may come without its name."""
    if not isinstance(found, Mapping):
        if len(specs) != 1:
            raise DeviceError(
                f"{who}: the module returned {type(found).__name__}; allowed: a mapping with the outputs "
                f"{[spec.name for spec in specs]}"
            )
        return {specs[0].name: found}
    for spec in specs:
        if spec.name not in found:
            raise DeviceError(
                f"{who}: the module returned {sorted(map(str, found))}; it lacks the output {spec.name!r}"
            )
    return found


class Answers:
    """The outputs of one run of a module. Built while its device works; rows() once it has ended.

    who         "device 'd', model 'm'", for errors
    found       what the module returned
    batch       what it was told
    by_kernels  whether padding is left out by infcore.kernels before the copy to the host, or by views after it
    """

    def __init__(
        self,
        torch: Any,
        who: str,
        found: Any,
        specs: tuple[TensorSpec, ...],
        batch: TorchBatch,
        *,
        by_kernels: bool,
    ) -> None:
        self._torch = torch
        self._who = who
        self._batch = batch
        self._specs = specs
        self._by_kernels = by_kernels
        named = by_name(who, found, specs)
        # {output: one tensor of all requests, or one of each}, on the host or on their way there.
        self._on_host = {spec.name: self._brought(spec, named[spec.name]) for spec in specs}

    def rows(self) -> dict[str, Array | list[Array]]:
        """{output: one array (n, ...), or each request's own}; views of what the copy brought."""
        return {spec.name: self._cut(spec, self._on_host[spec.name]) for spec in self._specs}

    def _brought(self, spec: TensorSpec, found: Any) -> Any:
        """Checks an output and sends it to the host: one copy."""
        torch, n = self._torch, self._batch.n_requests
        what = f"output {spec.name!r}"
        if isinstance(found, torch.Tensor) and found.is_nested:
            found = found.unbind()
        if isinstance(found, (list, tuple)):
            if len(found) != n:
                raise DeviceError(f"{self._who}: {what} is {len(found)} tensors; allowed: one per request, {n}")
            for i, row in enumerate(found):
                self._check(f"{what}[{i}]", spec, row, spec.shape, "")
            return [_to_host(torch, self._cast(spec, row)) for row in found]
        self._check(what, spec, found, self._shape(spec), f" in the {self._batch.layout} layout")
        if self._batch.ragged and spec.ragged not in ((), (0,)):  # its rows would come with the padding of their batch
            raise DeviceError(
                f"{self._who}: {what} is one tensor; allowed: a list of one per request, each of {spec.shape}"
            )
        if self._follows_rows(spec) and self._batch.layout == "padded" and self._by_kernels:
            found = self._without_padding(spec, _as_bits(found))
        return _to_host(torch, self._cast(spec, found))

    def _without_padding(self, spec: TensorSpec, found: Any) -> Any:
        """Padded rows end to end, in one launch where the kernels know the dtypes."""
        torch, first = self._torch, self._batch.first
        assert first is not None
        names = (str(found.dtype).removeprefix("torch."), spec.dtype.name)
        if not set(names) <= set(KERNEL_DTYPES):
            return torch.cat([row[:length] for row, length in zip(found, self._lengths(), strict=True)])
        from infcore.kernels.pack.launch import unpack

        data = unpack(
            found.contiguous(),
            first.lengths,
            cu_seqlens=first.cu_seqlens,
            layout="padded",
            dtype=names[1],
            stream=current_stream(torch, found),
        ).data
        return data if isinstance(data, torch.Tensor) else torch.from_dlpack(data)

    def _follows_rows(self, spec: TensorSpec) -> bool:
        """Whether an output has a step for each step of the first ragged input."""
        return spec.ragged == (0,) and bool(self._batch.ragged)

    def _lengths(self) -> list[int]:
        first = self._batch.first
        assert first is not None
        lengths: list[int] = first.lengths.tolist()
        return lengths

    def _shape(self, spec: TensorSpec) -> tuple[int | None, ...]:
        n, first = self._batch.n_requests, self._batch.first
        if not self._follows_rows(spec) or first is None:
            return n, *spec.shape
        if self._batch.layout == "packed":
            return int(first.lengths.sum()), *spec.shape[1:]
        return n, first.max_seqlen, *spec.shape[1:]

    def _check(self, what: str, spec: TensorSpec, found: Any, shape: tuple[int | None, ...], where: str) -> None:
        torch = self._torch
        if not isinstance(found, torch.Tensor) or found.layout is not torch.strided:
            raise DeviceError(f"{self._who}: {what} is {type(found).__name__}; allowed: a dense tensor")
        dtype = str(found.dtype).removeprefix("torch.")
        if dtype != spec.dtype.name and not (found.dtype.is_floating_point and spec.dtype.kind == "f"):
            floats = ", or any float" if spec.dtype.kind == "f" else ""
            raise DeviceError(f"{self._who}: {what} is {dtype}; allowed: {spec.dtype.name}{floats}")
        fits = len(shape) == found.dim() and all(
            length is None or length == there for length, there in zip(shape, found.shape, strict=True)
        )
        if not fits:
            raise DeviceError(f"{self._who}: {what} has shape {tuple(found.shape)}; allowed: {shape}{where}")

    def _cast(self, spec: TensorSpec, found: Any) -> Any:
        return _as_bits(found).to(getattr(self._torch, spec.dtype.name))

    def _cut(self, spec: TensorSpec, brought: Any) -> Array | list[Array]:
        if isinstance(brought, list):
            return [row.numpy() for row in brought]
        array: Array = brought.numpy()
        if not self._follows_rows(spec):
            return array
        lengths = self._lengths()
        if array.ndim == len(spec.shape):  # end to end
            bounds = np.concatenate([[0], np.cumsum(lengths)]).tolist()
            return [array[begin:end] for begin, end in pairwise(bounds)]
        return [array[i, :length] for i, length in enumerate(lengths)]


def _as_bits(tensor: Any) -> Any:
    """Without what a tensor owes its memory: gradients, a conjugation or negation that PyTorch has put off."""
    return tensor.detach().resolve_conj().resolve_neg()


def _to_host(torch: Any, tensor: Any) -> Any:
    """On the host once the device's stream has come so far; through pinned memory, without waiting."""
    if tensor.device.type == "cpu":
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
