"""`python -m infcore.cli` is `infcore`."""

import sys

from infcore.cli import main

sys.exit(main())
