"""Trace files: formats told by content, rows streamed in order; wrong ones are refused with file, line and field."""

import gzip
import json
import lzma
import math
from pathlib import Path

import numpy as np
import pytest

from infcore import sim
from infcore.errors import InvalidArgument
from infcore.sim import traces

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 23:59:59.9799600,4808,10\r\n"
    "2023-11-17 00:00:00.0319600,3180,8\r\n"
    "2023-11-17 00:01:00.9799600,0,0\r\n"
)
MOONCAKE = (
    '{"timestamp": 1000, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}\n'
    '{"timestamp": 4003, "input_length": 23141, "output_length": 3, "hash_ids": [0, 46]}\n'
)


def log_row(policy: str, model: str, arrival_s: float, **more: object) -> str:
    row = {"id": 1, "policy": policy, "model": model, "tier": 0, "arrival_s": arrival_s, "deadline_s": None}
    return json.dumps({**row, "node": "a", "start_s": 1.0, "end_s": 2.0, "outcome": "ok", **more})


LOG = "\n".join(
    [
        log_row("round_robin", "bert", 2.5, tier=3, deadline_s=0.5, work=64.0, session=7),
        log_row("fastest_finish", "bert", 0.25),
        log_row("round_robin", "asr", 1.0, node=None),  # it ended after a later one
        log_row("fastest_finish", "tts", 0.75),
    ]
)


def written(folder: Path, content: str | bytes, name: str = "t.trace") -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_azure(tmp_path: Path) -> None:
    trace = sim.open_trace(written(tmp_path, AZURE))
    assert trace.format == "azure_llm_2023"
    (chunk,) = trace
    assert len(chunk) == 3
    assert chunk.at_s == pytest.approx([0.0, 0.052, 61.0], abs=1e-9)
    assert chunk.work.tolist() == [4808.0, 3180.0, 0.0]
    assert chunk.output_work.tolist() == [10.0, 8.0, 0.0]
    assert chunk.model.tolist() == [-1, -1, -1]
    assert chunk.tier.tolist() == [0, 0, 0]
    assert chunk.session.tolist() == [0, 0, 0]
    assert np.isnan(chunk.deadline_s).all()
    dtypes = (np.float64, np.int32, np.float64, np.float64, np.int32, np.float64, np.uint64)
    columns = (
        chunk.at_s, chunk.model, chunk.work, chunk.output_work, chunk.tier, chunk.deadline_s, chunk.session
    )  # fmt: skip
    assert tuple(column.dtype for column in columns) == dtypes


def test_azure_columns_stand_in_any_order_after_a_mark(tmp_path: Path) -> None:
    text = "\ufeffGeneratedTokens, TIMESTAMP ,x,ContextTokens\n\n5,2024-05-10 00:00:00.000001+00:00,?,9\n"
    (chunk,) = sim.open_trace(written(tmp_path, text))
    assert (chunk.work[0], chunk.output_work[0]) == (9.0, 5.0)


def test_mooncake(tmp_path: Path) -> None:
    trace = sim.open_trace(written(tmp_path, MOONCAKE))
    assert trace.format == "mooncake"
    (chunk,) = trace
    assert chunk.at_s == pytest.approx([0.0, 3.003], abs=1e-12)
    assert chunk.work.tolist() == [6758.0, 23141.0]
    assert chunk.output_work.tolist() == [500.0, 3.0]
    assert chunk.names is not None and chunk.names.tolist() == [(0, 1), (0, 46)]


@pytest.mark.parametrize("ids", ["7", "[1, -1]", "[1.0]", "[true]", '["a"]', f"[{2**64}]"])
def test_names_of_blocks_are_whole_numbers(ids: str, tmp_path: Path) -> None:
    path = written(tmp_path, f'{{"timestamp": 1, "input_length": 600, "output_length": 1, "hash_ids": {ids}}}\n')
    with pytest.raises(InvalidArgument, match=r"t\.trace:1: hash_ids must be an array of integers from 0 to 2\^64 - 1"):
        list(sim.open_trace(path))


def test_a_log_of_token_requests_brings_their_tokens(tmp_path: Path) -> None:
    row = log_row("round_robin", "llm", 0.5, work=110.0, prompt_tokens=100, output_tokens=10, session=3)
    (chunk,) = sim.open_trace(written(tmp_path, row))
    assert (chunk.work[0], chunk.output_work[0], chunk.session[0]) == (100.0, 10.0, 3)


