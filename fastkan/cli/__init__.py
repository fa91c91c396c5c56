"""The command line: `fastkan demo`, `fastkan info`, `fastkan bench`, each a module with add_arguments and run."""

import argparse
import sys
from collections.abc import Sequence

from .. import BackendError, __version__, backends
from . import bench, demo, info

COMMANDS = {
    "demo": (demo, "train on real digits with nn.Linear and with KANLinear, then time every backend"),
    "info": (info, "versions, machine, and which backend runs why"),
    "bench": (bench, "time a layer of any shape against nn.Linear and other KAN formulas"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for what cannot be done here, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="fastkan", description="Kolmogorov-Arnold Network layers for PyTorch.")
    parser.add_argument("--version", action="version", version=f"fastkan {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{" + ",".join(COMMANDS) + "}")
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        backends()
    except ValueError as error:  # of the environment variable
        parser.error(str(error))
    try:
        return args.run(args)
    except (BackendError, demo.MissingExtra, OSError) as error:
        print(f"fastkan {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
