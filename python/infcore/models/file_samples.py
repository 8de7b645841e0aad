"""Files whose type is known: infcore's own, and small ones written here, for the model that tells file types apart."""

import configparser
import csv
import gzip
import importlib.util
import io
import json
import marshal
import random
import sqlite3
import struct
import tarfile
import wave
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from infcore._core import base

__all__ = ["FileSample", "samples"]

_PACKAGE = Path(__file__).resolve().parents[1]
_WORDS = "batch queue router engine device tokens request server balance tenant budget window report forecast".split()
# Files that are told apart well; more are not picked up by themselves, since each new one would need a look.
_OWN = {
    "errors.py": "python",
    "request.py": "python",
    "device.py": "python",
    "onnx_device.py": "python",
    "models/zoo.py": "python",
    "models/magika.py": "python",
    "models/file_samples.py": "python",
}
_CHECKOUT = {
    "csrc/infcore/base/clock.hpp": "cpp",
    "csrc/infcore/contracts/request.hpp": "cpp",
    "csrc/infcore/base/fork.cpp": "cpp",
    "CMakeLists.txt": "cmake",
    "pyproject.toml": "toml",
    "LICENSE": "txt",
}


@dataclass(frozen=True, slots=True)
class FileSample:
    """A file's bytes, its type in magika's labels, and where it came from."""

    data: bytes
    label: str
    about: str


def samples(seed: int, n: int) -> list[FileSample]:
    """n files, the types in turn: infcore's own sources (more of them in a checkout), and written ones by the seed."""
    own = _own_files()
    made = []
    for i in range(n):
        kind = (seed + i) % (len(_WRITERS) + len(_OWN))
        if kind < len(_WRITERS):
            label, write = _WRITERS[kind]
            made.append(FileSample(write(random.Random(f"{seed} {i}")), label, f"written {label}"))
        else:
            made.append(own[(seed + i) % len(own)])
    return made


@lru_cache(maxsize=1)
def _own_files() -> tuple[FileSample, ...]:
    found = [FileSample((_PACKAGE / name).read_bytes(), label, name) for name, label in _OWN.items()]
    root = _PACKAGE.parents[1]
    if (root / "csrc" / "infcore").is_dir():
        there = {name: root / name for name in _CHECKOUT if (root / name).is_file()}
        found += [FileSample(path.read_bytes(), _CHECKOUT[name], name) for name, path in there.items()]
    found.append(FileSample(Path(base.__file__).read_bytes(), "elf", "infcore._core.base"))
    return tuple(found)


def _sentence(rng: random.Random, n_words: int = 12) -> str:
    return " ".join(rng.choices(_WORDS, k=n_words)).capitalize() + "."


def _records(rng: random.Random, n: int = 40) -> list[dict[str, object]]:
    return [
        {"id": i, "name": rng.choice(_WORDS), "latency_s": round(rng.random(), 4), "ok": rng.random() < 0.9}
        for i in range(n)
    ]


def _json(rng: random.Random) -> bytes:
    return json.dumps({"schema_version": 1, "runs": _records(rng)}, indent=2).encode()


def _html(rng: random.Random) -> bytes:
    link = f'<a href="#table">{_sentence(rng, 3)}</a>'
    rows = "\n".join(f"      <tr><td>{r['name']}</td><td>{r['latency_s']}</td></tr>" for r in _records(rng))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n  <head>\n    <meta charset="utf-8">\n'
        f"    <title>{_sentence(rng, 4)}</title>\n    <style>td {{ padding: 2px; }}</style>\n  </head>\n  <body>\n"
        f'    <h1 class="title">{_sentence(rng, 5)}</h1>\n'
        f'    <p>{_sentence(rng, 30)} {link}</p>\n    <div id="table">\n    <table>\n{rows}\n    </table>\n    </div>\n'
        f"    <p>{_sentence(rng)}</p>\n"
        "    <script>document.title;</script>\n  </body>\n</html>\n"
    ).encode()


def _csv(rng: random.Random) -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(text, ["id", "name", "latency_s", "ok"])
    table.writeheader()
    table.writerows(_records(rng, 60))
    return text.getvalue().encode()


