"""Rules about files as such. A rule takes the tree {path: text} and gives complaints."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

Tree = dict[str, str]

TOP_LEVEL = {
    "pyproject.toml", "CMakeLists.txt", "Makefile", "LICENSE",
    "README.md", "ARCHITECTURE.md", "DECISIONS.md", "CHANGELOG.md",
    "csrc", "python", "kernels", "bench", "tests",
}  # fmt: skip
SOURCE_SUFFIXES = {".py", ".pyi", ".pyx", ".pxd", ".hpp", ".cpp", ".cuh", ".def"}
LINES_MAX = {".pyx": 300}
LINES_MAX_ELSE = 500
FUNCTION_LINES_MAX = 70
BANNED_WORDS = {"util", "utils", "misc", "v2", "old"}
MAY_BE_EMPTY = {"py.typed", "__init__.pxd"}
# Spelt in pieces, so that the rules do not find themselves.
LEFT_OPEN = re.compile(
    r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK"]) + r")\b|^#if 0\b", re.MULTILINE
)
COPYLEFT = re.compile(
    r"\b[AL]?G" + r"PL\b|\bG" + r"PLv?[23]\b|GNU (Lesser |Affero )?General " + "Public", re.IGNORECASE
)


def read_tree(root: Path) -> Tree:
    """What git has, or would take, of the project; a file that is no text reads "(binary)"."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    files = [root / name for name in names.split("\0") if name]
    return {path.relative_to(root).as_posix(): _text(path) for path in files if path.is_file()}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return "(binary)"


def is_source(path: str) -> bool:
    return PurePosixPath(path).suffix in SOURCE_SUFFIXES


def line_of(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def top_level(tree: Tree) -> Iterator[str]:
    """The top level is a table of contents: nothing else stands there."""
    for name in sorted({path.split("/")[0] for path in tree}):
        if name not in TOP_LEVEL and not name.startswith("."):
            yield f"{name}: not one of the top level's entries"


def file_lines(tree: Tree) -> Iterator[str]:
    for path, text in tree.items():
        allowed = LINES_MAX.get(PurePosixPath(path).suffix, LINES_MAX_ELSE)
        n_lines = text.count("\n")
        if is_source(path) and n_lines > allowed:
            yield f"{path}: {n_lines} lines, allowed {allowed}: split it by what it does"


def banned_names(tree: Tree) -> Iterator[str]:
    """A name that says nothing of what is inside."""
    for path in tree:
        for part in path.split("/"):
            word = BANNED_WORDS & set(re.split(r"[_.\-]", part.lower()))
            if word:
                yield f"{path}: '{word.pop()}' in a name"


def empty_files(tree: Tree) -> Iterator[str]:
    for path, text in tree.items():
        if not text.strip() and PurePosixPath(path).name not in MAY_BE_EMPTY:
            yield f"{path}: empty"


def left_open(tree: Tree) -> Iterator[str]:
    """Work marked as unfinished, or switched off."""
    for path, text in tree.items():
        if is_source(path):
            for found in LEFT_OPEN.finditer(text):
                yield f"{path}:{line_of(text, found.start())}: '{found.group()}'"


def copyleft(tree: Tree) -> Iterator[str]:
    """The licence is Apache-2.0: no source under another that asks more."""
    for path, text in tree.items():
        found = COPYLEFT.search(text) if is_source(path) else None
        if found:
            yield f"{path}:{line_of(text, found.start())}: '{found.group()}'"


def function_lines(tree: Tree) -> Iterator[str]:
    for path, text in tree.items():
        suffix = PurePosixPath(path).suffix
        if suffix == ".py":
            found = _python_functions(text)
        elif suffix == ".pyx":
            found = _cython_functions(text)
        elif suffix in {".hpp", ".cpp", ".cuh"}:
            found = _cpp_functions(text)
        else:
            continue
        for name, line, n_lines in found:
            if n_lines > FUNCTION_LINES_MAX:
                yield f"{path}:{line}: {name} has {n_lines} lines, allowed {FUNCTION_LINES_MAX}"


def _python_functions(text: str) -> Iterator[tuple[str, int, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            yield node.name, node.lineno, node.end_lineno - node.lineno + 1


def _cython_functions(text: str) -> Iterator[tuple[str, int, int]]:
    """A def, cdef or cpdef with an argument list and what is indented below it."""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        head = re.match(r"( *)(?:async )?(?:c|cp)?def\b(?! (?:class|struct|enum|extern)\b)[^=#]*?(\w+)\(", line)
        if head is None:
            continue
        end = at
        for below in range(at + 1, len(lines)):
            if lines[below].strip() and not lines[below].lstrip().startswith(")"):
                if len(lines[below]) - len(lines[below].lstrip()) <= len(head.group(1)):
                    break
                end = below
        yield head.group(2), at + 1, end - at + 1


def without_comments(text: str) -> str:
    """C++ with comments, strings and characters blanked; every line keeps its number."""
    pattern = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|(?<!\w)\'(?:\\.|[^\'\\\n])\''
    return re.sub(pattern, lambda found: re.sub(r"[^\n]", " ", found.group()), text, flags=re.DOTALL)


def _cpp_functions(text: str) -> Iterator[tuple[str, int, int]]:
    """Outermost braces whose head has an argument list and names no type. A brace that touches the word before it
    (`field_{1}`, as clang-format writes it) initialises and opens no body."""
    code = re.sub(
        r"^ *#.*|\b(public|private|protected):", lambda m: " " * len(m.group()), without_comments(text), flags=re.M
    )
    is_type = re.compile(r"\s*(template\s*<.*>\s*)?(namespace|class|struct|enum|union|extern)\b", re.DOTALL)
    open_braces: list[tuple[str | None, int]] = []  # None: initialises. Else the function it opens, or "" for any other
    head_at = 0
    for brace in re.finditer(r"[;{}]", code):
        at = brace.start()
        if brace.group() == "{":
            if at > 0 and not code[at - 1].isspace():
                open_braces.append((None, at))
                continue
            head = code[head_at:at]
            called = re.search(r"([\w~]+)\s*\(", head)
            inside = any(name for name, _ in open_braces)
            is_body = called is not None and not inside and not is_type.match(head)
            open_braces.append((called.group(1) if called and is_body else "", at - len(head.lstrip())))
        elif brace.group() == "}" and open_braces:
            name, begin = open_braces.pop()
            if name is None:
                continue
            if name:
                yield name, line_of(code, begin), code.count("\n", begin, at) + 1
        head_at = at + 1
