"""Rules about C++ and its Cython border. A rule takes the tree {path: text} and gives complaints."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from tidy.tree import Tree, line_of, without_comments


class Family(NamedTuple):
    """Where a kind of policy lives."""

    stage: str
    registry: str
    row: str
    models: str  # a module or a package of the reference models


FAMILIES = [
    Family("batch", "batching_registry.def", "BATCHING_POLICY", "batching"),
    Family("route", "routing_registry.def", "ROUTING_POLICY", "routing"),
    Family("cache", "eviction_registry.def", "EVICTION_POLICY", "eviction"),
    Family("queue", "admission_registry.def", "ADMISSION_POLICY", "admission"),
]
ATOMIC_CALL = re.compile(
    r"(?:\.|->)(load|store|exchange|compare_exchange_(?:weak|strong)|fetch_(?:add|sub|and|or|xor)|test_and_set)\s*\("
)


def policies(tree: Tree) -> Iterator[str]:
    """One policy = one file + one registry row + one plain Python model, all of one name."""
    for family in FAMILIES:
        folder = f"csrc/infcore/{family.stage}/"
        files = {
            PurePosixPath(path).stem for path in tree if path.startswith(f"{folder}policies/") and path.endswith(".cpp")
        }
        listed = re.findall(rf"^\s*{family.row}\((\w+)", without_comments(tree.get(folder + family.registry, "")), re.M)
        rows = set(listed)
        models = {
            name
            for path, text in tree.items()
            if _is_model(path, family)
            for name in re.findall(r"^class (\w+)", text, re.M)
        }
        if len(listed) != len(rows):
            yield f"{folder}{family.registry}: a row stands twice"
        for name in sorted(files ^ rows):
            what = "a file without a registry row" if name in files else "a registry row without a file"
            yield f"{folder}: {name} is {what}"
        for name in sorted(rows):
            if _class_name(name) not in models:
                yield f"tests/reference/{family.models}: no class {_class_name(name)} for the policy {name}"


def _is_model(path: str, family: Family) -> bool:
    """In the module of that name, a package of it, or one whose name begins with it."""
    return (
        re.fullmatch(rf"tests/reference/{family.models}(_\w+)?\.py|tests/reference/{family.models}/.*", path)
        is not None
    )


def _class_name(policy: str) -> str:
    return "".join(word.capitalize() for word in policy.split("_"))


def memory_orders(tree: Tree) -> Iterator[str]:
    """Every atomic operation names its order: the default is the dearest, and says nothing of what was meant."""
    for path, text in tree.items():
        if not path.startswith("csrc/"):
            continue
        code = without_comments(text)
        for found in ATOMIC_CALL.finditer(code):
            if "order" not in _arguments(code, found.end()):
                yield f"{path}:{line_of(code, found.start())}: {found.group(1)} without a memory order"


def _arguments(code: str, at: int) -> str:
    """What stands between the parenthesis opened just before `at` and its partner."""
    depth, end = 1, at
    while end < len(code) and depth:
        depth += {"(": 1, ")": -1}.get(code[end], 0)
        end += 1
    return code[at:end]


def fences(tree: Tree) -> Iterator[str]:
    """TSAN does not see a standalone fence, so its file must be under a model check."""
    checked = "".join(text for path, text in tree.items() if path.startswith("tests/concurrency/"))
    for path, text in tree.items():
        if path.startswith("csrc/") and "atomic_thread_fence" in without_comments(text):
            if path.removeprefix("csrc/") not in checked:
                yield f"{path}: a fence, and nothing in tests/concurrency includes the file"


def headers(tree: Tree) -> Iterator[str]:
    """A header guards itself, opens the namespace of its folder, and forces no names on those who include it."""
    for path, text in tree.items():
        if not (path.startswith("csrc/") and path.endswith(".hpp")):
            continue
        if not text.startswith("#pragma once"):
            yield f"{path}: does not begin with #pragma once"
        if re.search(r"^\s*using namespace\b", text, re.MULTILINE):
            yield f"{path}: using namespace in a header"
        if not re.search(rf"namespace infcore(::{path.split('/')[2]}\b| {{)", text):
            yield f"{path}: namespace is not that of its folder"


def built(tree: Tree) -> Iterator[str]:
    """What is written is built: each source in the library's list, each .pyx an extension, each extension typed."""
    cmake = tree.get("CMakeLists.txt", "")
    for path in tree:
        if path.startswith("csrc/") and path.endswith(".cpp") and "/policies/" not in path and path not in cmake:
            yield f"{path}: not in CMakeLists.txt"
        if path.startswith("python/") and path.endswith(".pyx"):
            stem = PurePosixPath(path).stem
            if not re.search(rf"\b{stem}\b", cmake.partition("foreach(")[2]):
                yield f"{path}: no infcore_extension({stem}) in CMakeLists.txt"
            if path.removesuffix("x") + "i" not in tree:
                yield f"{path}: no .pyi"


def declarations(tree: Tree) -> Iterator[str]:
    """A C++ exception through a bare declaration aborts the process: say noexcept, or translate."""
    good = re.compile(r"(\bnoexcept|except \+infcore_translate)( nogil)?$")
    for path, text in tree.items():
        if not (path.startswith("python/infcore/_cpp/") and path.endswith(".pxd")):
            continue
        for line, statement in _statements(text):
            is_function = re.search(r"[\w\]=+*<>()]\s*\(.*\)", statement) and not statement.endswith(":")
            if is_function and not good.search(statement) and statement != "void infcore_translate() except *":
                yield f"{path}:{line}: ends neither in noexcept nor in except +infcore_translate: {statement}"


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines of a .pxd, without comments, verbatim C++ and imports; a parenthesis joins lines."""
    code = re.sub(r'""".*?"""', lambda found: "\n" * found.group().count("\n"), text, flags=re.DOTALL)
    code = re.sub(r"#.*", "", code)
    begin, held = 1, ""
    for number, line in enumerate(code.splitlines(), 1):
        begin = begin if held else number
        held = f"{held} {line.strip()}".strip()
        if held.count("(") <= held.count(")"):
            if held and not re.match(r"(from|import|cimport)\b", held):
                yield begin, re.sub(r'"[^"]*"', "", held).strip()
            held = ""
