from typing import Any

import numpy as np
from numpy.typing import NDArray

def run(
    policy: str,
    capacity_bytes: int,
    keys: NDArray[np.uint64],
    sizes: NDArray[np.uint64] | None,
    costs: NDArray[np.float64] | None,
    times_s: NDArray[np.float64] | None,
    requests: NDArray[np.int64] | None,
    admit: NDArray[np.uint8] | None,
    ttl_s: float | None,
) -> dict[str, Any]: ...
