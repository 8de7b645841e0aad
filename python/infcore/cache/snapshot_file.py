"""The snapshot file: written whole or not at all, and checked before anything of it is believed.

    header   magic (8), format version (u32), zero (u32), at_s (f64, NaN: not said), CRC-32 of these
    entry    "E", lengths of key, tags, value (u64 each), size_bytes, version (u64), cost_us, reuse, ttl_s (inf: never),
             stale_s (f64), 1 where the value is pickled (u8), CRC-32 of these; key, tags, value; CRC-32 of these
    end      "Z", number of entries (u64), BLAKE2b-128 of all before, CRC-32 of these; then the file ends

Little-endian. The CRCs say where a file broke, the digest that nothing is missing, moved or of another file. It is no
signature: who can write the file can write any values into it.
"""

import contextlib
import fcntl
import hashlib
import io
import math
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from infcore.cache.plain_values import Piece
from infcore.errors import InvalidArgument, SnapshotError

_MAGIC = b"INFSNAP\n"
_FORMAT_VERSION = 1
_HEADER = struct.Struct("<8sIId")
_ENTRY = struct.Struct("<cQQQQQddddB")
_END = struct.Struct("<cQ16s")
_CRC = struct.Struct("<I")
_CHUNK = 1 << 20
_Digest = hashlib.blake2b
_NUMBER_MAX = 0x7FFFFFFFFFFFFFFF


class Record(NamedTuple):
    """An entry as it lies in the file."""

    size_bytes: int
    version: int
    cost_us: float
    reuse: float
    ttl_s: float
    stale_s: float
    pickled: bool
    key: bytes
    tags: bytes


class _Sink:
    """Writes, and knows the digest of what was written."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._digest = hashlib.blake2b(digest_size=16)
        self.n_bytes = 0

    def write(self, *pieces: Piece) -> None:
        crc = 0
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
            self._out(piece)
        self._out(_CRC.pack(crc))

    def _out(self, piece: Piece) -> None:
        self._digest.update(piece)
        self._file.write(piece)
        self.n_bytes += len(piece)

    def digest(self) -> bytes:
        return self._digest.digest()


def write_file(path: str, at_s: float | None, records: Iterable[tuple[Record, list[Piece]]]) -> int:
    """Put the records into a file that takes the place of the old one once all of it is on the disk; its bytes.

    Until then, and for good where anything fails, the old one stays whole. Of two writers at once, one is refused.
    Raises  OSError, InvalidArgument, what `records` raises
    """
    path = os.path.realpath(path)
    beside = f"{path}.tmp"  # one name: what a killed process leaves, the next one overwrites
    with _locked(beside) as file:
        try:
            sink = _Sink(file)
            sink.write(_HEADER.pack(_MAGIC, _FORMAT_VERSION, 0, math.nan if at_s is None else at_s))
            n_entries = 0
            for it, value in records:
                lengths = (len(it.key), len(it.tags), sum(map(len, value)))
                numbers = (it.size_bytes, it.version, it.cost_us, it.reuse, it.ttl_s, it.stale_s, it.pickled)
                sink.write(_ENTRY.pack(b"E", *lengths, *numbers))
                sink.write(it.key, it.tags, *value)
                n_entries += 1
            sink.write(_END.pack(b"Z", n_entries, sink.digest()))
            file.flush()
            os.fsync(file.fileno())
            os.rename(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the new name, too, outlives a crash
    finally:
        os.close(folder)
    return sink.n_bytes


@contextlib.contextmanager
def _locked(path: str) -> Iterator[BinaryIO]:
    """The file, empty, for this process alone. Readable to its owner alone: it holds answers."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb", _CHUNK) as file:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InvalidArgument(
                    f"path is {path[:-4]!r}, which somebody is writing; allowed: one at a time"
                ) from None
            if _is_at(fd, path):  # else its writer was done just before we locked it
                os.fchmod(fd, 0o600)  # what lay there may have been anybody's to read
                os.ftruncate(fd, 0)
                yield file
                return


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


