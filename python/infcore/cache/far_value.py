"""A value as it lies in Redis: a header that says what it is and of which version, its tags, its body, and a checksum.

Layout, big-endian: magic "INFC", format u8, kind u8, tags u16, version u64, expires u64, nonce 8 bytes, cost f64,
CRC-32 u32 of all before and behind it; a tag: bytes u16, mark 8 bytes, its name; then the body: bytes as they are, a
plain value (plain_values.py), or a pickle where that was asked for. A put's script looks for the version at its place.
"""

import pickle
import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from infcore.cache.plain_values import NotPlain, decode, encode
from infcore.errors import InvalidArgument, InvalidType

MAGIC, FORMAT = b"INFC", 1
_HEAD = struct.Struct(">4sBBHQQ8sd")
_CRC = struct.Struct(">I")
MARK_BYTES, TAGS_MAX = 8, (1 << 16) - 1
_TAG = struct.Struct(f">H{MARK_BYTES}s")
HEAD_BYTES = _HEAD.size + _CRC.size
BYTES, PLAIN, PICKLE = 0, 1, 2
BYTES_MAX = 512 << 20  # what Redis takes as one string, if it is not told otherwise

Tags = Sequence[tuple[bytes, bytes]]  # name, and the mark that it must still bear


class NotOurs(Exception):
    """Bytes that are torn, of somebody else, of a newer format, or a pickle that nobody asked for; says which."""


class FarValue(NamedTuple):
    """What lies in Redis, its body not decoded yet.

    expires_ms  by the server's clock, 0: never
    nonce       of the put that wrote it: no two are the same
    """

    kind: int
    version: int
    expires_ms: int
    nonce: bytes
    cost_us: float
    tags: Tags
    body: memoryview


def is_mark(data: object) -> bool:
    """Whether a tag can bear it."""
    return isinstance(data, bytes) and len(data) == MARK_BYTES


def body_of(value: object, *, pickled: bool) -> tuple[int, list[bytes | memoryview]]:
    """The value's kind and its bytes in pieces. Raises InvalidType where it cannot be told without pickle."""
    if type(value) is bytes:
        return BYTES, [value]
    try:
        return PLAIN, encode(value)
    except NotPlain as reason:
        if pickled:
            try:
                return PICKLE, [pickle.dumps(value, protocol=5)]
            except Exception as error:
                raise InvalidType(f"value is {type(value).__name__}, which cannot be pickled: {error!r}") from error
        raise InvalidType(
            f"{reason}; allowed: None, bool, int, float, str, bytes, NumPy arrays, lists, tuples, dicts of these, or "
            "CoherentCache(pickle=True)"
        ) from None


def pack(
    kind: int,
    body: list[bytes | memoryview],
    *,
    version: int,
    expires_ms: int,
    nonce: bytes,
    cost_us: float,
    tags: Tags,
) -> bytes:
    """Header, tags and body, with their checksum. Raises InvalidArgument where it is too large."""
    head = _HEAD.pack(MAGIC, FORMAT, kind, len(tags), version, expires_ms, nonce, cost_us)
    named = b"".join(_TAG.pack(len(name), mark) + name for name, mark in tags)
    crc = zlib.crc32(named, zlib.crc32(head))
    for piece in body:
        crc = zlib.crc32(piece, crc)
    packed = b"".join((head, _CRC.pack(crc), named, *body))
    if len(packed) > BYTES_MAX:
        raise InvalidArgument(f"value has {len(packed)} bytes in Redis; allowed: at most {BYTES_MAX}")
    return packed


def unpack(data: bytes) -> FarValue:
    """What pack() packed. Raises NotOurs. O(bytes), for the checksum."""
    if len(data) < HEAD_BYTES or data[:4] != MAGIC:
        raise NotOurs(f"{len(data)} bytes that do not begin with {MAGIC!r}")
    _, form, kind, n_tags, version, expires_ms, nonce, cost_us = _HEAD.unpack_from(data)
    if form != FORMAT:
        raise NotOurs(f"format {form}; known: {FORMAT}")
    view = memoryview(data)
    (crc,) = _CRC.unpack_from(data, _HEAD.size)
    if zlib.crc32(view[HEAD_BYTES:], zlib.crc32(view[: _HEAD.size])) != crc:
        raise NotOurs("the checksum is of other bytes")
    at, tags = HEAD_BYTES, []
    for _ in range(n_tags):
        if at + _TAG.size > len(data):
            raise NotOurs(f"{n_tags} tags should follow, and end before that")
        n_bytes, mark = _TAG.unpack_from(data, at)
        at += _TAG.size + n_bytes
        tags.append((data[at - n_bytes : at], mark))
    return FarValue(kind, version, expires_ms, nonce, cost_us, tags, view[at:])


def value_of(found: FarValue, *, pickled: bool) -> Any:
    """The value itself. Raises NotOurs; what a class's own unpickling raises counts as that, too."""
    if found.kind == BYTES:
        return bytes(found.body)
    if found.kind == PLAIN:
        try:
            return decode(bytes(found.body))
        except NotPlain as reason:
            raise NotOurs(str(reason)) from None
    if found.kind != PICKLE or not pickled:
        raise NotOurs("a pickle, without CoherentCache(pickle=True)" if found.kind == PICKLE else f"kind {found.kind}")
    try:
        return pickle.loads(found.body)
    except Exception as error:
        raise NotOurs(f"a pickle that raises {error!r}") from None
