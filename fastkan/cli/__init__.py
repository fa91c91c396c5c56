"""The commands `fastkan demo`, `fastkan fit` and so on, each a module with `run`; their options are in fastkan_cli."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable

from .. import BackendError, backends
from ..tabular.delimited import TableError


class MissingExtra(RuntimeError):
    """A command needs a package that fastkan itself does not need."""


def run(args: argparse.Namespace, usage_error: Callable[[str], object]) -> int:
    """Run args.command. Returns the exit status: 1 for a failure, with one line on standard error; else 0."""
    try:
        backends()
    except ValueError as error:  # of the environment variable
        usage_error(str(error))
    try:
        return importlib.import_module(f".{args.command}", __name__).run(args)
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (BackendError, MissingExtra, TableError, OSError) as error:
        print(f"fastkan {args.command}: {error}", file=sys.stderr)
        return 1
    except MemoryError:
        print(f"fastkan {args.command}: not enough memory", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"fastkan {args.command}: interrupted", file=sys.stderr)
        return 130
