"""A cache's entries in a file, and back: what was dear to make need not be made again after a restart."""

import math
import os
import pickle as pickling
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from infcore import _checks
from infcore._core.cache import Store
from infcore.cache.plain_values import DEPTH_MAX, NotPlain, Piece, decode, encode, encode_key, is_key
from infcore.cache.room import Going, Room
from infcore.cache.snapshot_file import Reader, Record, write_file
from infcore.errors import InvalidArgument, InvalidType

Odd = Literal["skip", "refuse"]


@dataclass(frozen=True, kw_only=True)
class Saved:
    """entries that are in the file; skipped: whose key or value could not be written; n_bytes of the file."""

    entries: int
    skipped: int
    n_bytes: int


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What became of a snapshot's entries.

    entries   in the cache now; evicted: others that went for them
    present   there already, or newer, or what is put by then may not be older
    no_room   too large, or worth less than what would have had to go
    expired   dead by now
    skipped   pickled, or of a class that is no more
    """

    entries: int = 0
    evicted: int = 0
    present: int = 0
    no_room: int = 0
    expired: int = 0
    skipped: int = 0


def save_snapshot(
    cache: Store,
    path: str | os.PathLike[str],
    *,
    pickle: bool = False,
    unwritable: Odd = "skip",
    at_s: float | None = None,
) -> Saved:
    """Write the live entries: value, size, cost, reuse, time left, stale time, tags, version; worth most a byte first.

    Keys are int, str, bytes or tuples of these; values None, bool, int, float, str, bytes, NumPy arrays without Python
    objects, and lists, tuples and dicts of these, in exactly these types.
    pickle      whether other values are pickled; then only load_snapshot(pickle=True) reads them
    unwritable  what else cannot be written is left out and counted, or "refuse": InvalidType, and no file is written
    at_s        now, in seconds of a clock that goes on while nobody runs, such as time.time(): load_snapshot(at_s=...)
                takes off the time between. None: lives go on where they stopped
    Values must not be changed meanwhile. The file is replaced once the new one is on the disk, and is readable to its
    owner alone; a process that is killed meanwhile leaves the old one.
    Raises      OSError, InvalidArgument where somebody else is writing it, InvalidType
    Complexity  O(bytes + entries log entries); memory for references to the entries and one encoded value
    """
    where, at_s = _checks.path("path", path), _checks.optional_finite("at_s", at_s, -math.inf)
    _checks.flag("pickle", pickle)
    _odd("unwritable", unwritable)
    rows = cache.entries()
    rows.sort(key=lambda row: row[2]["cost_us"] * row[2]["reuse"] / row[2]["size_bytes"], reverse=True)
    skipped = 0

    def records() -> Iterator[tuple[Record, list[Piece]]]:
        nonlocal skipped
        for key, value, told in rows:
            try:
                yield _record(key, value, told, pickle)
            except NotPlain as error:
                if unwritable == "refuse":
                    raise InvalidType(
                        f"key {key!r:.100}: {error}; allowed: plain values, or unwritable='skip'"
                    ) from None
                skipped += 1

    n_bytes = write_file(where, at_s, records())
    return Saved(entries=len(rows) - skipped, skipped=skipped, n_bytes=n_bytes)


def _record(key: object, value: object, told: dict[str, Any], pickle: bool) -> tuple[Record, list[Piece]]:
    written_key, pickled = encode_key(key), False
    try:
        pieces = encode(value)
    except NotPlain:
        if not pickle:
            raise
        try:
            pieces, pickled = [pickling.dumps(value, protocol=5)], True
        except Exception as error:  # noqa: BLE001  (whatever a class raises)
            raise NotPlain(f"pickle: {error}") from None
    record = Record(
        size_bytes=told["size_bytes"],
        version=told["version"],
        cost_us=told["cost_us"],
        reuse=told["reuse"],
        ttl_s=math.inf if told["ttl_s"] is None else told["ttl_s"],
        stale_s=told["stale_s"],
        pickled=pickled,
        key=written_key,
        tags=b"".join(encode(told["tags"])),
    )
    return record, pieces


def load_snapshot(
    cache: Store,
    path: str | os.PathLike[str],
    *,
    pickle: bool = False,
    unreadable: Odd = "skip",
    at_s: float | None = None,
) -> Loaded:
    """Bring in a snapshot's entries, those worth most a byte first; the whole file is checked before the first is used.

    What is in the cache stays, unless its version is older. Where there is no room, others go only if cost * reuse of
    what comes is more than the cost of what goes.
    pickle      whether pickled values are read, which runs code that the file names: only of files you trust
    unreadable  pickled values otherwise, and those of classes that are no more, are left out and counted, or "refuse":
                SnapshotError at the first; what came before it stays
    at_s        now, of the clock that save_snapshot(at_s=...) was told; entries that expired between stay away
    Raises      SnapshotError where the file is torn, changed or no snapshot: nothing of it is loaded; OSError
    Complexity  the file is read twice; memory of one entry, and where room is made, of a row per entry of the cache
    """
    where, at_s = _checks.path("path", path), _checks.optional_finite("at_s", at_s, -math.inf)
    _checks.flag("pickle", pickle)
    _odd("unreadable", unreadable)
    with Reader(where) as reader:
        if at_s is not None and reader.at_s is None:
            raise InvalidArgument(f"at_s is {at_s}, and the snapshot was saved without; allowed: None")
        passed_s = 0.0 if at_s is None or reader.at_s is None else max(0.0, at_s - reader.at_s)
        loading = _Loading(cache, reader, pickle, unreadable == "refuse")
        for offset, record in reader.records():
            loading.counts[loading.load(offset, record, passed_s)] += 1
        return Loaded(**loading.counts)


class _Loading:
    """One load: what it counted, and the room it makes."""

    def __init__(self, cache: Store, reader: Reader, pickle: bool, refuse: bool):
        self.counts = dict.fromkeys(("entries", "evicted", "present", "no_room", "expired", "skipped"), 0)
        self._cache, self._reader, self._pickle, self._refuse = cache, reader, pickle, refuse
        self._room: Room | None = None

    def load(self, offset: int, record: Record, passed_s: float) -> str:
        """What became of the entry: a name of counts."""
        ttl_s, stale_s = record.ttl_s - passed_s, record.stale_s
        if ttl_s <= 0.0:
            return "expired"
        key, tags = _plain(self._reader, offset, lambda: (decode(record.key), decode(record.tags)))
        if not is_key(key, DEPTH_MAX) or not isinstance(tags, tuple) or not all(isinstance(tag, str) for tag in tags):
            raise self._reader.wrong(offset, "this is no key, or no tags")
        worth_us = record.cost_us * record.reuse
        told: dict[str, Any] = {
            "size_bytes": record.size_bytes,
            "cost_us": record.cost_us,
            "ttl_s": None if ttl_s == math.inf else ttl_s,
            "stale_s": stale_s,
            "tags": tags,
            "version": record.version,
            "reuse": record.reuse,
        }
        place = self._cache.place_of(key)
        if self._cache.version_of(key) >= record.version:
            return "present"
        going: Going | None = Going((), 0.0)
        if self._room is not None or self._cache.free_bytes()[place] < record.size_bytes:
            if self._room is None:
                self._room = Room.of_cache(self._cache, lambda _, cost_us: cost_us)
            going = self._room.look(place, record.size_bytes, worth_us, key)
        if going is None:
            return "no_room"
        read = self._value(offset, record)
        if read is None:
            return "skipped"
        if not self._cache.bring(key, read[0], instead_of=going.keys, **told):
            return "present"
        if self._room is not None:
            self._room.give(place, record.size_bytes, going, key)
        self.counts["evicted"] += len(going.keys)
        return "entries"

    def _value(self, offset: int, record: Record) -> tuple[Any] | None:
        data = self._reader.value(offset)
        if not record.pickled:
            return (_plain(self._reader, offset, lambda: decode(data)),)
        why = "a pickled value, which pickle=True reads"
        if self._pickle:
            try:
                return (pickling.loads(data),)
            except Exception as error:  # noqa: BLE001  (whatever a class raises)
                why = f"pickle: {error}"
        if self._refuse:
            raise self._reader.wrong(offset, why)
        return None


def _plain(reader: Reader, offset: int, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except NotPlain as error:
        raise reader.wrong(offset, str(error)) from None


def _odd(field: str, value: object) -> None:
    if value not in ("skip", "refuse"):
        raise InvalidArgument(f"{field} is {value!r}; allowed: 'skip', 'refuse'")
