"""The structure that STYLE promises: each rule over the project, and over something made up that breaks it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tidy import core, layers, tree

ROOT = Path(__file__).parents[1]
Rule = Callable[[tree.Tree], Iterator[str]]
RULES: list[Rule] = [
    tree.top_level,
    tree.file_lines,
    tree.function_lines,
    tree.banned_names,
    tree.empty_files,
    tree.left_open,
    tree.copyleft,
    layers.cpp_includes,
    layers.python_layers,
    layers.heavy_imports,
    layers.peers,
    core.policies,
    core.memory_orders,
    core.fences,
    core.headers,
    core.built,
    core.declarations,
]

LONG = "\n  x();" * 80
HEADER = "#pragma once\nnamespace infcore::queue {\n"
RING = "csrc/infcore/queue/a.hpp"
BATCH = "csrc/infcore/batch/"
ROWS = f"{BATCH}batching_registry.def"
ROUTER = "python/infcore/router.py"
PXD = "python/infcore/_cpp/a.pxd"
PYX = "python/infcore/_core/a.pyx"
PYI = "python/infcore/_core/a.pyi"

# A rule, a tree that breaks it, what the complaint must name.
BROKEN: list[tuple[Rule, tree.Tree, str]] = [
    (tree.top_level, {"scripts/a.sh": "x\n"}, "scripts"),
    (tree.file_lines, {"python/a.py": "x = 1\n" * 501}, "501 lines"),
    (tree.file_lines, {"python/a.pyx": "x = 1\n" * 301}, "301 lines"),
    (tree.function_lines, {"a.py": "def f():\n" + "    x = 1\n" * 70}, "f has 71"),
    (tree.function_lines, {"a.py": "class A:\n    async def f():\n" + "        x = 1\n" * 70}, "f has 71"),
    (
        tree.function_lines,
        {"a.pyx": "cdef class A:\n    cdef int f(self) except -1:\n" + "        x = 1\n" * 70},
        "f has 71",
    ),
    (tree.function_lines, {"a.cpp": f"#include <x>\nnamespace a {{\nint run(int b) {{{LONG}\n}}\n}}\n"}, "run has 82"),
    (
        tree.function_lines,
        {"a.hpp": f"class A {{\n public:\n  A() : b_{{1}}, c_(2) {{{LONG}\n  }}\n  int b_{{0}};\n}};\n"},
        "A has 82",
    ),
    (
        tree.function_lines,
        {"a.hpp": f"struct A {{\n  auto f() {{\n  auto g = [](int a) {{{LONG}\n  }};\n  }}\n}};\n"},
        "f has 84",
    ),
    (tree.banned_names, {"python/infcore/batch_utils.py": "x\n"}, "utils"),
    (tree.banned_names, {"csrc/infcore/queue_v2/ring.hpp": "x\n"}, "v2"),
    (tree.empty_files, {"python/infcore/__init__.py": "\n"}, "empty"),
    (tree.left_open, {"a.py": "x = 1  # TO" + "DO: more\n"}, "a.py:1"),
    (tree.left_open, {"a.cpp": "int a;\n#if 0\n#endif\n"}, "a.cpp:2"),
    (tree.copyleft, {"a.hpp": "// SPDX-License-Identifier: G" + "PL-3.0\n"}, "a.hpp:1"),
    (
        layers.cpp_includes,
        {"csrc/infcore/base/a.hpp": "#include <infcore/contracts/b.hpp>\n"},
        "base may not include contracts",
    ),
    (layers.cpp_includes, {RING: "#include <infcore/batch/b.hpp>\n"}, "queue may not include batch"),
    (
        layers.cpp_includes,
        {"csrc/infcore/engine/a.hpp": "#include <infcore/sim/b.hpp>\n"},
        "engine may not include sim",
    ),
    (
        layers.cpp_includes,
        {"csrc/infcore/telemetry/a.hpp": "#include <infcore/queue/b.hpp>\n"},
        "telemetry may not include queue",
    ),
    (layers.cpp_includes, {RING: '#include "ring.hpp"\n'}, "write <infcore/...>"),
    (layers.cpp_includes, {"csrc/infcore/extra/a.hpp": "int a;\n"}, "no row in MAY_INCLUDE"),
    (layers.python_layers, {ROUTER: "from infcore._cpp import fleet\n"}, "only _core sees _cpp"),
    (layers.python_layers, {ROUTER: "from .cli import main\n"}, "nothing below imports"),
    (layers.python_layers, {ROUTER: "def f():\n    import infcore.profiling\n"}, "router.py:2"),
    (layers.python_layers, {PYX: "from infcore.router import Router\n"}, "_core sees _cpp"),
    (layers.python_layers, {PXD: "from infcore._core.base cimport Clock\n"}, "declarations only"),
    (layers.python_layers, {"python/infcore/cli.py": "from infcore._core import base\n"}, "use public modules"),
    (layers.python_layers, {"python/infcore/profiling/a.py": "from .._core.base import Clock\n"}, "use public modules"),
    (
        layers.python_layers,
        {"kernels/pack/launch.py": "from infcore.errors import InfcoreError\n"},
        "nothing of infcore",
    ),
    (
        layers.python_layers,
        {"python/infcore/a.py": "def f():\n    from reference import batching\n"},
        "nothing that is shipped",
    ),
    (layers.heavy_imports, {"python/infcore/device.py": "import onnxruntime as ort\n"}, "onnxruntime"),
    (
        layers.heavy_imports,
        {"python/infcore/a.py": "try:\n    from torch import nn\nexcept ImportError:\n    nn = None\n"},
        "torch",
    ),
    (layers.heavy_imports, {PYX: "import psutil\n"}, "psutil"),
    (layers.peers, {"tests/unit/test_a.py": "def f():\n    from ray import serve\n"}, "test_a.py:2"),
    (
        layers.peers,
        {"bench/peers/sides.py": "x\n", "bench/micro/a.py": "from sides import Side\n"},
        "nothing imports bench/peers",
    ),
    (core.policies, {f"{BATCH}policies/gain.cpp": "x\n"}, "gain is a file without a registry row"),
    (core.policies, {ROWS: "BATCHING_POLICY(gain)\n"}, "gain is a registry row without a file"),
    (
        core.policies,
        {f"{BATCH}policies/edf_gain.cpp": "x\n", ROWS: "BATCHING_POLICY(edf_gain)  // why\n"},
        "no class EdfGain",
    ),
    (core.policies, {ROWS: "BATCHING_POLICY(a)\nBATCHING_POLICY(a)\n"}, "a row stands twice"),
    (
        core.policies,
        {"csrc/infcore/queue/admission_registry.def": "ADMISSION_POLICY(gate, step)\n"},
        "gate is a registry row without a file",
    ),
    (core.memory_orders, {RING: "auto x = head_.load();\n"}, "load without"),
    (core.memory_orders, {RING: "int a;\nhead_->store(f(1),\n 2);  // memory_order\n"}, "a.hpp:2: store"),
    (core.memory_orders, {RING: "slot.sequence.fetch_add(1);\n"}, "fetch_add without"),
    (core.fences, {RING: "std::atomic_thread_fence(std::memory_order_seq_cst);\n"}, "a fence"),
    (core.headers, {RING: "namespace infcore::queue {\n"}, "#pragma once"),
    (core.headers, {RING: f"{HEADER}  using namespace std;\n"}, "using namespace"),
    (core.headers, {RING: "#pragma once\nnamespace infcore::batch {\n"}, "namespace"),
    (core.built, {"csrc/infcore/queue/a.cpp": "x\n"}, "not in CMakeLists.txt"),
    (core.built, {PYX: "x\n", PYI: "x\n"}, "no infcore_extension"),
    (core.built, {PYX: "x\n", "CMakeLists.txt": "foreach(stage a)\n"}, "no .pyi"),
    (core.declarations, {PXD: "cdef extern from 'a':\n    int f(int)\n"}, "a.pxd:2"),
    (core.declarations, {PXD: "    Ring(size_t,\n         int) except +\n"}, "a.pxd:1"),
    (core.declarations, {PXD: "    span[T] items() nogil\n"}, "items()"),
]

# A rule, a tree that looks like breaking it and does not.
SOUND: list[tuple[Rule, tree.Tree]] = [
    (tree.top_level, {".github/x": "x\n", "csrc/infcore/a.hpp": "x\n"}),
    (tree.function_lines, {"a.cpp": f"namespace a {{\nstruct B {{{LONG}\n}};\nint run() {{ return 1; }}\n}}\n"}),
    (tree.function_lines, {"a.pyx": "cdef class A(B):\n    def f(self):\n        x = 1\n" + "    cdef int y\n" * 70}),
    (tree.banned_names, {"python/infcore/threshold.py": "x\n"}),
    (layers.cpp_includes, {"csrc/infcore/sim/a.hpp": "#include <infcore/engine/b.hpp>\n#include <vector>\n"}),
    (layers.python_layers, {"python/infcore/cli.py": "from infcore.router import Router\nimport infcore.profiling\n"}),
    (
        layers.python_layers,
        {"kernels/pack/launch.py": "from .reference import pack\nfrom infcore.kernels.pack import reference\n"},
    ),
    (layers.heavy_imports, {"python/infcore/device.py": "def f():\n    import onnxruntime\n"}),
    (layers.heavy_imports, {"kernels/pack/triton_kernel.py": "import triton\n"}),
    (layers.peers, {"bench/peers/sides.py": "x\n", "bench/peers/ways.py": "import ray\nimport sides\n"}),
    (core.memory_orders, {RING: "head_.load(std::memory_order_acquire); // x.load()\n"}),
    (
        core.declarations,
        {PXD: "    Ring(size_t,\n         int) except +infcore_translate\n    int n() noexcept nogil\n"},
    ),
]


@pytest.fixture(scope="module")
def project() -> tree.Tree:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files are the project's is not known")
    return tree.read_tree(ROOT)


def _name(value: object) -> str | None:
    return value.__name__ if callable(value) else None


@pytest.mark.parametrize("rule", RULES, ids=_name)
def test_project_keeps(rule: Rule, project: tree.Tree) -> None:
    assert not (found := list(rule(project))), "\n".join(found)


@pytest.mark.parametrize(("rule", "broken", "named"), BROKEN, ids=_name)
def test_rule_finds(rule: Rule, broken: tree.Tree, named: str) -> None:
    found = list(rule(broken))
    assert any(named in complaint for complaint in found), found


@pytest.mark.parametrize(("rule", "sound"), SOUND, ids=_name)
def test_rule_lets_pass(rule: Rule, sound: tree.Tree) -> None:
    assert list(rule(sound)) == []


def test_every_rule_is_shown_to_fail() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(RULES)


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "DECISIONS.md"])
def test_python_examples_compile(document: str) -> None:
    text = (ROOT / document).read_text()
    for at, example in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)):
        compile(example, f"{document} example {at}", "exec")
