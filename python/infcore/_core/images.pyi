from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

def pack_into(
    out: NDArray[Any],
    images: list[NDArray[np.uint8]],
    order: tuple[int, ...],
    mean: Sequence[float] | NDArray[np.float32],
    scale: Sequence[float] | NDArray[np.float32],
    pad_value: float,
) -> None: ...
