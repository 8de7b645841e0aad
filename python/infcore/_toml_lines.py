"""On which line of a TOML text a value stands: tomllib does not say."""

import re

Path = tuple[str | int, ...]

# What may stand in a value, one piece after the other. Long strings first: their first two quotes read as an empty one.
_PIECE = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2}(?!"))'
    r"|'''.*?'''(?:'{0,2}(?!'))"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[\[\]{}\n]"
    r"|[^\[\]{}\n\"'#]+",
    re.DOTALL,
)
_PART = re.compile(r'"((?:\\.|[^"\\\n])*)"|\'([^\'\n]*)\'|([A-Za-z0-9_-]+)')
_HEAD = re.compile(r"[ \t\r]*(\[\[|\[)?")
_KEY = re.compile(rf"[ \t]*(?:{_PART.pattern})(?:[ \t]*\.[ \t]*(?:{_PART.pattern}))*[ \t]*")


def lines_of(text: str) -> dict[Path, int]:
    """The line, counted from 1, of each table header and of each key in a text that tomllib accepted.

    Paths are as the values are reached: ("node", 2, "labels"). What stands inside an inline table or an array has no
    line of its own. A key is found by its spelling; one with escapes in it keeps them and is not found.
    Complexity: linear in the text.
    """
    found: dict[Path, int] = {}
    n_rows: dict[Path, int] = {}  # how many [[...]] headers an array of tables has had so far
    table: Path = ()
    at, line = 0, 1
    while at < len(text):
        head = _HEAD.match(text, at)
        assert head is not None
        at = head.end()
        key = _KEY.match(text, at)
        if key is not None and head.group(1):
            table = _table(key.group(), n_rows, is_row=head.group(1) == "[[")
            for n in range(1, len(table) + 1):
                found.setdefault(table[:n], line)
            at = key.end()
        elif key is not None and text[key.end() : key.end() + 1] == "=":
            parts = _parts(key.group())
            for n in range(1, len(parts) + 1):
                found.setdefault((*table, *parts[:n]), line)
            at = key.end() + 1
        at, n_lines = _skip(text, at)
        line += n_lines
    return found


def _parts(key: str) -> list[str]:
    return [next(part for part in found.groups() if part is not None) for found in _PART.finditer(key)]


def _table(key: str, n_rows: dict[Path, int], *, is_row: bool) -> Path:
    """The path that a header opens: each array of tables on the way stands for its last row."""
    path: Path = ()
    parts = _parts(key)
    for n, part in enumerate(parts, 1):
        path = (*path, part)
        if n == len(parts) and is_row:
            n_rows[path] = n_rows.get(path, 0) + 1
        if path in n_rows:
            path = (*path, n_rows[path] - 1)
    return path


def _skip(text: str, at: int) -> tuple[int, int]:
    """Past the line break that ends the statement, and how many were passed."""
    depth = n_lines = 0
    while at < len(text):
        piece = _PIECE.match(text, at)
        word = piece.group() if piece is not None else text[at]
        at += len(word)
        n_lines += word.count("\n")
        if word in "[{":
            depth += 1
        elif word in "]}":
            depth -= 1
        elif word == "\n" and depth <= 0:
            break
    return at, n_lines
