"""What the tests of the event log share: a log taken apart into blocks and put together again, honestly checksummed."""

import struct
from pathlib import Path

HEADER_BYTES = 16
M64 = 2**64 - 1


def checksum(index, body):
    """As block_checksum of event_format.hpp, from its description."""
    value = index
    words = [len(body)] + [int.from_bytes(body[at : at + 8], "little") for at in range(0, len(body) + 1, 8)]
    for word in words:
        value = (value ^ word) * 0x9E3779B97F4A7C15 & M64
        value ^= value >> 32
    return value


def blocks_of(path):
    """The bodies of a log's blocks, each checked."""
    data, at, bodies = Path(path).read_bytes(), HEADER_BYTES, []
    while at < len(data):
        n, said = struct.unpack_from("<IQ", data, at)
        body = data[at + 12 : at + 12 + n]
        assert len(body) == n and checksum(len(bodies), body) == said
        bodies.append(body)
        at += 12 + n
    return bodies


def write_blocks(path, bodies, like):
    """A log of these bodies, with the file header of another."""
    out = Path(like).read_bytes()[:HEADER_BYTES]
    for index, body in enumerate(bodies):
        out += struct.pack("<IQ", len(body), checksum(index, body)) + body
    Path(path).write_bytes(out)


def changed(path, old, new, into):
    """The same log with the first `old` bytes of its first block that holds them replaced; checksums fit again."""
    bodies = blocks_of(path)
    at = next(i for i, body in enumerate(bodies) if old in body)
    bodies[at] = bodies[at].replace(old, new, 1)
    write_blocks(into, bodies, like=path)
