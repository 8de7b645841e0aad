"""Rules about who may know whom. A rule takes the tree {path: text} and gives complaints."""

import ast
import re
import sys
from collections.abc import Iterator

from tidy.tree import Tree, line_of

# Which folders of csrc/infcore/ a folder may include, besides itself. Every folder has a row.
BELOW_STAGES = {"base", "contracts", "telemetry"}
STAGES = {"queue", "batch", "route", "health", "device", "cache", "scale"}
MAY_INCLUDE: dict[str, set[str]] = {
    "base": set(),
    "contracts": {"base"},
    "telemetry": {"base", "contracts"},
    **dict.fromkeys(STAGES, BELOW_STAGES),
    "engine": BELOW_STAGES | STAGES,
    "sim": BELOW_STAGES | STAGES | {"engine"},
}
# Public modules that hold no more than names or plain data, so that the extensions below them may import them.
PLAIN_MODULES = {"errors"}
TOP_MODULES = {"cli", "profiling"}  # may import every public module; no other may import them
NEVER_SHIPPED = {"tests", "bench", "reference", "tidy", "pytest", "hypothesis"}
BASE_INSTALL = {"infcore", "numpy"} | set(sys.stdlib_module_names)
# Code of an extra, not imported with infcore (tests/unit/test_import.py looks): folder, what it may use on import.
EXTRAS = {"python/infcore/models/": {"PIL"}, "python/infcore/integrations/ray.py": {"ray"}}
# Packages of the peers' environment: only bench/peers imports them, and nothing imports bench/peers. Ray is a peer, and
# a server that infcore works in.
SERVED = {"python/infcore/integrations/": {"ray"}, "tests/integrations/": {"ray"}}
PEERS = {"batched", "bentoml", "cachebox", "cachetools", "dynamo", "litellm", "moka_py", "ray", "theine", "vllm"}
CYTHON_OWN = {"libc", "libcpp", "cpython", "cython", "numpy"}


def cpp_includes(tree: Tree) -> Iterator[str]:
    for path, text in tree.items():
        if not path.startswith("csrc/"):
            continue
        folder = path.split("/")[2]
        if folder not in MAY_INCLUDE:
            yield f"{path}: folder {folder} has no row in MAY_INCLUDE"
            continue
        for found in re.finditer(r'^ *# *include *([<"])([^>"]+)[>"]', text, re.MULTILINE):
            where, included = f"{path}:{line_of(text, found.start())}", found.group(2)
            if found.group(1) == '"' and not included.endswith(".def"):
                yield f"{where}: {included}: write <infcore/...>"
            if included.startswith("infcore/"):
                other = included.split("/")[1]
                if other != folder and other not in MAY_INCLUDE[folder]:
                    yield f"{where}: {folder} may not include {other}"


def python_imports(text: str, module: str, *, everywhere: bool = True) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import of a .py; everywhere=False: only those that run when it is imported."""
    package = module.split(".")[:-1]
    pending: list[ast.AST] = [ast.parse(text)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if everywhere or not (is_function or is_for_types):
            pending += ast.iter_child_nodes(node)


def cython_imports(text: str) -> Iterator[tuple[int, str]]:
    """The same of a .pyx or .pxd: import and cimport, relative ones as "infcore._core..."."""
    for found in re.finditer(r"^ *(?:from +([\w.]+) +c?import +(.+)|c?import +([\w.]+))", text, re.MULTILINE):
        line = line_of(text, found.start())
        if found.group(3):
            yield line, found.group(3)
            continue
        origin = re.sub(r"^\.+", "infcore._core.", found.group(1))
        for name in found.group(2).strip("()").split(","):
            if name.strip():
                yield line, f"{origin.rstrip('.')}.{name.split(' as ')[0].strip()}"


def module_of(path: str) -> str:
    """The name under which a shipped file is imported."""
    inside = path.removeprefix("python/").replace("kernels/", "infcore/kernels/", int(path.startswith("kernels/")))
    return re.sub(r"(/__init__)?\.\w+$", ".__init__" if "__init__" in inside else "", inside).replace("/", ".")


def _imports(path: str, text: str) -> Iterator[tuple[int, str]]:
    if path.endswith(".py"):
        return python_imports(text, module_of(path))
    return cython_imports(text)


def _forbidden(layer: str, name: str) -> str:
    """Why a file of a layer may not import a name of infcore; empty where it may."""
    parts = [*name.split("."), ""]
    target = parts[1]
    if layer == "_cpp" and target != "_cpp":
        return "_cpp holds declarations only, and sees no other layer"
    if layer == "_core" and target not in {"_cpp", "_core", *PLAIN_MODULES}:
        return "_core sees _cpp and plain modules"
    if layer == "kernels" and target != "kernels":
        return "kernels import nothing of infcore"
    if layer not in {"_cpp", "_core"} and target == "_cpp":
        return "only _core sees _cpp"
    if layer in TOP_MODULES and target == "_core":
        return "the command line and profiling use public modules"
    if layer not in TOP_MODULES and layer != "__main__" and target in TOP_MODULES:
        return "nothing below imports the command line or profiling"
    return ""


def shipped(path: str) -> bool:
    return path.startswith(("python/infcore/", "kernels/")) and path.endswith((".py", ".pyx", ".pxd"))


def python_layers(tree: Tree) -> Iterator[str]:
    for path, text in tree.items():
        if not shipped(path):
            continue
        layer = "kernels" if path.startswith("kernels/") else path.split("/")[2].split(".")[0]
        for line, name in _imports(path, text):
            root = name.split(".")[0]
            why = _forbidden(layer, name) if root == "infcore" else ""
            if root in NEVER_SHIPPED or ".tests" in name:
                why = "nothing that is shipped imports tests, bench or the reference models"
            if why:
                yield f"{path}:{line}: imports {name}: {why}"


def heavy_imports(tree: Tree) -> Iterator[str]:
    """The base install is NumPy alone: all else is imported inside the function that needs it."""
    for path, text in tree.items():
        if not shipped(path) or path.endswith("_kernel.py"):  # JIT sources: imported by their launch() only
            continue
        if path.endswith(".py"):
            found, allowed = python_imports(text, module_of(path), everywhere=False), BASE_INSTALL
        else:
            found, allowed = cython_imports(text), BASE_INSTALL | CYTHON_OWN
        extra = {root for folder, roots in EXTRAS.items() if path.startswith(folder) for root in roots}
        for line, name in found:
            if name.split(".")[0] not in allowed | extra:
                yield f"{path}:{line}: imports {name} on import; the base install has NumPy only"


def peers(tree: Tree) -> Iterator[str]:
    """What infcore is measured against has an environment of its own, in which only bench/peers runs."""
    folder = "bench/peers/"
    theirs = {path.removeprefix(folder).removesuffix(".py") for path in tree if path.startswith(folder)}
    for path, text in tree.items():
        if not path.endswith(".py") or path.startswith(folder):
            continue
        served = {root for where, roots in SERVED.items() if path.startswith(where) for root in roots}
        for line, name in python_imports(text, module_of(path)):
            if name.split(".")[0] in (PEERS - served) | theirs or name.startswith("bench.peers"):
                yield f"{path}:{line}: imports {name}: only bench/peers imports peers, and nothing imports bench/peers"
