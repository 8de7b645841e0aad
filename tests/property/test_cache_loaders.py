"""Trace loaders on files that are whole, broken and made up: columns, or an error that says where."""

import gzip
import json
import lzma
import re
import struct
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import infcore
from infcore.cache import loaders, replay

PACKERS = [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)]
GOOD = {
    "mooncake": b'{"timestamp": 0, "input_length": 700, "output_length": 3, "hash_ids": [4, 5]}\n'
    b'{"timestamp": 27, "input_length": 1024, "output_length": 3, "hash_ids": [4, 6]}\n',
    "scarab": struct.pack(">3q", 1, -2, 1),
    "adaptsize": b"1 0 68\n2 1 7454\n3 0 68\n",
    "penalties": b"s 0x1fffff50 1 1 100\nl 0x1fffff58 1 1 10.5\n",
    "oracle_general": struct.pack("<IQIq", 1, 2**64 - 1, 68, 2) + struct.pack("<IQIq", 1, 7, 70, -1),
    "listed": b"time,key,cost,size\n1.5,a,2.5,10\n2,b b,3,20\n",
}


def written(folder: Path, content: bytes, name: str = "trace") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("packer", PACKERS, ids=["plain", "gzip", "xz"])
def test_columns(tmp_path: Path, packer: tuple[str, Any]) -> None:
    traces = {}
    for name, content in GOOD.items():
        traces[name] = loaders.load(written(tmp_path, packer[1](content), name + packer[0]), name)
    prompts = traces["mooncake"]
    assert prompts.keys.tolist() == [4, 5, 4, 6] and prompts.requests.tolist() == [0, 0, 1, 1]
    assert prompts.admit.tolist() == [True, False, True, True] and prompts.times_s.tolist() == [0, 0, 0.027, 0.027]
    ends = np.array([512.0, 700.0, 512.0, 1024.0])
    assert prompts.costs == pytest.approx(loaders.prefill_us(ends) - loaders.prefill_us(np.array([0, 512.0] * 2)))
    assert traces["scarab"].keys.tolist() == [1, -2, 1]
    assert traces["adaptsize"].sizes.tolist() == [68, 7454, 68] and traces["adaptsize"].working_set_bytes() == 7522
    assert traces["penalties"].costs.tolist() == [100, 10.5] and traces["penalties"].keys[0] == 0x1FFFFF50
    assert traces["oracle_general"].keys.tolist() == [2**64 - 1, 7]
    assert traces["oracle_general"].sizes.tolist() == [68, 70]
    listed = traces["listed"]
    assert (listed.keys.tolist(), listed.sizes.tolist(), listed.costs.tolist()) == ([0, 1], [10, 20], [2.5, 3.0])
    for trace in traces.values():
        assert replay(**trace.columns(), capacity=2, policy="lru").requests == len(trace)


def test_lists_without_a_header(tmp_path: Path) -> None:
    assert loaders.listed(written(tmp_path, b"x\ny\nx\n")).keys.tolist() == [0, 1, 0]
    trace = loaders.listed(written(tmp_path, b"key 100 2.5\nother 50 1.0\nkey 100 2.5\n"))
    assert trace.keys.tolist() == [0, 1, 0] and trace.sizes is not None and trace.sizes.tolist() == [100, 50, 100]
    assert loaders.listed(written(tmp_path, b"size key\n3 x\n")).keys.tolist() == [0]
    trace = loaders.listed(written(tmp_path, "ä 3 0.5\nb\t4 1e3\n".encode()))
    assert trace.sizes is not None and trace.sizes.tolist() == [3, 4]
    assert trace.costs is not None and trace.costs.tolist() == [0.5, 1000.0]


