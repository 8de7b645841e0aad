"""Trace files: unpacked on the way, lines with their numbers, errors that say where."""

import gzip
import importlib
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from infcore._toml_table import shown
from infcore.errors import InvalidArgument, MissingExtra

# The longest row of the Mooncake trace has 2.5 kB.
LINE_BYTES_MAX = 1 << 20
_BROKEN: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, lzma.LZMAError)


def wrong(where: str, line: int, field: str, allowed: str, value: object) -> InvalidArgument:
    """The error for a field of a line."""
    return InvalidArgument(f"{where}:{line}: {field} must be {allowed}, got {shown(value)}")


def opened(path: str) -> io.BufferedReader:
    """The file's bytes, unpacked where its first ones say that it is packed: gzip, xz, or zstd where a module for it is
    there."""
    try:
        file = Path(path).open("rb")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise InvalidArgument(f"trace must be a readable file, got {shown(path)}: {error}") from error
    try:
        magic = file.peek(6)[:6]
        if magic.startswith(b"\x1f\x8b"):
            return _Owner(gzip.GzipFile(fileobj=file), file)
        if magic == b"\xfd7zXZ\0":
            return _Owner(lzma.LZMAFile(file), file)
        if magic.startswith(b"\x28\xb5\x2f\xfd"):
            return _Owner(_zstd(path, file), file)
    except OSError as error:  # a folder, for one
        file.close()
        raise InvalidArgument(f"trace must be a readable file, got {shown(path)}: {error}") from error
    except MissingExtra:
        file.close()
        raise
    return file


def _zstd(path: str, file: io.BufferedReader) -> Any:
    for name in ("compression.zstd", "zstandard"):  # Python 3.14's own, or the package
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        return module.ZstdFile(file) if name == "compression.zstd" else module.open(file, "rb")
    raise MissingExtra(f"{path}:1: the file is packed with zstd: pip install zstandard, or unpack it")


class _Owner(io.BufferedReader):
    """Closes the packed file with the unpacker."""

    def __init__(self, raw: Any, below: io.BufferedReader) -> None:
        super().__init__(cast(io.RawIOBase, raw))
        self._below = below

    def close(self) -> None:
        super().close()
        self._below.close()


def _is_broken(error: Exception) -> bool:
    """Whether it is an unpacker's; a package's own says so by its module."""
    return isinstance(error, _BROKEN) or type(error).__module__.split(".")[0] in {"zstd", "zstandard", "compression"}


def numbered_lines(file: io.BufferedReader, where: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1."""
    line = 0
    while True:
        line += 1
        try:
            content = file.readline(LINE_BYTES_MAX + 1)
        except Exception as error:
            if not _is_broken(error):
                raise
            raise InvalidArgument(
                f"{where}:{line}: the file must be whole: it cannot be read on from here: {error}"
            ) from error
        if not content:
            return
        if len(content) > LINE_BYTES_MAX:
            raise InvalidArgument(f"{where}:{line}: a line must have at most {LINE_BYTES_MAX} bytes, got more")
        try:
            text = content.decode("utf-8-sig" if line == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise InvalidArgument(
                f"{where}:{line}: the line must be UTF-8, got byte {content[error.start]:#04x} at {error.start}"
            ) from error
        if text:
            yield line, text


def whole_records(file: io.BufferedReader, where: str, record_bytes: int, records_a_chunk: int) -> Iterator[bytes]:
    """The file in chunks of whole records, the last chunk shorter. A rest that is no record is refused."""
    at = 0
    while True:
        try:
            chunk = file.read(record_bytes * records_a_chunk)
        except Exception as error:
            if not _is_broken(error):
                raise
            raise InvalidArgument(
                f"{where}: the file must be whole: it cannot be read on from byte {at}: {error}"
            ) from error
        if not chunk:
            return
        at += len(chunk)
        if len(chunk) % record_bytes:
            raise InvalidArgument(
                f"{where}: the file must be records of {record_bytes} bytes, got one of {len(chunk) % record_bytes} at "
                f"byte {at - len(chunk) % record_bytes}"
            )
        yield chunk
