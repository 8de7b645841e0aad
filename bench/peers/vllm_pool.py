"""vLLM's block pool alone: the modules that manage KV blocks, out of its wheel, without the rest and without PyTorch.

The whole of vLLM wants PyTorch built for CUDA and some gigabytes; its block pool is plain Python. `fetch` takes the
modules named below out of the wheel, unchanged; `load` imports them with empty stand-ins for every other module of
vLLM that they import: names that only annotations and branches not taken here use (events, metrics, configuration,
multi-modal inputs). All that is timed is vLLM's own code.
"""

import importlib.abc
import importlib.util
import logging
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

RELEASE = "0.33.0"
EVENTS = "vllm.distributed.kv_events"  # fetched for record_events.py; elsewhere a stand-in
MODULES = ["vllm.v1.core.block_pool", "vllm.v1.core.kv_cache_utils", "vllm.utils.hashing", "vllm.utils.math_utils"]


def _file_of(module: str) -> str:
    return module.replace(".", "/") + ".py"


def folder(venv: Path) -> Path:
    return venv / f"vllm-{RELEASE}"


def fetch(into: Path, python: str) -> None:
    """Downloads vLLM's wheel (336 MB), keeps the modules, drops the wheel."""
    files = [_file_of(module) for module in {*MODULES, EVENTS}]
    if all((into / file).exists() for file in files):
        return
    with tempfile.TemporaryDirectory() as place:
        pip = [python, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--no-cache-dir"]
        subprocess.run([*pip, "-d", place, f"vllm=={RELEASE}"], check=True)
        with zipfile.ZipFile(next(Path(place).glob("*.whl"))) as wheel:
            for file in files:
                wheel.extract(file, into)


class _StandIn(ModuleType):
    """A module whose every name is an empty class."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """These modules out of the folder; for every other of their package a stand-in."""

    def __init__(self, folder: Path, modules: list[str]):
        self.folder, self.modules = folder, modules

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] != self.modules[0].split(".")[0]:
            return None
        if name in self.modules:
            return importlib.util.spec_from_file_location(name, self.folder / _file_of(name))
        return importlib.util.spec_from_loader(name, self, is_package=True)

    def create_module(self, spec):
        module = _StandIn(spec.name)
        if spec.name == "vllm.logger":
            module.init_logger = logging.getLogger
        return module

    def exec_module(self, module):
        pass


def load(folder: Path) -> tuple[ModuleType, ModuleType, ModuleType]:
    """block_pool, kv_cache_utils and hashing of vLLM."""
    sys.meta_path.insert(0, Finder(folder, MODULES))
    return tuple(importlib.import_module(module) for module in MODULES[:3])


def request(tokens: list[int]) -> SimpleNamespace:
    """What the hasher and the pool read of a request."""
    return SimpleNamespace(
        request_id="r",
        all_token_ids=tokens,
        num_tokens=len(tokens),
        block_hashes=[],
        mm_features=[],
        lora_request=None,
        cache_salt=None,
        prompt_embeds=None,
    )
