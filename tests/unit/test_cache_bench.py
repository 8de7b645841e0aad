"""bench/replay/cache.py at smoke size, on traces that it draws and on small ones in the formats of the recorded."""

import gzip
import importlib.util
import json
import lzma
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench" / "replay" / "cache.py"


@pytest.fixture(scope="module")
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("cache_bench", BENCH)
    assert spec and spec.loader
    sys.modules["cache_bench"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_samples(folder: Path) -> None:
    draw = np.random.default_rng(3)
    prompts = [{"timestamp": i, "input_length": 1100, "hash_ids": [0, i % 3 + 1, 10 + i]} for i in range(30)]
    text = "\n".join(json.dumps(prompt) for prompt in prompts)
    (folder / "mooncake_conversation_trace.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "scarab_recs.trace.xz").write_bytes(lzma.compress((draw.zipf(1.2, 400) % 90).astype(">i8").tobytes()))
    rows = "".join(f"2023-11-16 18:15:46.{i}0000,{100 * i},{i}\n" for i in range(1, 9))
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows
    (folder / "azure_llm2023_conv.csv.gz").write_bytes(gzip.compress(text.encode()))
    lines = "".join(f"{i} {key} {10 + key}\n" for i, key in enumerate(draw.integers(0, 50, 300)))
    (folder / "adaptsize_request.trace.xz").write_bytes(lzma.compress(lines.encode()))


def test_tables_and_regrets(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_samples(tmp_path)
    drawn = bench.zipf
    monkeypatch.setattr(bench, "zipf", lambda kind: drawn(kind, n=4000, n_keys=300))
    arguments = ["--traces", str(tmp_path), "--policies", "lru", "gdsf", "belady", "--fractions", "0.1", "0.3"]
    assert bench.main([*arguments, "--json", str(tmp_path / "out.json")]) == 0
    out, err = capsys.readouterr()
    assert "gcc: left out, no" in err and "regret against the best online policy" in out
    runs = json.loads((tmp_path / "out.json").read_text())
    traces = ["mooncake", "scarab x1", "scarab x8", "scarab x50", "adaptsize", "zipf", "zipf permuted", "zipf drift"]
    assert list(dict.fromkeys(run["trace"] for run in runs)) == traces
    assert len(runs) == len(traces) * 2 * 3
    for run in runs:
        assert run["stats"]["bytes_used"] > 0 and 0 < run["stats"]["cost_missed_us"] < run["stats"]["cost_requested_us"]
    assert bench.main(["--traces", str(tmp_path), "--cell", "nothing"]) == 2


def test_zipf_that_drifts_and_is_permuted(bench: Any) -> None:
    static, drift, permuted = (
        bench.zipf(kind, n=200_000, n_keys=1000).keys for kind in ("static", "drift", "permuted")
    )
    first, second = (
        np.bincount(permuted[part], minlength=1000).argmax() for part in (slice(100_000), slice(100_000, None))
    )
    assert np.bincount(static).argmax() == 0 and first != second
    assert ((drift - static) % 1000 == np.arange(200_000) // 20 % 1000).all()
