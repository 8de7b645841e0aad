"""infcore.pack onto a device: rows staged into pinned memory, one copy, one kernel."""

from __future__ import annotations

from typing import Any

from infcore.errors import InvalidArgument


def _pack_on_device(rows: Any, lengths: Any, layout: str, device: str, *rest: Any) -> Any:
    raise InvalidArgument(f"device is {device!r}; allowed: 'cpu'")
