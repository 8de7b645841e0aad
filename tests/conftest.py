"""Settings of every test."""

import os
import sys

import pytest
from hypothesis import settings

# No deadline: how long an example takes says how busy the machine is. CI draws the same examples in every run;
# sanitizers see fewer, as what they look for lies in how a call is made more than in its numbers.
settings.register_profile(
    "infcore",
    deadline=None,
    print_blob=True,
    derandomize="CI" in os.environ,
    max_examples=40 if "INFCORE_SANITIZED" in os.environ else 100,
)
settings.load_profile("infcore")

# Under a sanitizer PyTorch takes a minute to import and gigabytes to run, and none of its code is ours: as if it were
# not installed. What is run by it is run without sanitizers, and its kernels under them as C++ (tests/gpu/shim).
if "INFCORE_SANITIZED" in os.environ:
    for package in ("torch", "triton", "cupy"):
        sys.modules[package] = None  # type: ignore[assignment]


def pytest_addoption(parser: pytest.Parser) -> None:
    """--update-golden: record what is decided now; the diff is to be reviewed."""
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew from what is decided now")