class Reader:
    """A snapshot, open and found whole. Holds one entry at a time, whatever the file's length.

    Opening reads all of it once. Raises SnapshotError, OSError
    """

    def __init__(self, path: str):
        self._path = path
        self._file = io.BufferedReader(open(path, "rb", 0), _CHUNK)  # noqa: SIM115  (closed by close())
        try:
            self._n_bytes = os.fstat(self._file.fileno()).st_size
            self.at_s = self._check()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def wrong(self, offset: int, why: str) -> SnapshotError:
        return SnapshotError(self._path, offset, why)

    def _check(self) -> float | None:
        digest = _Digest(digest_size=16)
        head = self._checked(_HEADER.size, digest, "the header")
        magic, version, zero, at_s = _HEADER.unpack(head)
        if magic != _MAGIC:
            raise self.wrong(0, "this is no snapshot")
        if version != _FORMAT_VERSION or zero != 0:
            raise self.wrong(8, f"format version {version}; this reads {_FORMAT_VERSION}")
        n_entries = 0
        while True:
            at, so_far = self._file.tell(), digest.digest()
            kind = self._file.peek(1)[:1]
            if kind == b"Z":
                break
            lengths = self._lengths(self._checked(_ENTRY.size, digest, "an entry's head"), at)
            crc, left = 0, sum(lengths)
            while left:
                chunk = self._read(min(left, _CHUNK), "an entry")
                crc, left = zlib.crc32(chunk, crc), left - len(chunk)
                digest.update(chunk)
            self._same_crc(crc, digest, at, "an entry")
            n_entries += 1
        _, n_said, said = _END.unpack(self._checked(_END.size, digest, "the end"))
        if n_said != n_entries or said != so_far:
            raise self.wrong(at, f"{n_entries} entries are not what was written: {n_said}, or of another file")
        if self._file.tell() != self._n_bytes:
            raise self.wrong(self._file.tell(), f"{self._n_bytes - self._file.tell()} bytes follow the end")
        return None if math.isnan(at_s) else float(at_s)

    def _lengths(self, head: bytes, at: int) -> tuple[int, int, int]:
        kind, n_key, n_tags, n_value, size_bytes, version, *numbers, pickled = _ENTRY.unpack(head)
        sound = kind == b"E" and pickled <= 1 and max(size_bytes, version) <= _NUMBER_MAX
        sound = sound and all(x >= 0.0 for x in numbers) and all(map(math.isfinite, numbers[:2]))
        if not sound or n_key + n_tags + n_value > self._n_bytes - self._file.tell():
            raise self.wrong(at, "this is no entry")
        return n_key, n_tags, n_value

    def _read(self, n: int, what: str) -> bytes:
        at = self._file.tell()
        data = self._file.read(n)
        if len(data) < n:
            raise self.wrong(at, f"{what} is cut off: {n} bytes should follow, {len(data)} do")
        return data

    def _same_crc(self, crc: int, digest: _Digest | None, at: int, what: str) -> None:
        written = self._read(_CRC.size, what)
        if _CRC.unpack(written)[0] != crc:
            raise self.wrong(at, f"{what} is not as it was written: its checksum differs")
        if digest is not None:
            digest.update(written)

    def _checked(self, n: int, digest: _Digest | None, what: str) -> bytes:
        at = self._file.tell()
        data = self._read(n, what)
        if digest is not None:
            digest.update(data)
        self._same_crc(zlib.crc32(data), digest, at, what)
        return data

    def records(self) -> Iterator[tuple[int, Record]]:
        """Each entry and its offset, in the order in which they were written; value() reads the value of the last."""
        at = _HEADER.size + _CRC.size
        while True:
            self._file.seek(at)
            if self._file.peek(1)[:1] == b"Z":
                return
            head = self._checked(_ENTRY.size, None, "an entry's head")
            n_key, n_tags, n_value = self._lengths(head, at)
            _, _, _, _, size_bytes, version, cost_us, reuse, ttl_s, stale_s, pickled = _ENTRY.unpack(head)
            key, tags = self._read(n_key, "an entry"), self._read(n_tags, "an entry")
            numbers = (size_bytes, version, cost_us, reuse, ttl_s, stale_s, bool(pickled))
            yield at, Record(*numbers, key, tags)
            at += _ENTRY.size + _CRC.size + n_key + n_tags + n_value + _CRC.size

    def value(self, at: int) -> bytes:
        """The bytes of the value of the entry at that offset, checked again: the file may have changed meanwhile."""
        self._file.seek(at)
        n_key, n_tags, n_value = self._lengths(self._checked(_ENTRY.size, None, "an entry's head"), at)
        crc = zlib.crc32(self._read(n_key + n_tags, "an entry"))
        value = self._read(n_value, "an entry")
        self._same_crc(zlib.crc32(value, crc), None, at, "an entry")
        return value
