"""A device that runs PyTorch modules on a GPU or on the CPU: each batch packed or padded, as it is predicted faster."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from infcore import _checks
from infcore._core.base import Clock
from infcore._layout_choice import LayoutChoice, LayoutFigures, Plan
from infcore._torch_batch import (
    HostRegion,
    KernelRegion,
    TorchBatch,
    TorchRagged,
    check_dtypes,
    stage_arrays,
)
from infcore._torch_module import TorchModule, checked_source, torch_module
from infcore._torch_outputs import Answers
from infcore._torch_place import TorchPlace
from infcore.device import Arrays, DenseInput, Device, StagedBatch
from infcore.errors import DeviceError, InvalidArgument, InvalidType, UnknownName
from infcore.request import Array, Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TorchBatch", "TorchDevice", "TorchRagged"]

_TAKES = {"padded": ("padded",), "packed": ("packed",), "both": ("padded", "packed")}
_DTYPES = ("float32", "float16", "bfloat16")


class _Held(NamedTuple):
    """One model on the device."""

    model: Model
    module: TorchModule
    choice: LayoutChoice
    dtype: Any  # what floating inputs are cast to; None: nothing


class TorchDevice(Device):
    """A device that runs PyTorch modules (extra `gpu`) on a CUDA device, or on the CPU with any build of PyTorch.

    models    {model name: an nn.Module, any callable, or the path of a file: torch.export's (.pt2) or TorchScript's}.
              A module is put into evaluation mode, and copied if it lies on another device
    device    "cpu", "cuda" or "cuda:N"
    takes     {model name: "padded", "packed" or "both"}: the layouts that it takes of ragged inputs; "padded" where
              none is given. "both": each batch in the one that is predicted to be faster
    dtype     "float32", "float16", "bfloat16", or {model name: one of them}: what floating inputs are cast to, while
              they are packed. None: nothing is
    grouping  whether a batch may run in groups of like length, one after the other, where that is predicted faster
    threads   of one run on the CPU; 1: the device's own thread does the work. PyTorch also takes it as its default for
              threads that begin later. None: as torch.set_num_threads has it
    clock     None or an object with now_s(): what runs are timed by
    The other arguments are those of Device; not batch_axis, since a module can move its axes itself.

    A module is called with its inputs by name and, of these, with those that its arguments name:

        layout        "packed": the rows of a ragged input end to end, (sum of lengths, ...)
                      "padded": (n, max_seqlen, ...), filled up behind with the Model's pad_value
        mask          padded: (n, max_seqlen) bool, True where a row's own steps are. packed: None
        cu_seqlens    (n + 1,) int32; packed row i is steps cu_seqlens[i] to cu_seqlens[i + 1]
        max_seqlen    length of the longest row, an int
        position_ids  packed: (sum of lengths,) int32, each step's index in its row. padded: None
        batch         the TorchBatch: all of that for each ragged input; the words above mean the first one

    Tensors are the module's until it returns; what it returns it must not write to later, since on the CPU the requests
    get that memory without a copy. It returns {output name: tensor}, or the tensor alone where the Model has one
    output:

        class Tagger(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.embed = torch.nn.Embedding(1000, 64)
                self.tag = torch.nn.Linear(64, 5)

            def forward(self, ids):  # step by step: either layout will do
                return self.tag(self.embed(ids))

        tagger = infcore.Model("tagger", {"ids": ("int64", (None,))}, {"tags": ("float32", (None, 5))}, work="ids")
        device = infcore.TorchDevice("torch0", {"tagger": Tagger()}, takes={"tagger": "both"})

    An output whose first axis alone is ragged has the steps of the first ragged input and is cut to each request's
    own; one that is ragged otherwise, or has lengths of its own, is a list of one tensor per request. Floats are cast
    to the Model's dtype; what the Model does not name is left out. Inputs ragged in their first axis alone are packed;
    others arrive padded to the longest of the batch, and their lengths are not told. A row of length 0 is passed on:
    an empty segment, or a row that the mask hides. What a row weighs when layout and groups are chosen is its Model's
    work, or its steps where that is None.

    On CUDA a batch is one copy to the device, one launch for each ragged input, the module, and one copy back of each
    output, on a stream of the device's own; groups also copy their tables. Not run on a GPU yet: on the CPU only, the
    kernels in Triton's interpreter.
    Raises  MissingExtra without PyTorch; InvalidArgument, InvalidType, UnknownName naming the argument; at load
            InvalidArgument, InvalidType where module and Model disagree, DeviceError where a file cannot be opened.
            A run raises what its module raised, or DeviceError: out of memory, a lost GPU, outputs that do not fit.
    """

    takes_staged = True
    # Whether infcore.kernels pack on the CPU, too, which only Triton's interpreter makes possible: for tests.
    interprets_kernels = False

    def __init__(
        self,
        name: str,
        models: Mapping[str, Any],
        *,
        device: str = "cpu",
        takes: Mapping[str, str] | None = None,
        dtype: str | Mapping[str, str] | None = None,
        grouping: bool = True,
        threads: int | None = 1,
        clock: Any = None,
        kind: str | None = None,
        **options: Any,
    ) -> None:
        given = _checks.mapping("models", models)
        self._sources = {_checks.text("models", key): checked_source(key, value) for key, value in given.items()}
        if not self._sources:
            raise InvalidArgument("models is empty; allowed: at least one {name: module, callable or path}")
        if options.get("batch_axis"):
            raise InvalidArgument(
                f"batch_axis is {options['batch_axis']!r}; allowed: none, a module moves its axes itself"
            )
        self._torch = torch_module()
        self._place = TorchPlace(self._torch, _checks.text("device", device))
        super().__init__(name, models=tuple(self._sources), kind=kind or self._place.kind, **options)
        layouts = self._by_model("takes", {} if takes is None else takes, tuple(_TAKES))
        self._layouts = {key: _TAKES[layouts.get(key, "padded")] for key in self._sources}
        dtypes = dict.fromkeys(self._sources, dtype) if isinstance(dtype, str) else {} if dtype is None else dtype
        self._dtypes = self._by_model("dtype", dtypes, _DTYPES)
        self._grouping = _checks.flag("grouping", grouping)
        self.threads = None if threads is None else _checks.integer("threads", threads, 1)
        self._thread = 0  # for which that is set
        self._clock = Clock() if clock is None else clock
        if not callable(getattr(self._clock, "now_s", None)):
            raise InvalidType(f"clock is {type(clock).__name__}; allowed: None or an object with now_s()")
        self._by_kernels = self._place.on_gpu or self.interprets_kernels
        self._held: dict[str, _Held] = {}

    @property
    def device(self) -> str:
        """Where its modules run: "cpu" or "cuda:N"."""
        return str(self._place.where)

    def layouts(self) -> dict[str, dict[str, LayoutFigures]]:
        """{model: {layout: what has been run in it and learned of it}} of the models that are loaded."""
        return {name: held.choice.figures() for name, held in list(self._held.items())}

    def load(self, model: Model) -> None:
        """Put the model's module onto the device; see the class for what is checked."""
        super().load(model)
        who = f"device {self.name!r}, model {model.name!r}"
        dtype = getattr(self._torch, self._dtypes[model.name]) if model.name in self._dtypes else None
        try:
            layouts = self._layouts[model.name]
            if "packed" in layouts and not any(spec.ragged == (0,) for spec in model.inputs):
                raise InvalidArgument(
                    f"takes[{model.name!r}] is {'both' if len(layouts) > 1 else 'packed'!r}; allowed: 'padded', "
                    "since no input is ragged in its first axis alone"
                )
            check_dtypes(self._torch, who, model, dtype)
            with self._place.in_use():
                source, names = self._sources[model.name], [spec.name for spec in model.inputs]
                module = TorchModule(who, source, self._place.where, names)
                self._place.wait()
        except BaseException:
            super().unload(model.name)
            raise
        self._held[model.name] = _Held(model, module, LayoutChoice(layouts, grouping=self._grouping), dtype)

    def unload(self, name: str) -> None:
        """Take the module off the device, and forget what was learned of it."""
        super().unload(name)
        if self._held.pop(name, None) is not None:
            self._place.give_back()

    def close(self) -> None:
        """Give modules and memory back."""
        super().close()
        self._held.clear()
        self._place.close()

    def staging_memory(self, n_bytes: int) -> Any:
        """Pinned memory for a GPU, so that copies need no detour; ordinary memory else."""
        return self._place.staging_memory(n_bytes)

    def run(self, model_name: str, inputs: Arrays) -> Arrays:
        """Run one batch of arrays that are alike in length, for callers without an engine; see Device.run.

        An engine calls run_staged. Here each row is as long as its array: the batch is copied once more.
        """
        model = self._model(model_name)
        outputs = self.run_staged(model_name, stage_arrays(model, inputs))
        return {name: held if isinstance(held, np.ndarray) else np.stack(held) for name, held in outputs.items()}

    def run_staged(self, model_name: str, batch: StagedBatch) -> dict[str, Array | list[Array]]:
        """Run one batch, without the GIL while PyTorch computes. See Device.run_staged."""
        model = self._model(model_name)
        held = self._held[model_name]
        if self.threads is not None and not self._place.on_gpu and self._thread != threading.get_ident():
            self._torch.set_num_threads(self.threads)
            self._thread = threading.get_ident()
        works = _works(model, batch)
        plan = held.choice.plan(works)
        n = len(works)
        try:
            with self._place.in_use(), self._torch.inference_mode():
                answers, seconds = self._run_plan(held, plan, batch, works)
        except BaseException as error:  # SystemExit, too, leaves copies under way
            answered = self._place.answers_still()
            traceback.clear_frames(error.__traceback__)  # the frames of the module hold its tensors
            del batch  # this frame is in the traceback, and whoever keeps the error would keep the memory
            explained = self._explained(held, plan, n, error, answered)
            if explained is None:
                raise
            raise explained from error
        groups = [np.arange(n)] if plan.groups is None else plan.groups
        held.choice.learn(plan, [works[group] for group in groups], seconds)
        return answers[0] if plan.groups is None else _in_order(answers, plan.groups, n)

    def _run_plan(
        self, held: _Held, plan: Plan, batch: StagedBatch, works: NDArray[np.float64]
    ) -> tuple[list[dict[str, Array | list[Array]]], list[float]]:
        """Each group's answers, and seconds: the copy to the device is shared out by work."""
        begin_s = self._clock.now_s()
        region: HostRegion | KernelRegion
        region = self._place.copied(batch, plan.groups) if self._by_kernels else HostRegion(self._torch, batch)
        if plan.groups is None:
            answers = self._run_group(held, plan.layout, region, batch, None)
            return [answers], [self._clock.now_s() - begin_s]
        self._place.wait()
        copy_s = (self._clock.now_s() - begin_s) / float(works.sum())
        parts, seconds = [], []
        for group in plan.groups:
            begin_s = self._clock.now_s()
            parts.append(self._run_group(held, plan.layout, region, batch, group))
            seconds.append(self._clock.now_s() - begin_s + copy_s * float(works[group].sum()))
        return parts, seconds

    def _run_group(
        self, held: _Held, layout: str, region: HostRegion | KernelRegion, batch: StagedBatch, group: list[int] | None
    ) -> dict[str, Array | list[Array]]:
        tensors: dict[str, Any] = {}
        ragged: dict[str, TorchRagged] = {}
        for spec in held.model.inputs:
            where = batch.inputs[spec.name]
            dtype = held.dtype if spec.dtype.kind == "f" else None
            if isinstance(where, DenseInput):
                tensors[spec.name] = region.dense(where, dtype, group)
            else:
                tensors[spec.name], ragged[spec.name] = region.ragged(where, spec, layout, dtype, group)
        told = TorchBatch(layout, batch.n_requests if group is None else len(group), ragged)
        found = held.module(tensors, told.told())
        answers = Answers(self._torch, held.module.who, found, held.model.outputs, told, by_kernels=self._by_kernels)
        self._place.wait()
        return answers.rows()

    def _explained(self, held: _Held, plan: Plan, n: int, error: BaseException, answered: bool) -> DeviceError | None:
        """An error that says more than the one that came; None: that one is the module's own."""
        run = f"{held.module.who}: a batch of {n}, {plan.layout}"
        if not answered:
            return DeviceError(
                f"{run}: {type(error).__name__}: {error}; {self.device} answers no more: a CUDA context does not "
                "recover, start the process anew"
            )
        if isinstance(error, self._torch.OutOfMemoryError):
            return DeviceError(f"{run}, does not fit into the memory of {self.device}: {error}")
        return None

    def _by_model(self, field: str, given: object, allowed: tuple[str, ...]) -> dict[str, str]:
        found = dict(_checks.mapping(field, given))
        for name, value in found.items():
            if name not in self._sources:
                raise UnknownName(f"{field} names {name!r}; device {self.name!r} has {list(self._sources)}")
            if value not in allowed:
                raise InvalidArgument(f"{field}[{name!r}] is {value!r}; allowed: {', '.join(map(repr, allowed))}")
        return found


def _works(model: Model, batch: StagedBatch) -> NDArray[np.float64]:
    """What each row weighs: the Model's work or, where it has none, the steps of its first ragged input."""
    if model.work is None:
        for spec in model.inputs:
            where = batch.inputs[spec.name]
            if not isinstance(where, DenseInput):
                lengths: NDArray[np.float64] = where.lengths.astype(np.float64)
                return lengths
    return batch.works


def _in_order(
    parts: list[dict[str, Array | list[Array]]], groups: list[list[int]], n: int
) -> dict[str, Array | list[Array]]:
    """Each request's own rows, in the order of requests."""
    outputs: dict[str, Array | list[Array]] = {}
    for name in parts[0]:
        rows: list[Any] = [None] * n
        for part, group in zip(parts, groups, strict=True):
            for i, row in zip(group, part[name], strict=True):
                rows[i] = np.asarray(row)
        outputs[name] = rows
    return outputs
