"""README's code as it stands there: the server answers about this project's files; rows are packed, and come back."""

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest

import infcore

ROOT = Path(__file__).resolve().parents[2]
FILES = {"README.md": "markdown", "pyproject.toml": "toml"}


def run(word):
    """What README's example with that word in it leaves behind."""
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    (code,) = (example for example in examples if word in example)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_rows_are_packed_and_come_back():
    left = run("infcore.pack")
    assert left["batch"].mask.sum(axis=1).tolist() == [7, 300, 41]
    assert all(np.array_equal(row, answer) for row, answer in zip(left["rows"], left["answers"], strict=True))


def test_more_than_it_can_do():
    left = run("infcore.Overloaded")
    assert len(left["answered"]) + len(left["refused"]) == 300
    assert set(left["answered"]) <= {("large", None), ("small", "cheaper")} and ("large", None) in left["answered"]
    assert all(reason == "overload" and after_s > 0.0 for reason, after_s in left["refused"])
    hopeless = left["hopeless"].exception()
    if not isinstance(hopeless, infcore.DeadlineExceeded):  # submit's thread slept through that millisecond
        assert isinstance(hopeless, infcore.DeadlineInfeasible) and 0.001 < hopeless.best_s <= 0.005


def test_tokens_come():
    assert 1 <= len(run("TokenModel")["answer"]) <= 32


def test_the_server_in_the_readme_answers():
    fastapi = pytest.importorskip("fastapi", reason="needs FastAPI, of the extra [test]")
    httpx = pytest.importorskip("httpx", reason="needs httpx, of the extra [test]")
    pytest.importorskip("onnxruntime", reason="needs the extra [models]")
    server = run("FastAPI")
    app = server["app"]
    assert isinstance(app, fastapi.FastAPI)

    async def ask():
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as http,
        ):
            answers = await asyncio.gather(
                *[http.post("/file-type", content=(ROOT / name).read_bytes()) for name in FILES]
            )
        return [answer.json()["type"] for answer in answers]

    assert asyncio.run(ask()) == list(FILES.values())
    assert server["engine"].n_open == 0
