"""The command line: `infcore bench | simulate | report | info`.

Exit status: 0 good, 1 the run is not valid, 2 bad arguments.
"""

import sys
from collections.abc import Sequence

from infcore.cli import bench, info, report, simulate
from infcore.cli.common import Parser
from infcore.errors import InfcoreError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (sys.argv without its first word, if None) and return the exit status."""
    from infcore import __version__

    parser = Parser(prog="infcore", description="Profile and inspect infcore, the core of an inference load balancer.")
    parser.add_argument("--version", action="version", version=f"infcore {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True, parser_class=Parser)
    for module in (bench, simulate, report, info):
        module.add_parser(commands)
    try:
        arguments = parser.parse_args(argv)
        status: int = arguments.run(arguments)
    except SystemExit as stop:  # argparse: --help and --version are 0, a bad argument is 2
        return stop.code if isinstance(stop.code, int) else 2
    except InfcoreError as error:
        print(f"infcore: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("infcore: interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output went away, `| head` for one
        sys.stderr.close()
        return 1
    return status