def test_token_costs_go_by_the_key(tmp_path: Path) -> None:
    rows = "".join(f"2023-11-16 18:15:46.{i}0000,{10 * i + 1},{i}\n" for i in range(1, 9))
    tokens = loaders.azure_tokens(written(tmp_path, b"TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows.encode()))
    keys = np.arange(5000) % 1000
    sizes, costs = loaders.token_costs(keys, tokens, 50.0)
    assert (sizes[:1000] == sizes[1000:2000]).all() and (costs[:1000] == costs[1000:2000]).all()
    per_byte = costs / sizes
    assert per_byte.min() == 1.0 and per_byte.max() == pytest.approx(50.0) and len(np.unique(per_byte.round(6))) == 17
    assert (loaders.token_costs(keys, tokens)[1] == sizes).all()
    assert set(sizes) == {11 * i + 1 for i in range(1, 9)}


@pytest.mark.parametrize(
    ("format", "content", "says"),
    [
        ("adaptsize", b"1 0 68\n2 1\n", ":2: the line must be 3 words (time id size), got '2 1'"),
        ("adaptsize", b"1 0 -5\n", ":1: size must be an integer from 0 to 281474976710656, got '-5'"),
        ("adaptsize", b"1 0 99999999999999999999999\n", ":1: size must be"),
        ("adaptsize", b"5 0 1\n4 0 1\n", ":2: time must be not below 5, the line before, got 4"),
        ("adaptsize", b"", ":1: the trace must have at least one access, got none"),
        ("adaptsize", b"\xff\xfe\n", ":1: the line must be UTF-8, got byte 0xff at 0"),
        ("penalties", b"x 0x1 1 1 1\n", ":1: kind must be l or s, got 'x'"),
        ("penalties", b"l 1f 1 1 1\n", ":1: address must be hexadecimal"),
        ("penalties", b"l 0xffffffffffffffff 1 1 1\n", ":1: address must be hexadecimal"),
        ("penalties", b"l 0x1 1 1 nan\n", ":1: miss_penalty must be a number from 0 to 1e+15, got 'nan'"),
        ("scarab", b"12345678abc", ": the file must be records of 8 bytes, got one of 3 at byte 8"),
        ("scarab", b"", ":1: the trace must have at least one access"),
        ("oracle_general", GOOD["oracle_general"][:-1],
         ": the file must be records of 24 bytes, got one of 23 at byte 24"),
        ("oracle_general", struct.pack("<IQIq", 5, 1, 1, 1) + struct.pack("<IQIq", 4, 1, 1, 1),
         ": time must not be below 5, the record before, got 4 at byte 24"),
        ("mooncake", b"[]\n", ":1: the row must be a JSON object, got '[]'"),
        ("mooncake", b'{"timestamp": 0, "input_length": 700, "hash_ids": [1]}',
         ":1: hash_ids must be 2 ids, a block of 512"),
        ("mooncake", b'{"timestamp": 0, "input_length": 700, "hash_ids": [1, -1]}', ":1: hash_ids must be an array of"),
        ("mooncake", b'{"timestamp": NaN, "input_length": 1, "hash_ids": [1]}', ":1: timestamp must be milliseconds"),
        ("mooncake", b'{"timestamp": 1, "input_length": true, "hash_ids": [1]}', ":1: input_length must be an integer"),
        ("listed", b"a 1 1 1\n", ":1: the row must be key, key size, or key size cost, got 'a 1 1 1'"),
        ("listed", b"a 1\nb\n", ":2: the row must be 2 values, as the first, got 'b'"),
        ("listed", b"key,size\na,1e3\n", ":2: size must be an integer from 0"),
        ("listed", b"key,key\n", ":1: the header must be each of its names once"),
        ("listed", b"key,time\na,2\nb,1\n", ":3: time_s must be not below 2.0, the row before, got 1.0"),
        ("listed", b"a 1 inf\n", ":1: cost_us must be a number from 0 to 1e+15, got 'inf'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, format: str, content: bytes, says: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(infcore.InvalidArgument, match=re.escape(f"{path}{says}")):
        loaders.load(path, format)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(infcore.InvalidArgument, match="trace must be a readable file"):
        loaders.scarab(tmp_path / "none")
    with pytest.raises(infcore.InvalidArgument, match="trace must be a readable file"):
        loaders.adaptsize(tmp_path)
    for pack in (gzip.compress, lzma.compress):
        torn = written(tmp_path, pack(GOOD["adaptsize"] * 100)[:-20])
        with pytest.raises(infcore.InvalidArgument, match="the file must be whole"):
            loaders.adaptsize(torn)
        with pytest.raises(infcore.InvalidArgument, match="the file must be whole"):
            loaders.scarab(torn)
    with pytest.raises(infcore.InvalidArgument, match="format is 'csv'; allowed: mooncake, "):
        loaders.load(tmp_path, "csv")
    with pytest.raises(infcore.InvalidArgument, match="cost_us falls"):
        loaders.mooncake(written(tmp_path, GOOD["mooncake"]), cost_us=lambda tokens: 1e6 - tokens)


def test_zstd_where_it_is_there(tmp_path: Path) -> None:
    path = written(tmp_path, b"\x28\xb5\x2f\xfd" + b"\0" * 20)
    with pytest.raises((infcore.MissingExtra, infcore.InvalidArgument), match=re.escape(str(path))):
        loaders.adaptsize(path)
    zstandard = pytest.importorskip("zstandard")
    path.write_bytes(zstandard.compress(GOOD["adaptsize"]))
    assert len(loaders.adaptsize(path)) == 3


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(GOOD)),
    cut=st.integers(0, 200),
    put=st.one_of(st.binary(max_size=12), st.sampled_from([b"9" * 30, b"-1", b"1e999", b"nan", b"\n", b"[[[[", b"0x"])),
    drop=st.integers(0, 6),
)
def test_any_damage_gives_columns_or_a_named_error(name: str, cut: int, put: bytes, drop: int) -> None:
    content = GOOD[name]
    cut = min(cut, len(content))
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), content[:cut] + put + content[cut + drop :])
        try:
            trace = loaders.load(path, name)
        except (infcore.InvalidArgument, infcore.MissingExtra) as error:  # the latter: it begins as zstd does
            assert str(path) in str(error) and len(str(error)) < 600
            return
    assert replay(**trace.columns(), capacity=100, policy="lru").requests == len(trace) > 0


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.tuples(st.text(min_size=1), st.integers(0, 2**48), st.floats(0, 1e15)), min_size=1, max_size=20)
)
def test_lists_come_back_as_written(rows: list[tuple[str, int, float]]) -> None:
    names = [json.dumps(name).replace(" ", "_").replace(",", ";") for name, _, _ in rows]
    text = "".join(f"{name} {size} {cost!r}\n" for name, (_, size, cost) in zip(names, rows, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        trace = loaders.listed(written(Path(folder), b"k_e_y 0 0\n" + text.encode()))
    assert trace.sizes is not None and trace.sizes[1:].tolist() == [size for _, size, _ in rows]
    assert trace.costs is not None and trace.costs[1:].tolist() == [cost for _, _, cost in rows]
    keys = trace.keys[1:].tolist()
    assert [keys.index(key) for key in keys] == [names.index(name) for name in names]
