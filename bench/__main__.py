"""python -m bench [what ...]: measure, write one CSV file each, then make the report from the CSV files alone.

python -m bench compare REF: time a change, see compare.py.
"""

import argparse
import sys
from pathlib import Path

import torch

from fastkan.measure.provenance import cpu_kind, write_csv
from fastkan_cli import positive

from . import (
    accuracy,
    compare,
    convolutions,
    fit,
    formulas,
    layers,
    memory,
    rbf,
    report,
    scaling,
    stacks,
    startup,
    symbolic,
    tutorials,
)
from .peers import PEERS

WHAT = {
    "layers": layers, "scaling": scaling, "accuracy": accuracy, "memory": memory, "startup": startup, "fit": fit,
    "symbolic": symbolic, "formulas": formulas, "stacks": stacks, "tutorials": tutorials, "rbf": rbf,
    "convolutions": convolutions,
}  # fmt: skip

RESULTS = Path(__file__).parent / "results" / cpu_kind()


def main() -> int:
    if sys.argv[1:2] == ["compare"]:
        return compare.main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="*", choices=(*WHAT, "report", "all"), default="all", help="(all)")
    parser.add_argument("--rounds", type=positive, default=21, help="samples of each candidate (21)")
    parser.add_argument("--threads", type=positive, default=2, help="number of torch threads (2)")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help=f"(bench/results/{RESULTS.name})")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=tuple(PEERS), help="of layers (all)")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: to test the benchmarks, not to measure")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name, module in WHAT.items():
        if name in args.what or "all" in args.what:
            which = module.TINY if args.tiny else module.FULL
            peers = (args.peers,) if name == "layers" else ()
            write_csv(args.out / f"{name}.csv", module.rows(which, args.rounds, *peers))
            print(args.out / f"{name}.csv")
    for path in report.write(args.out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
