"""The operations, in the order in which they are shown: their checks and what is measured of them."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
from block_tables import block_table_cases, block_table_workloads
from checking import Case
from images import image_cases, image_workloads
from pack_cases import pack_cases, unpack_cases
from pack_workloads import pack_workloads, unpack_workloads
from workloads import Workload


class Cases(Protocol):
    """Draws cases; fewer and smaller ones at smoke size."""

    def __call__(self, rng: np.random.Generator, *, smoke: bool) -> Iterator[Case]: ...


class Operation(NamedTuple):
    """One operation."""

    package: str  # below infcore.kernels
    tools: str  # of tests/gpu: what its modules' names begin with
    cases: Cases
    workloads: Callable[[np.random.Generator, int], Iterator[Workload]]  # of a size in bytes


OPERATIONS = {
    "pack": Operation("pack", "pack", pack_cases, pack_workloads),
    "unpack": Operation("pack", "pack", unpack_cases, unpack_workloads),
    "image_pack": Operation("image_pack", "image", image_cases, image_workloads),
    "block_table": Operation("block_table", "block", block_table_cases, block_table_workloads),
}
