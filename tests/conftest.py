"""Settings of every test."""

import os

import pytest
from hypothesis import settings

# No deadline: how long an example takes says how busy the machine is. CI draws the same examples in every run.
settings.register_profile("infcore", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("infcore")


def pytest_addoption(parser: pytest.Parser) -> None:
    """--update-golden: record what is decided now; the diff is to be reviewed."""
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew from what is decided now")
