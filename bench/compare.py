"""python -m bench compare REF: times of this tree divided by those of another commit, in interleaved rounds.

The commit is checked out and compiled in build/compare/. Each tree runs in a process of its own, of which only one
works at a time.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from fastkan.measure.progress import bar
from fastkan.measure.provenance import commit, write_csv
from fastkan.measure.table import digits, duration, table
from fastkan.measure.timing import SAMPLE_SECONDS, quartiles, time_interleaved
from fastkan_cli import positive

from . import cases

ROOT = Path(__file__).parent.parent
TREES = ROOT / "build/compare"
WORKER = Path(__file__).with_name("compare_worker.py")
TOLERANCE = 1e-3  # relative difference of results that is reported; rounding is far below it

# what -> label -> request to the worker
FULL = {
    "layers": {
        f"{case}, {phase}": ("layers", case.batch, case.in_features, case.out_features, case.grid_size, backward)
        for case in cases.LAYERS
        for phase, backward in (("forward", False), ("forward+backward", True))
    },
    "stacks": {"2-5-1, 1000 rows": ("stacks", 1000, 2, 5, 1), "4-10-10-1, 1000 rows": ("stacks", 1000, 4, 10, 10, 1)},
    "fit": {"2-5-1, 10 steps": ("fit", 1000, 2, 5, 1), "4-10-10-1, 10 steps": ("fit", 1000, 4, 10, 10, 1)},
    "startup": {"import fastkan": ("startup",)},
}
TINY = {"layers": {"16, 3->2, G=5, forward+backward": ("layers", 16, 3, 2, 5, True)}}


class Worker:
    """The process that runs the cases with one tree's fastkan."""

    def __init__(self, tree: Path, threads: int):
        command = [sys.executable, "-c", WORKER.read_text()]  # imports from its working directory first
        self.process = subprocess.Popen(
            command, cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        file, self.native = self.ask(threads)
        if not Path(file).resolve().is_relative_to(tree.resolve()):
            raise SystemExit(f"bench compare: {file} was imported: expected fastkan in {tree}")

    def ask(self, request):
        """The answer to a request: a number of threads, a case to build, or a number of calls to time."""
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        if not (line := self.process.stdout.readline()):
            raise SystemExit(f"bench compare: a process failed at {request}, see above")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench compare: {done.stderr.strip()}")
    return done.stdout.strip()


def checked_out(ref: str) -> Path:
    """The folder of that commit with its compiled kernels, made by the first call."""
    name = git("rev-parse", "--verify", f"{ref}^{{commit}}")
    tree = TREES / name[:12]
    if not (tree / "setup.py").exists():
        git("worktree", "prune")
        git("worktree", "add", "--detach", str(tree), name)
    if not (tree / "fastkan/lib").exists():
        print(f"Compiling {name[:12]} in {tree} ...", file=sys.stderr, flush=True)
        command = [sys.executable, "setup.py", "-q", "build_native", "--inplace"]
        done = subprocess.run(
            command, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{done.stdout}\nbench compare: {name[:12]} could not be compiled, see above")
    return tree


def rows(wanted: dict[str, dict[str, tuple]], workers: dict[str, Worker], rounds: int) -> list[dict[str, object]]:
    """One row per case: medians of both trees, ratio with quartiles, and whether the results agree."""
    measured = []
    for what, requests in wanted.items():
        for label, request in requests.items():
            results = [worker.ask(request) for worker in workers.values()]
            times, _ = time_interleaved(
                workers, rounds, SAMPLE_SECONDS, bar, label, lambda worker, repeats: worker.ask(repeats)
            )
            before, after = times.values()
            ratios = [b / a for a, b in zip(before, after, strict=True)]
            measured.append({
                "what": what, "case": label, "seconds_before": median(before), "seconds_after": median(after),
                "ratio": median(ratios), "ratio_q1": quartiles(ratios)[0], "ratio_q3": quartiles(ratios)[1],
                "difference": difference(*results),
            })  # fmt: skip
    return measured


def difference(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> float:
    """The largest relative difference of two fingerprints; infinite if they do not belong to the same results."""
    if len(one) != len(other):
        return math.inf
    pairs = zip(one, other, strict=True)
    return max((abs(a - b) / (max(size, other_size) or 1.0) for (a, size), (b, other_size) in pairs), default=0.0)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench compare", description=__doc__.partition("\n")[0])
    parser.add_argument("ref", help="a commit, branch or tag")
    parser.add_argument("--what", nargs="+", choices=FULL, default=["layers"], help="(layers)")
    parser.add_argument("--rounds", type=positive, default=21, help="samples of each case (21)")
    parser.add_argument("--threads", type=positive, default=2, help="number of torch threads (2)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the measurements to this file too")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: to test the program, not to measure")
    args = parser.parse_args(argv)
    names = (git("rev-parse", "--short=12", args.ref), commit() or "this tree")
    workers = {}
    try:
        for name, tree in zip(("before", "after"), (checked_out(args.ref), ROOT), strict=True):
            workers[name] = Worker(tree, args.threads)
        measured = rows(TINY if args.tiny else {what: FULL[what] for what in args.what}, workers, args.rounds)
    finally:
        for worker in workers.values():
            worker.close()
    lines = [
        [row["case"], duration(row["seconds_before"]), duration(row["seconds_after"]), digits(row["ratio"]),
         f"{digits(row['ratio_q1'])}-{digits(row['ratio_q3'])}"]
        for row in measured
    ]  # fmt: skip
    print(table(["case", *names, "ratio", "range"], lines))
    print(
        f"\nRatio: time of {names[1]} divided by that of {names[0]}, round by round; median and middle half of rounds."
    )
    for name, worker in zip(names, workers.values(), strict=True):
        if not worker.native.startswith("chosen"):
            print(f"{name} ran without compiled kernels: {worker.native}")
    for row in measured:
        if row["difference"] > TOLERANCE:
            print(f"{row['case']}: the results differ by {row['difference']:.1e} of their norm")
    if args.csv:
        write_csv(args.csv, measured)
        print(f"Written to {args.csv}.")
    return 0
