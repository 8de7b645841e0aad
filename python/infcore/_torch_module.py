"""A PyTorch module as a TorchDevice calls it: where it comes from, and what it wants to be told."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from infcore.errors import DeviceError, InvalidArgument, InvalidType, MissingExtra

__all__ = ["BATCH_WORDS", "TorchModule", "checked_source", "torch_module"]

# What a module may be told of its batch besides its inputs: infcore.TorchBatch says what each is.
BATCH_WORDS = ("batch", "layout", "cu_seqlens", "max_seqlen", "position_ids", "mask")


def torch_module() -> Any:
    """The torch module, imported now. Raises MissingExtra without it."""
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError as error:
        raise MissingExtra(f"this needs the package {error.name!r}: pip install 'infcore[gpu]'") from error


def checked_source(name: str, source: object) -> Any:
    """A callable (an nn.Module is one), or the path of a file that exists."""
    if callable(source):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise InvalidType(
            f"models[{name!r}] is {type(source).__name__}; allowed: an nn.Module, a callable, or the path of a file"
        )
    path = os.fspath(source)
    if not isinstance(path, str) or not os.path.isfile(path):
        raise InvalidArgument(f"models[{name!r}] is {path!r}; allowed: the path of a file that exists")
    return path


class _Parameters(NamedTuple):
    """The names that a module's forward takes."""

    named: tuple[str, ...]
    required: tuple[str, ...]
    any_other: bool  # **kwargs
    n_positional: int  # of `named`, the first so many by position only: a torch.export file wants it as it was exported


class TorchModule:
    """A module ready to be called with named tensors.

    who     "device 'd', model 'm'", for errors
    source  what checked_source returned
    where   torch.device
    inputs  the Model's inputs
    Raises  DeviceError where a file cannot be opened; InvalidArgument, InvalidType where the module does not take the
            inputs by name
    """

    def __init__(self, who: str, source: Any, where: Any, inputs: Iterable[str]) -> None:
        torch = torch_module()
        self.who = who
        if isinstance(source, str):
            try:
                self._call, parameters = _opened(torch, source, where)
            except Exception as error:
                raise DeviceError(f"{who}: cannot open {source!r}: {type(error).__name__}: {error}") from error
        else:
            self._call = _placed(torch, source, where)
            parameters = _parameters(who, source.forward if isinstance(source, torch.nn.Module) else source)
        self._n_positional = parameters.n_positional
        self._order = parameters.named
        self.words = self._agreed(parameters, tuple(inputs))

    def __call__(self, tensors: Mapping[str, Any], told: Mapping[str, Any]) -> Any:
        """The module's answer to its inputs and to those of BATCH_WORDS that it names."""
        named = {**tensors, **{word: told[word] for word in self.words}}
        by_position = [named.pop(name) for name in self._order[: self._n_positional]]
        return self._call(*by_position, **named)

    def _agreed(self, parameters: _Parameters, inputs: tuple[str, ...]) -> tuple[str, ...]:
        """Those of BATCH_WORDS that it names, once it is known that it can be called."""
        taken = f"its forward takes {list(parameters.named)}"
        for name in inputs:
            if name in BATCH_WORDS:
                raise InvalidArgument(f"{self.who}: an input is called {name!r}; allowed: any name but {BATCH_WORDS}")
            if name not in parameters.named and not parameters.any_other:
                raise InvalidArgument(f"{self.who}: the module has no argument for the input {name!r}; {taken}")
        for name in parameters.required:
            if name not in inputs and name not in BATCH_WORDS:
                raise InvalidArgument(
                    f"{self.who}: the module also wants {name!r}; {taken}; allowed: the inputs {list(inputs)} and "
                    f"{BATCH_WORDS}"
                )
        return tuple(word for word in BATCH_WORDS if word in parameters.named)


def _placed(torch: Any, source: Any, where: Any) -> Any:
    """The module on the device, in evaluation mode; copied if it lies elsewhere, so that devices can share one."""
    if not isinstance(source, torch.nn.Module):
        return source
    tensors = [*source.parameters(), *source.buffers()]
    if any(tensor.device != where for tensor in tensors):
        source = copy.deepcopy(source).to(where)
    return source.eval()


def _opened(torch: Any, path: str, where: Any) -> tuple[Callable[..., Any], _Parameters]:
    if path.endswith(".pt2"):
        return _exported(torch, path, where)
    with warnings.catch_warnings():
        # TorchScript is deprecated; whoever has such a file knows.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        module = torch.jit.load(path, map_location=where).eval()
        arguments = module.forward.schema.arguments[1:]
    required = tuple(a.name for a in arguments if not a.has_default_value())
    return module, _Parameters(tuple(a.name for a in arguments), required, False, 0)


def _exported(torch: Any, path: str, where: Any) -> tuple[Callable[..., Any], _Parameters]:
    program = torch.export.load(path)
    if where.type != "cpu":
        program = importlib.import_module("torch.export.passes").move_to_device_pass(program, str(where))
    signature = program.module_call_graph[0].signature
    names = tuple(signature.forward_arg_names)
    n_positional = signature.in_spec.child(0).num_children
    return program.module(), _Parameters(names, names, False, n_positional)


def _parameters(who: str, function: Any) -> _Parameters:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise InvalidType(
            f"{who}: the module's arguments cannot be seen; allowed: a function or module of named ones"
        ) from None
    named, required, any_other = [], [], False
    for parameter in signature.parameters.values():
        any_other = any_other or parameter.kind is parameter.VAR_KEYWORD
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            named.append(parameter.name)
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY, parameter.POSITIONAL_ONLY):
            if parameter.default is parameter.empty:
                required.append(parameter.name)
    return _Parameters(tuple(named), tuple(required), any_other, 0)
