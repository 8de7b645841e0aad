"""Settings of every test."""

import os

from hypothesis import settings

# No deadline: how long an example takes says how busy the machine is. CI draws the same examples in every run.
settings.register_profile("infcore", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("infcore")
