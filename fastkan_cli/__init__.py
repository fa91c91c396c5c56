"""The command `fastkan`: its options. The commands themselves are in fastkan/cli.

A package of its own, since importing anything of fastkan imports torch, which takes seconds: --help, --version, shell
completion and errors in the command line need neither.
"""

import argparse
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from .completion import SHELLS, script

# Names in the package, in the order of their owners there; tests/test_cli.py compares them.
DTYPES = ("float32", "float64", "bfloat16", "float16")
FAMILIES = ("bspline", "rbf", "chebyshev", "legendre", "jacobi", "gegenbauer", "hermite", "chebyshev2", "bernstein",
            "fourier", "relu", "mexican_hat", "morlet", "dog", "switch", "unit_switch")  # fmt: skip
MAX_DEGREE = 5
PEERS = (
    "linear", "linear-same-shape", "native", "dense", "dense-compiled", "reference", "efficient-kan",
    "efficient-kan-compiled", "fast-kan", "fast-kan-compiled", "closed-cubic", "closed-cubic-compiled",
)  # fmt: skip
DEFAULT_PEERS = ("linear", "linear-same-shape", "native", "reference", "efficient-kan")
TASKS = ("regression", "classification")
FEW_CLASSES = 5
STARTING = "importing PyTorch"  # shown for the seconds that it takes


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0, 1 for a failure, 2 for an invalid command line."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        if args.command == "completion":
            print(script(parser, args.shell), flush=True)
            return 0
        shown = args.command == "fit" and not (args.quiet or args.json) and sys.stderr.isatty()
        print(STARTING if shown else "", end="", file=sys.stderr, flush=True)
        from fastkan.cli import run

        print(f"\r{' ' * len(STARTING)}\r" if shown else "", end="", file=sys.stderr, flush=True)
        return run(args, parser.error)
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python prints an error at exit
        return 1


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; `command` of its result is the name of a module in fastkan/cli, or "completion"."""
    parser = argparse.ArgumentParser(prog="fastkan", description="Kolmogorov-Arnold Network layers for PyTorch.")
    parser.add_argument("--version", action="version", version=f"fastkan {version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (add_arguments, text) in COMMANDS.items():
        description = text[0].upper() + text[1:] + "."
        add_arguments(commands.add_parser(name, help=text, description=description))
    return parser


def version() -> str:
    """fastkan.__version__, without importing fastkan."""
    package = importlib.util.find_spec("fastkan")
    assert package is not None and package.origin is not None
    (found,) = re.findall(r'^__version__ = "(.+)"$', Path(package.origin).read_text(), re.MULTILINE)
    return found


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="seed of split, layers and batch order (0)")
    parser.add_argument("--threads", type=positive, metavar="T", help="number of torch threads (torch's default)")
    parser.add_argument("--folder", type=Path, default=Path("fastkan-demo"), help="where diagrams go (fastkan-demo)")
    parser.add_argument("--epochs", type=positive, default=30, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=positive, default=5, help=argparse.SUPPRESS)


def _fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="a file of delimited text with a header row, may be gzipped")
    parser.add_argument("--target", required=True, metavar="NAME", help="the column to predict")
    parser.add_argument("--task", choices=TASKS,
                        help=f"(classification for text and for at most {FEW_CLASSES} whole numbers)")  # fmt: skip
    parser.add_argument("--drop", action="append", default=[], metavar="NAME", help="a column to leave out; repeatable")
    parser.add_argument("--text", action="append", default=[], metavar="NAME",
                        help="a column of numbers that are category labels; repeatable")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="output folder (the table's name and -kan)")
    parser.add_argument("--html", type=Path, metavar="PATH", help="the interactive page (FOLDER/page.html)")
    parser.add_argument("--keep", choices=("formula", "network"),
                        help="what the model file contains (the formula, unless the splines are better)")  # fmt: skip
    parser.add_argument("--hold-out", type=share, default=0.2, metavar="SHARE", help="share of test rows (0.2)")
    parser.add_argument("--time", metavar="NAME", help="a column of numbers or dates: test rows are the last by it")
    parser.add_argument("--rows", type=positive, default=20_000,
                        help="maximum number of rows, a random sample of larger tables (20000)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of sample, split and networks (0)")
    _layout(parser)
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def _predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="the model.pt of `fastkan fit`, or its folder")
    parser.add_argument("data", type=Path, help="a table with the model's input columns")
    parser.add_argument("--out", type=Path, metavar="PATH", help="output file (standard output)")
    parser.add_argument("--quantize", action="store_true", help="by 8-bit tables, and say what they change")
    _layout(parser)
    parser.add_argument("--quiet", action="store_true", help="no notes on standard error")
    parser.add_argument("--json", action="store_true", help="print one JSON object per row instead of CSV")


def _layout(parser: argparse.ArgumentParser) -> None:
    """Options of the file's layout, where its detection is wrong."""
    parser.add_argument("--delimiter", type=delimiter, metavar="SIGN", help="between cells, or 'tab' (detected)")
    parser.add_argument("--decimal", choices=(".", ","), help="the decimal sign (detected)")
    parser.add_argument("--header", action=argparse.BooleanOptionalAction,
                        help="whether the first row has the column names (detected)")  # fmt: skip


