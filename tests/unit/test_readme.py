"""README's server, served: its code as it stands there, answering about this project's own files."""

import asyncio
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = {"README.md": "markdown", "pyproject.toml": "toml"}


def test_the_server_in_the_readme_answers():
    fastapi = pytest.importorskip("fastapi", reason="needs FastAPI, of the extra [test]")
    httpx = pytest.importorskip("httpx", reason="needs httpx, of the extra [test]")
    pytest.importorskip("onnxruntime", reason="needs the extra [models]")
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S).group(1)
    server = {}
    exec(compile(code, "README.md", "exec"), server)
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
