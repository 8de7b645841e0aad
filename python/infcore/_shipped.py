"""The TOML files that come with infcore: suites of `infcore bench` and scenarios of `infcore simulate`."""

import importlib.resources
import re
from pathlib import Path
from typing import Literal

from infcore._toml_table import read_text
from infcore.errors import InvalidArgument, UnknownName

What = Literal["suite", "scenario"]
# The table that one of them must have and the other may not.
_OWN_TABLE = {"suite": "device", "scenario": "node"}


def _texts() -> dict[str, str]:
    """Name and text of each file, sorted. bench/suites of the checkout where infcore is installed editable."""
    folder = importlib.resources.files("infcore") / "suites"
    if not folder.is_dir():
        return {}
    files = sorted((item for item in folder.iterdir() if item.name.endswith(".toml")), key=lambda item: item.name)
    return {item.name.removesuffix(".toml"): item.read_text(encoding="utf-8") for item in files}


def folder() -> Path:
    """Where the shipped files are: traces that a shipped scenario names stand beside it."""
    return Path(str(importlib.resources.files("infcore") / "suites"))


def names(what: What) -> list[str]:
    """Names of the shipped files of one kind, sorted."""
    header = re.compile(rf"^\s*\[\[{_OWN_TABLE[what]}\]\]", re.MULTILINE)
    return [name for name, text in _texts().items() if header.search(text)]


def read(name_or_path: str, what: What) -> tuple[str, str]:
    """Text of a shipped file or of one at a path, and what messages call it. Raises UnknownName, InvalidArgument."""
    if not isinstance(name_or_path, str):
        raise InvalidArgument(f"{what} must be a name or a path, got {name_or_path!r}")
    if name_or_path.endswith(".toml") or "/" in name_or_path:
        return read_text(name_or_path, what=what), name_or_path
    texts = _texts()
    if name_or_path not in texts:
        raise UnknownName(
            f"{what} must be one of {', '.join(names(what))} or a path to a .toml file, got {name_or_path!r}"
        )
    return texts[name_or_path], f"{name_or_path}.toml"