def _xml(rng: random.Random) -> bytes:
    rows = "\n".join(
        f'  <request id="{r["id"]}"><model>{r["name"]}</model><latency>{r["latency_s"]}</latency></request>'
        for r in _records(rng)
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<requests>\n{rows}\n</requests>\n'.encode()


def _ini(rng: random.Random) -> bytes:
    config = configparser.ConfigParser()
    for i in range(12):
        section = {f"{word}_{k}": str(rng.randint(1, 999)) for k, word in enumerate(rng.sample(_WORDS, 5))}
        config[f"{rng.choice(_WORDS)}-{i}"] = section
    text = io.StringIO()
    config.write(text)
    return text.getvalue().encode()


def _markdown(rng: random.Random) -> bytes:
    parts = [f"# {_sentence(rng, 3)}\n"]
    for _ in range(6):
        parts += [f"## {_sentence(rng, 3)}\n", _sentence(rng, 30) + "\n"]
        parts += [f"- **{rng.choice(_WORDS)}**: `{rng.choice(_WORDS)}` {_sentence(rng, 6)}" for _ in range(4)]
        parts += ["", "```python", f"import {rng.choice(_WORDS)}", "```", ""]
        parts += [f"See [{rng.choice(_WORDS)}](docs/{rng.choice(_WORDS)}.md).\n"]
    return "\n".join(parts).encode()


def _sql(rng: random.Random) -> bytes:
    rows = [
        f"INSERT INTO requests (id, model, latency_s) VALUES ({r['id']}, '{r['name']}', {r['latency_s']});"
        for r in _records(rng)
    ]
    table = "CREATE TABLE requests (\n  id INTEGER PRIMARY KEY,\n  model TEXT NOT NULL,\n  latency_s REAL\n);\n"
    return (table + "\n".join(rows) + "\nSELECT model, COUNT(*) FROM requests GROUP BY model ORDER BY 2;\n").encode()


def _png(rng: random.Random) -> bytes:
    width, height = rng.randint(32, 96), rng.randint(32, 96)
    colours = [rng.randbytes(3) for _ in range(4)]
    rows = b"".join(b"\0" + b"".join(colours[(x // 8 + y // 8) % 4] for x in range(width)) for y in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _wav(rng: random.Random) -> bytes:
    samples_ = np.random.default_rng(rng.getrandbits(32)).normal(0, 3000, 8000).astype("<i2")
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples_.tobytes())
    return out.getvalue()


def _zip(rng: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for word in rng.sample(_WORDS, 8):
            archive.writestr(zipfile.ZipInfo(f"files/{word}.txt", (2026, 1, 1, 0, 0, 0)), _sentence(rng, 400))
    return out.getvalue()


def _gzip(rng: random.Random) -> bytes:
    return gzip.compress(_sentence(rng, 600).encode(), mtime=0)


def _tar(rng: random.Random) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for word in rng.sample(_WORDS, 4):
            data = _sentence(rng, 60).encode()
            entry = tarfile.TarInfo(f"{word}.txt")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _npy(rng: random.Random) -> bytes:
    out = io.BytesIO()
    np.save(out, np.random.default_rng(rng.getrandbits(32)).normal(size=(32, 32)))
    return out.getvalue()


def _sqlite(rng: random.Random) -> bytes:
    database = sqlite3.connect(":memory:")
    try:
        database.execute("create table requests (id integer primary key, model text, latency_s real)")
        rows = [(r["id"], r["name"], r["latency_s"]) for r in _records(rng)]
        database.executemany("insert into requests values (?, ?, ?)", rows)
        database.commit()
        return database.serialize()
    finally:
        database.close()


def _pyc(rng: random.Random) -> bytes:
    name = rng.choice([name for name, label in _OWN.items() if label == "python"])
    code = compile((_PACKAGE / name).read_text("utf-8"), name, "exec")
    return importlib.util.MAGIC_NUMBER + struct.pack("<III", 0, 0, 0) + marshal.dumps(code)


_WRITERS: tuple[tuple[str, Callable[[random.Random], bytes]], ...] = (
    ("json", _json),
    ("html", _html),
    ("csv", _csv),
    ("xml", _xml),
    ("ini", _ini),
    ("markdown", _markdown),
    ("sql", _sql),
    ("png", _png),
    ("wav", _wav),
    ("zip", _zip),
    ("gzip", _gzip),
    ("tar", _tar),
    ("npy", _npy),
    ("sqlite", _sqlite),
    ("pythonbytecode", _pyc),
)