def test_a_log_gives_the_arrivals_of_one_policy(tmp_path: Path) -> None:
    path = written(tmp_path, LOG)
    trace = sim.open_trace(path)
    assert trace.format == "infcore_requests"
    (chunk,) = trace
    assert trace.models == ("bert", "asr")
    assert chunk.at_s.tolist() == [0.0, 1.5]
    assert chunk.model.tolist() == [1, 0]
    assert chunk.tier.tolist() == [0, 3]
    assert chunk.session.tolist() == [0, 7]
    assert math.isnan(chunk.work[0])
    assert chunk.work[1] == 64.0
    assert math.isnan(chunk.deadline_s[0])
    assert chunk.deadline_s[1] == 0.5
    other = sim.open_trace(path, policy="fastest_finish")
    assert [c.at_s.tolist() for c in other] == [[0.0, 0.5]]
    assert other.models == ("bert", "tts")
    with pytest.raises(InvalidArgument, match=r"the trace must have at least one row of policy 'peak_ewma', got none"):
        list(sim.open_trace(path, policy="peak_ewma"))


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_packed_files_are_told_by_content(tmp_path: Path, pack) -> None:
    path = written(tmp_path, pack(AZURE.encode()))
    assert [len(chunk) for chunk in sim.open_trace(path)] == [3]


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_packed_file_that_ends_early_is_refused(tmp_path: Path, pack) -> None:
    rows = AZURE + "".join(f"2023-11-17 00:02:{i % 60:02}.{i:07},{i * 7919 % 4096},9\r\n" for i in range(20000))
    whole = pack(rows.encode())
    path = written(tmp_path, whole[: len(whole) // 2])
    with pytest.raises(InvalidArgument, match=r"t\.trace:\d+: the file must be whole: it cannot be read on from here"):
        list(sim.open_trace(path))


def test_a_trace_is_read_anew_by_each_loop(tmp_path: Path) -> None:
    trace = sim.open_trace(written(tmp_path, AZURE))
    assert [chunk.at_s.tolist() for chunk in trace] == [chunk.at_s.tolist() for chunk in trace]


def test_chunks_are_bounded_and_a_row_a_little_late_is_put_in_its_place(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(traces, "CHUNK_ROWS", 8)
    monkeypatch.setattr(traces, "WINDOW_ROWS", 16)
    times = list(range(100))
    times[40], times[55] = times[55], times[40]
    rows = [f'{{"timestamp": {t * 1000}, "input_length": {t}, "output_length": 1}}' for t in times]
    chunks = list(sim.open_trace(written(tmp_path, "\n".join(rows))))
    assert max(len(chunk) for chunk in chunks) == 8
    assert [w for chunk in chunks for w in chunk.work] == list(range(100))


def test_a_row_far_from_its_place_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(traces, "CHUNK_ROWS", 8)
    monkeypatch.setattr(traces, "WINDOW_ROWS", 16)
    rows = [f'{{"timestamp": {t}, "input_length": 1, "output_length": 1}}' for t in [*range(100, 200), 50]]
    with pytest.raises(
        InvalidArgument, match=r"t\.trace:101: the time must be in order within 16 rows, got one 0\.\d+ s"
    ):
        list(sim.open_trace(written(tmp_path, "\n".join(rows))))


def test_rows_of_one_time_keep_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [f'{{"timestamp": 5, "input_length": {i}, "output_length": 1}}' for i in range(50)]
    (chunk,) = sim.open_trace(written(tmp_path, "\n".join(rows)))
    assert chunk.work.tolist() == list(range(50))


WRONG = [
    (AZURE, "4808", "-1", "t.trace:2: ContextTokens must be a whole number from 0 to 1e+12, got '-1'"),
    (AZURE, "4808", "nan", "t.trace:2: ContextTokens must be"),
    (AZURE, "4808", "9" * 5000, "t.trace:2: ContextTokens must be"),
    (AZURE, ",8\r", ",8.5\r", "t.trace:3: GeneratedTokens must be a whole number from 0 to 1e+12, got '8.5'"),
    (AZURE, ",8\r", "\r", "t.trace:3: the row must be 3 values, as the header, got"),
    (AZURE, "00:01:00", "00:61:00", "t.trace:4: TIMESTAMP must be a time as 2023-11-16 18:17:03.9799600, got"),
    (AZURE, "2023-11-17 00:00", "2023-02-30 00:00", "t.trace:3: TIMESTAMP must be"),
    (
        AZURE,
        "TIMESTAMP",
        "TIME",
        "t.trace:1: the first line must be that of azure_llm_2023, mooncake, infcore_requests",
    ),
    (MOONCAKE, "23141", "-23141", "t.trace:2: input_length must be a number from 0 to 1e+12, got -23141"),
    (MOONCAKE, "23141", "NaN", "t.trace:2: input_length must be a number from 0 to 1e+12, got nan"),
    (MOONCAKE, "23141", "1e999", "t.trace:2: input_length must be a number from 0 to 1e+12, got inf"),
    (MOONCAKE, "23141", "1" + "0" * 5000, "t.trace:2: the row must be a JSON object, got"),
    (MOONCAKE, "23141", "[" * 100000, "t.trace:2: the row must be a JSON object, got"),
    (MOONCAKE, "23141", "true", "t.trace:2: input_length must be a number from 0 to 1e+12, got True"),
    (MOONCAKE, '"timestamp": 4003, ', "", "t.trace:2: timestamp must be a number from 0 to 1e+13, got None"),
    (MOONCAKE, "[0, 46]}", "[0, 46]", "t.trace:2: the row must be a JSON object, got"),
    (LOG, '"arrival_s": 1.0', '"arrival_s": "1.0"', "t.trace:3: arrival_s must be a number from 0 to 1e+10, got '1.0'"),
    (LOG, '"asr"', "null", "t.trace:3: model must be a name, got None"),
    (LOG, '"tier": 3', '"tier": 8', "t.trace:1: tier must be an integer from 0 to 7, got 8"),
    (LOG, '"tier": 3', '"tier": 3.0', "t.trace:1: tier must be an integer from 0 to 7, got 3.0"),
    (LOG, "0.5", "0", "t.trace:1: deadline_s must be a number > 0 or null, got 0"),
    (LOG, '"session": 7', '"session": 18446744073709551616', "t.trace:1: session must be an integer from 0 to"),
    (LOG, '"round_robin"', "1", "t.trace:1: policy must be a text, got 1"),
]


@pytest.mark.parametrize(("text", "old", "new", "message"), WRONG)
def test_wrong_rows_are_refused(tmp_path: Path, text: str, old: str, new: str, message: str) -> None:
    assert old in text
    with pytest.raises(InvalidArgument) as error:
        list(sim.open_trace(written(tmp_path, text.replace(old, new, 1))))
    assert message in str(error.value)
    assert len(str(error.value)) < 600


def test_what_is_no_trace(tmp_path: Path) -> None:
    for content, message in (
        (b"", r"t\.trace:1: the first line must be that of .* got ''"),
        (b"\n\n", r"the first line must be that of"),
        (b"\x1f\x8b", "the file must be whole"),
        (b"\x1f\x8b" + b"\0" * 100, "the file must be whole"),
        (b"\xfd7zXZ\0garbage", "the file must be whole"),
        (AZURE.encode() + b"2023-11-17 00:02:00,\xff,1\n", r"t\.trace:5: the line must be UTF-8, got byte 0xff at 20"),
        (b"TIMESTAMP,ContextTokens,GeneratedTokens\n", "the trace must have at least one row, got none"),
        (b"x" * (1 << 20) + b"x", r"t\.trace:1: a line must have at most 1048576 bytes, got more"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            list(sim.open_trace(written(tmp_path, content)))
    for path in (str(tmp_path), str(tmp_path / "none"), "a\0b"):
        with pytest.raises(InvalidArgument, match="trace must be a readable file, got"):
            sim.open_trace(path)


def test_arguments(tmp_path: Path) -> None:
    path = written(tmp_path, AZURE)
    assert sim.open_trace(path, format="azure_llm_2023").format == "azure_llm_2023"
    with pytest.raises(
        InvalidArgument, match="format must be one of azure_llm_2023, mooncake, infcore_requests or None"
    ):
        sim.open_trace(path, format="csv")
    with pytest.raises(InvalidArgument, match=r"t\.trace:1: the first line must be that of mooncake, got 'TIMESTAMP"):
        sim.open_trace(path, format="mooncake")
    with pytest.raises(InvalidArgument, match="policy must be None for a trace of format azure_llm_2023, got 'x'"):
        sim.open_trace(path, policy="x")
