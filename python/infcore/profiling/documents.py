"""Documents of `infcore bench` and `infcore simulate` read back from JSON, each checked before it is drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infcore.errors import InvalidArgument
from infcore.profiling import schema, simulation_shape, simulations


@dataclass(frozen=True)
class Kind:
    """What a command's documents hold at least: keys of their own, and keys of each of the rows under `rows`."""

    version: int
    required: Sequence[str]
    rows: str
    required_row: Sequence[str]
    read: Callable[[dict[str, Any], str], dict[str, Any]] = lambda values, where: values


KINDS: Mapping[str, Kind] = {
    "bench": Kind(schema.SCHEMA_VERSION, schema.REQUIRED, "policies", schema.REQUIRED_POLICY),
    "simulate": Kind(
        simulations.SCHEMA_VERSION,
        simulations.REQUIRED,
        "runs",
        simulations.REQUIRED_RUN,
        read=simulation_shape.read,
    ),
}


def check(values: Any, *, where: str) -> dict[str, Any]:
    """A document read back, with what the report needs.

    where   what messages call it
    Raises  InvalidArgument naming `where` and what is missing, of another version or not what it should be
    """
    command = values.get("command") if isinstance(values, dict) else None
    kind = KINDS.get(command) if isinstance(command, str) else None
    if kind is None:
        raise InvalidArgument(
            f"{where} must be a JSON document written by `infcore bench --json` or `infcore simulate --json`"
        )
    if values.get("schema_version") != kind.version:
        raise InvalidArgument(f"{where}: schema_version must be {kind.version}, got {values.get('schema_version')!r}")
    if values.get("swarm"):
        raise InvalidArgument(
            f"{where} is of `infcore simulate --swarm`, which counts seeds and has nothing to draw; allowed: the "
            "document of a run without --swarm"
        )
    missing = [key for key in kind.required if key not in values]
    rows = values.get(kind.rows)
    for i, row in enumerate(rows if isinstance(rows, list) else []):
        missing += [
            f"{kind.rows}[{i}].{key}" for key in kind.required_row if not isinstance(row, dict) or key not in row
        ]
    if missing:
        raise InvalidArgument(f"{where} lacks {', '.join(missing)}")
    return kind.read(values, where)
