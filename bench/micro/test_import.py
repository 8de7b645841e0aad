"""Time of `import infcore` beyond NumPy's own, each in a fresh process.

The figure is in extra_info and on standard output; the timed column includes starting the process.
"""

import statistics
import subprocess
import sys

PROGRAM = "import time, numpy; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
ROUNDS = 15


def import_seconds(module: str) -> float:
    run = [sys.executable, "-c", PROGRAM.format(module)]
    return float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


def test_import_beyond_numpy(benchmark) -> None:
    infcore_s: list[float] = []
    rounds = ROUNDS if benchmark.enabled else 1
    benchmark.pedantic(lambda: infcore_s.append(import_seconds("infcore")), rounds=rounds)
    benchmark.extra_info |= {
        "import_ms_p50": 1e3 * statistics.median(infcore_s),
        "import_ms_max": 1e3 * max(infcore_s),
        "n": len(infcore_s),
    }
    print(*(f"{name} {value:.3g}" for name, value in benchmark.extra_info.items()))
    assert all(seconds > 0.0 for seconds in infcore_s)
