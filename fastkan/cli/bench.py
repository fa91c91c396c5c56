"""`fastkan bench`: the throughput table at any shape."""

import argparse
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from ..arguments import positive
from ..measure import provenance
from ..measure.correctness import Case
from ..measure.peers import BASELINE, DEFAULT, PEERS, Peer, builds
from ..measure.progress import bar
from ..measure.table import digits, duration, table
from ..measure.timing import PHASES, Result, csv_rows, measure, quartiles
from ..spec import MAX_DEGREE

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", type=shape, default=(1024, 256, 256), metavar="NxIxO",
                        help="rows x in_features x out_features (1024x256x256)")  # fmt: skip
    parser.add_argument("--grid", type=positive, default=5, metavar="G", help="grid intervals (5)")
    parser.add_argument("--degree", type=int, choices=range(MAX_DEGREE + 1), default=3, help="of the splines (3)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="(float32)")
    parser.add_argument("--threads", type=positive, metavar="T", help="of torch's pool (as torch chooses)")
    parser.add_argument("--rounds", type=positive, default=21, metavar="R", help="samples of each contestant (21)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the measurements there too")
    parser.add_argument("--peers", nargs="+", choices=(*PEERS, "all"), default=list(DEFAULT), metavar="NAME",
                        help=f"contestants: all, or some of {', '.join(PEERS)} ({' '.join(DEFAULT)})")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    if args.threads:
        torch.set_num_threads(args.threads)
    case = Case(*args.shape, args.grid, args.degree, DTYPES[args.dtype])
    names = PEERS if "all" in args.peers else args.peers
    if args.csv:
        args.csv.touch()  # a path that cannot be written is better known before the race
    results = measure(case, builds(names), args.rounds, progress=bar)
    print(headline(case))
    print(results_table(results))
    print(FOOTNOTE)
    if args.csv:
        provenance.write_csv(args.csv, csv_rows(results))
        print(f"\nWritten to {args.csv}.")
    return 0


FOOTNOTE = (
    f"\nRatio: time over that of {PEERS[BASELINE].label}, round by round; the median, and the range of the middle\n"
    "half of the rounds. Each spline layer in the table gave the reference's results and gradients within tolerance."
)


def headline(case: Case) -> str:
    dtype = str(case.dtype).removeprefix("torch.")
    return (
        f"{case.batch} rows, {case.in_features} -> {case.out_features}, G={case.grid_size}, K={case.degree}, {dtype}, "
        f"{torch.get_num_threads()} threads, {provenance.cpu_model()}\n"
    )


def results_table(results: Iterable[Result], peers: Mapping[str, Peer] = PEERS) -> str:
    """One line a contestant, its phases side by side; a contestant that did not race shows why."""
    by_peer: dict[str, dict[str, Result]] = {}
    for r in results:
        by_peer.setdefault(r.peer, {})[r.phase] = r
    header, lines, absent = ["contestant", "parameters"], [], []
    phases = [p for p in PHASES if any(p in of for of in by_peer.values())]
    for phase in phases:
        header += [phase, "ratio", "range"]
    for peer, of in by_peer.items():
        first = of[phases[0]]
        if first.reason:
            absent.append(f"not in the race: {peers[peer].label}: {first.reason}")
            continue
        line = [peers[peer].label, str(first.parameters)]
        for phase in phases:
            low, high = quartiles(of[phase].ratios)
            line += [duration(of[phase].seconds), digits(of[phase].ratio), f"{digits(low)}-{digits(high)}"]
        lines.append(line)
    return "\n".join([table(header, lines), *absent])


def shape(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r}: expected rows x in_features x out_features, as in 1024x256x256")
    n, i, o = map(int, match.groups())
    return n, i, o
