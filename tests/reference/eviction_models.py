"""Which plain model is whose."""

import importlib
from pathlib import Path
from typing import Any


def model_of(policy: str) -> Any:
    """A new model of a registry row, from whichever module reference/eviction*.py has a class of its name."""
    name = "".join(word.capitalize() for word in policy.split("_"))
    for path in sorted(Path(__file__).parent.glob("eviction*.py")):
        module = importlib.import_module(f"reference.{path.stem}")
        if hasattr(module, name):
            return getattr(module, name)()
    raise LookupError(f"no class {name} in tests/reference/eviction*.py")
