"""The commands `fastkan demo`, `fastkan fit` and so on, each a module with `run`; their options are in fastkan_cli."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable

from .. import BackendError, backends, verdicts
from ..tabular.delimited import TableError


class MissingExtra(RuntimeError):
    """A command needs a package that fastkan itself does not need."""


def run(args: argparse.Namespace, usage_error: Callable[[str], object]) -> int:
    """Run args.command. Returns the exit status: 1 for a failure, with one line on standard error; else 0."""
    try:
        backends()
        verdicts.mode()
    except ValueError as error:  # of the environment variable
        usage_error(str(error))
    try:
        status = importlib.import_module(f".{args.command}", __name__).run(args)
        print(end="", flush=True)
        return status
    except BrokenPipeError:
        raise  # to fastkan_cli.main
    except (BackendError, MissingExtra, TableError, OSError) as error:
        print(f"fastkan {args.command}: {_reason(error)}", file=sys.stderr)
        return 1
    except MemoryError:
        print(f"fastkan {args.command}: not enough memory", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"fastkan {args.command}: interrupted", file=sys.stderr)
        return 130


def _reason(error: Exception) -> str:
    """The message of an error, without the number of an operating system's error in a file."""
    if not isinstance(error, OSError) or not error.strerror or not isinstance(error.filename, str | bytes):
        return str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror[0].lower()}{error.strerror[1:]}"
