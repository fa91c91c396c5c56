"""The command line: `fastkan demo`, `fastkan fit` and so on, each a module with add_arguments and run."""

import argparse
import os
import sys
from collections.abc import Sequence

from .. import BackendError, __version__, backends
from ..tabular.delimited import TableError
from . import bench, demo, fit, info, predict, show

COMMANDS = {
    "demo": (demo, "train on real digits with nn.Linear and with KANLinear, then time every backend"),
    "fit": (fit, "train on a table in a file, and find a formula for one of its columns"),
    "predict": (predict, "predict that column for the rows of another table"),
    "show": (show, "what such a model is: formula, errors, columns"),
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
    except BrokenPipeError:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (BackendError, demo.MissingExtra, TableError, OSError) as error:
        print(f"fastkan {args.command}: {error}", file=sys.stderr)
        return 1
    except MemoryError:
        print(f"fastkan {args.command}: not enough memory", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"fastkan {args.command}: interrupted", file=sys.stderr)
        return 130
