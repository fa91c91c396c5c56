"""`fastkan bench`: the throughput table at any shape."""

import argparse
from collections.abc import Iterable, Mapping

import torch

from ..measure import provenance
from ..measure.correctness import Case
from ..measure.peers import BASELINE, PEERS, Peer, builds
from ..measure.progress import bar
from ..measure.table import digits, duration, table
from ..measure.timing import PHASES, Result, csv_rows, measure, quartiles


def run(args: argparse.Namespace) -> int:
    if args.threads:
        torch.set_num_threads(args.threads)
    batch, in_features, out_features = args.shape
    case = Case(batch, in_features, out_features, args.grid, args.degree, getattr(torch, args.dtype))
    names = PEERS if "all" in args.peers else args.peers
    if args.csv:
        args.csv.touch()  # an unwritable path fails before the measurement, not after it
    results = measure(case, builds(names), args.rounds, progress=bar)
    print(headline(case))
    print(results_table(results))
    print(FOOTNOTE)
    if args.csv:
        provenance.write_csv(args.csv, csv_rows(results))
        print(f"\nWritten to {args.csv}.")
    return 0


FOOTNOTE = (
    f"\nRatio: time divided by that of {PEERS[BASELINE].label}, round by round; median, and range of the middle half\n"
    "of the rounds. Every spline layer in the table matches the reference's results and gradients within tolerance."
)


def headline(case: Case) -> str:
    dtype = str(case.dtype).removeprefix("torch.")
    return (
        f"{case.batch} rows, {case.in_features} -> {case.out_features}, G={case.grid_size}, K={case.degree}, {dtype}, "
        f"{torch.get_num_threads()} threads, {provenance.cpu_model()}\n"
    )


def results_table(results: Iterable[Result], peers: Mapping[str, Peer] = PEERS) -> str:
    """One line per layer, its phases side by side; then the layers that were not timed, with the reason."""
    by_peer: dict[str, dict[str, Result]] = {}
    for r in results:
        by_peer.setdefault(r.peer, {})[r.phase] = r
    header, lines, absent = ["layer", "parameters"], [], []
    phases = [p for p in PHASES if any(p in of for of in by_peer.values())]
    for phase in phases:
        header += [phase, "ratio", "range"]
    for peer, of in by_peer.items():
        first = of[phases[0]]
        if first.reason:
            absent.append(f"not timed: {peers[peer].label}: {first.reason}")
            continue
        line = [peers[peer].label, str(first.parameters)]
        for phase in phases:
            low, high = quartiles(of[phase].ratios)
            line += [duration(of[phase].seconds), digits(of[phase].ratio), f"{digits(low)}-{digits(high)}"]
        lines.append(line)
    return "\n".join([table(header, lines), *absent])
