"""Makes the environment of the peers: python bench/peers/install.py [.venv-peers]

An environment of its own, so that nothing of infcore's depends on what they bring. What cannot be installed is noted
in missing.json there, with the reason; what measures it says so in place of its figures.
"""

import json
import subprocess
import sys
from pathlib import Path

import vllm_pool

HERE = Path(__file__).parent


def wanted(requirements: str) -> list[str]:
    """The requirements of a file, without comments and empty lines."""
    return [line for line in (raw.split("#")[0].strip() for raw in requirements.splitlines()) if line]


def reason(printed: str) -> str:
    """The line that tells why: pip's last error, else the last line of all."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()] or ["it said nothing"]
    return next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])


def main(venv: Path) -> None:
    python = str(venv / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    missing: dict[str, str] = {}
    for requirement in wanted((HERE / "requirements.txt").read_text()):
        print(f"   {requirement}", flush=True)
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", HERE / "constraints.txt"]
        done = subprocess.run([*pip, requirement], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            missing[requirement] = reason(done.stdout)
    print(f"   block pool of vllm {vllm_pool.RELEASE}", flush=True)
    try:
        vllm_pool.fetch(vllm_pool.folder(venv), python)
    except (subprocess.CalledProcessError, OSError, KeyError, StopIteration) as e:
        missing[f"vllm=={vllm_pool.RELEASE}"] = f"{type(e).__name__}: {e}"
    (venv / "missing.json").write_text(json.dumps(missing, indent=1))
    for requirement, why in missing.items():
        print(f"   not installed: {requirement}: {why}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parents[1] / ".venv-peers"))
