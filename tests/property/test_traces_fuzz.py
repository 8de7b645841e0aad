"""Whatever stands in a trace file, its rows come in order and in range, or it is refused with file and line."""

import gzip
import json
import lzma
import re
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from infcore import sim
from infcore.errors import InvalidArgument, MissingExtra

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n" + "".join(
    f"2023-11-16 18:{i // 60:02}:{i % 60:02}.{i * 7919 % 10**7:07},{i * 31 % 5000},{i % 700}\r\n" for i in range(200)
)
MOONCAKE = "".join(
    json.dumps({"timestamp": i * 30, "input_length": i, "output_length": 3, "hash_ids": [i]}) + "\n" for i in range(100)
)
LOG = "".join(
    json.dumps({"id": i, "policy": "p" if i % 3 else "q", "model": f"m{i % 4}", "tier": i % 8, "arrival_s": i * 0.25,
                "deadline_s": None if i % 2 else 0.5, "outcome": "ok"}) + "\n"
    for i in range(100)
)  # fmt: skip
CONTENTS = [text.encode() for text in (AZURE, MOONCAKE, LOG)]
CONTENTS += [gzip.compress(CONTENTS[0]), lzma.compress(CONTENTS[1]), gzip.compress(CONTENTS[2])]
WORDS = [
    b"-1", b"NaN", b"Infinity", b"1e999", b"null", b"true", b"[]", b"{}", b'"', b",", b"\n", b"\r", b"\0", b"\xff",
    b"9" * 400,
    b"1e308", b"\xef\xbb\xbf", b"{", b"}", b" ", b"0", b"1.5", b"2023-13-01 00:00:00",
    b'{"timestamp": 1, "input_length": 2}',
]  # fmt: skip
LIMITS = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "fuzz.trace"


def read_or_refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        trace = sim.open_trace(path)
        chunks = list(trace)
    except (InvalidArgument, MissingExtra) as error:  # the latter: it begins as zstd does
        assert re.match(rf"{re.escape(str(path))}:\d+: ", str(error)), str(error)[:200]
        assert len(str(error)) < 1000
        return
    assert trace.format in ("azure_llm_2023", "mooncake", "infcore_requests")
    at_s = np.concatenate([chunk.at_s for chunk in chunks])
    assert at_s[0] == 0.0
    assert (np.diff(at_s) >= 0.0).all()
    assert np.isfinite(at_s).all()
    for chunk in chunks:
        assert ((chunk.work >= 0.0) | np.isnan(chunk.work)).all()
        assert (chunk.output_work >= 0.0).all()
        assert ((chunk.deadline_s > 0.0) | np.isnan(chunk.deadline_s)).all()
        assert ((chunk.model >= -1) & (chunk.model < len(trace.models))).all()
        assert ((chunk.tier >= 0) & (chunk.tier <= 7)).all()


@LIMITS
@given(st.sampled_from(CONTENTS), st.data())
def test_bytes_changed(path: Path, content: bytes, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        end = at + data.draw(st.integers(0, 20))
        content = content[:at] + data.draw(st.binary(max_size=4) | st.sampled_from(WORDS)) + content[end:]
    read_or_refuse(path, content)


@LIMITS
@given(st.sampled_from(CONTENTS[:3]), st.data())
def test_values_changed(path: Path, content: bytes, data: st.DataObject) -> None:
    found = data.draw(st.sampled_from(list(re.finditer(rb"(?<=[ ,:])[\w.\"]+(?=[,}\r])", content))))
    read_or_refuse(path, content[: found.start()] + data.draw(st.sampled_from(WORDS)) + content[found.end() :])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CONTENTS), st.integers(0, 4000))
def test_files_cut_off(path: Path, content: bytes, at: int) -> None:
    read_or_refuse(path, content[:at])


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=100),
    st.sampled_from([b"", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"TIMESTAMP,ContextTokens,GeneratedTokens\n"]),
)
def test_any_bytes(path: Path, content: bytes, head: bytes) -> None:
    read_or_refuse(path, head + content)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=60), st.sampled_from(["mooncake", "log"]))
def test_rows_in_any_order_come_in_order_and_none_is_lost(path: Path, times: list[int], form: str) -> None:
    rows: list[dict[str, Any]] = [
        {"timestamp": t, "input_length": t, "output_length": 1}
        if form == "mooncake"
        else {"policy": "p", "model": "m", "arrival_s": t / 1e3, "work": t}
        for t in times
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    (chunk,) = sim.open_trace(path)
    assert chunk.work.tolist() == sorted(times)
    assert chunk.at_s == pytest.approx([(t - min(times)) / 1e3 for t in sorted(times)], abs=1e-9)