def _show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="the model.pt of `fastkan fit`, or its folder")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the layer (float32)")
    parser.add_argument("--family", choices=FAMILIES, default="bspline", help="of its basis functions (bspline)")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", type=shape, default=(1024, 256, 256), metavar="NxIxO",
                        help="rows x in_features x out_features (1024x256x256)")  # fmt: skip
    parser.add_argument("--grid", type=positive, default=5, metavar="G", help="number of grid intervals (5)")
    parser.add_argument("--degree", type=int, choices=range(MAX_DEGREE + 1), default=3, help="of the splines (3)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="(float32)")
    parser.add_argument("--threads", type=positive, metavar="T", help="number of torch threads (torch's default)")
    parser.add_argument("--rounds", type=positive, default=21, metavar="R", help="samples of each layer (21)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the measurements to this file too")
    parser.add_argument("--peers", nargs="+", choices=(*PEERS, "all"), default=list(DEFAULT_PEERS), metavar="NAME",
                        help=f"all, or some of {', '.join(PEERS)} ({' '.join(DEFAULT_PEERS)})")  # fmt: skip


def _prove(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cuda:0", help="the GPU (cuda:0)")
    parser.add_argument("--kinds", nargs="+", default=[], metavar="KIND",
                        help="of calls, such as bspline-3-zero-uniform-float32 or 'rbf-*' (the usual)")  # fmt: skip
    parser.add_argument("--seconds", type=positive, default=300, metavar="S", help="for everything (300)")
    parser.add_argument("--each", type=positive, default=90, metavar="S",
                        help="for one implementation and kind; one that takes longer hangs (90)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="as JSON, at the end")


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="print the script of this shell")


COMMANDS = {
    "demo": (_demo, "train on scanned digits with nn.Linear and with KANLinear, find formulas, time every backend"),
    "fit": (_fit, "train on a table in a file, and find a formula for one of its columns"),
    "predict": (_predict, "predict that column for the rows of another table"),
    "show": (_show, "show the formula, errors and columns of such a model"),
    "info": (_info, "show versions, machine, and which backend runs and why"),
    "prove": (_prove, "find out which kernels are right on this machine's GPU, and faster than PyTorch's operators"),
    "bench": (_bench, "time a layer of any shape against nn.Linear and other KAN formulas"),
    "completion": (_completion, 'complete commands and options with Tab: eval "$(fastkan completion bash)"'),
}


def positive(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least 1")
    return int(text)


def shape(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r}: expected rows x in_features x out_features, as in 1024x256x256")
    n, i, o = map(int, match.groups())
    return n, i, o


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 0.5:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0, 0.5 at most")
    return value


def delimiter(text: str) -> str:
    text = {"tab": "\t", "\\t": "\t", "space": " "}.get(text, text)
    if len(text) != 1 or text in '"\r\n':
        raise argparse.ArgumentTypeError(f"{text!r}: expected one character, or tab or space")
    return text
