"""The operations, in the order in which they are shown: their checks and what is measured of them."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
from checking import Case
from pack_cases import pack_cases, unpack_cases
from pack_workloads import pack_workloads, unpack_workloads
from workloads import Workload


class Cases(Protocol):
    """Draws cases; fewer and smaller ones at smoke size."""

    def __call__(self, rng: np.random.Generator, *, smoke: bool) -> Iterator[Case]: ...


class Operation(NamedTuple):
    """One operation."""

    package: str  # below infcore.kernels
    cases: Cases
    workloads: Callable[[np.random.Generator, int], Iterator[Workload]]  # of a size in bytes


OPERATIONS = {
    "pack": Operation("pack", pack_cases, pack_workloads),
    "unpack": Operation("pack", unpack_cases, unpack_workloads),
}
