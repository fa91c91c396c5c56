"""Benchmarks on a GPU: its limits, layers compared with nn.Linear and other formulas, training steps.

    python -m bench.gpu --out DIR [--seconds S] [--quick]

The most important cases come first; cases left out for lack of time are listed. --dry runs everything on a CPU in tiny
shapes, into DIR/dry-run, to test this program.
"""

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fastkan.measure.correctness import Build, Candidate, Case, Operands, Unavailable
from fastkan.measure.peers import BASELINE, builds
from fastkan.measure.provenance import write_csv
from fastkan.measure.timing import PHASES, Result, csv_rows, measure
from fastkan_cli import positive

from . import gpu_report, steps
from .device import ARITHMETICS, clock, floor_seconds, input_sets, limits, step_bytes
from .peers import ON_GPU

OURS = ("native", "triton")
LAYERS = (BASELINE, "linear-same-shape", *OURS)
# Formulas that store all features of all rows; some take long to compile.
FORMULAS = ("efficient-kan", "efficient-kan-compiled", "closed-cubic-compiled", "inkan", "pykan", "reference")
FIRST = 6  # layers measured before the networks, and with --quick
DENSE_COPIES = 12  # copies of the features in forward and backward of such a formula, as observed for efficient-kan's


@dataclass(frozen=True)
class Work:
    """One case and its peers."""

    case: Case
    peers: tuple[str, ...] = LAYERS


def case(shape: tuple[int, int, int], grid_size: int, arithmetic: str) -> Case:
    return Case(*shape, grid_size, dtype=ARITHMETICS[arithmetic][0], tf32=arithmetic == "tf32")


WIDE, WIDER, TALL, TALLER, SMALL = (
    (4096, 1024, 1024), (8192, 2048, 2048), (16384, 512, 512), (16384, 256, 256), (4096, 256, 256),
)  # fmt: skip


def full() -> list[Work]:
    """All cases, the most important ones first."""
    narrow, wide = ("bfloat16", "tf32"), ("float32", "float64")
    first = [Work(case(shape, 5, a)) for shape in (WIDE, TALL, SMALL) for a in narrow]
    everyone = (BASELINE, *OURS, *FORMULAS)
    formulas = [Work(case(shape, 5, a), everyone) for shape, a in ((SMALL, "tf32"), (WIDE, "bfloat16"))]
    grids = [Work(case(shape, g, a)) for g in (20, 100, 200, 1000) for shape in (WIDE, SMALL) for a in narrow]
    others = [Work(case(shape, 5, a)) for shape in (WIDER, TALLER) for a in narrow]
    exact = [Work(case(shape, 5, a)) for a in wide for shape in (WIDE, SMALL, TALL)]
    later = [(a, g, shape) for a in (*narrow, *wide) for g in (20, 100, 200, 1000) for shape in (TALL, TALLER, WIDER)]
    rest = [Work(case(shape, g, a)) for a, g, shape in later]
    return [*first, *formulas[:1], *grids[:4], *exact[:2], *others, *grids[4:], *formulas[1:], *exact[2:], *rest]


TINY = [
    Work(case((32, 4, 3), 5, "tf32"), (*LAYERS, "efficient-kan", "reference")),
    Work(case((16, 2, 5), 20, "float64")),
]


class Session:
    """One benchmark run: device, its measured limits, and time budget."""

    def __init__(self, device: torch.device, rounds: int, seconds: float):
        self.device, self.rounds = device, rounds
        self.end = time.monotonic() + seconds
        self.seconds = seconds
        self.rates: dict[str, float] = {}

    @property
    def is_late(self) -> bool:
        return time.monotonic() > self.end

    def limits(self, size: int) -> list[dict[str, object]]:
        rows = limits(self.device, size)
        self.rates = {row["limit"]: float(row["rate"]) for row in rows}
        return rows

    def layer(self, work: Work) -> list[dict[str, object]]:
        """One row per peer and phase."""
        spent = self._left_out(work)
        if spent:
            return self._rows(work, [Result(work.case, "triton", phase, reason=spent) for phase in PHASES], {})
        torch._dynamo.reset()
        torch.set_float32_matmul_precision(ARITHMETICS[work.case.arithmetic][1])
        peaks: dict[str, int | str] = {}

        def prepare(name: str, candidate: Candidate) -> None:
            peaks[name] = step_bytes(candidate, self.device)
            candidate.rotate(input_sets(candidate, self.device))

        peers = {name: self._guarded(name, build) for name, build in builds(work.peers, ON_GPU).items()}
        try:
            found = measure(
                work.case, peers, self.rounds, device=self.device, sample=clock(self.device), prepare=prepare
            )
        except torch.OutOfMemoryError:
            reason = "left out: the reference does not fit this GPU's memory"
            found = [Result(work.case, "triton", phase, reason=reason) for phase in PHASES]
        finally:
            torch.set_float32_matmul_precision("highest")
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return self._rows(work, found, peaks)

    def _left_out(self, work: Work) -> str:
        if self.is_late:
            return f"left out: the time limit of {self.seconds:g} s was reached"
        # the reference in float64: coefficients, their copy and gradient; the candidates: parameters and gradients
        needed = work.case.parameters * (5 * 8 + (2 * len(work.peers) + 5) * work.case.dtype.itemsize)
        return f"left out: takes about {needed / 2**30:.0f} GiB" if needed > self._memory() else ""

    def _guarded(self, name: str, build: Build) -> Build:
        """Build the candidate; Unavailable if its features alone exceed the memory."""

        def checked(problem: Operands) -> Candidate:
            c = problem.case
            needed = DENSE_COPIES * c.batch * c.in_features * c.functions * c.dtype.itemsize
            if name in FORMULAS and name != "reference" and needed > self._memory():
                raise Unavailable(f"would store about {needed / 2**30:.0f} GiB of features")
            return build(problem)

        return checked

    def _memory(self) -> int:
        return int(0.8 * torch.cuda.mem_get_info(self.device)[0]) if self.device.type == "cuda" else 1 << 30

    def _rows(self, work: Work, found: list[Result], peaks: dict[str, int | str]) -> list[dict[str, object]]:
        rows = []
        for result, row in zip(found, csv_rows(found), strict=True):
            peak = peaks.get(result.peer, "") if result.times else ""
            floor = ""
            if result.times:
                floor = floor_seconds(work.case, result.peer, result.phase, result.parameters, self.rates)
                floor = f"{floor:.4g}"
            rows.append({**row, "peak_bytes": peak, "floor_seconds": floor})
        return rows

    def steps(self, network: steps.Network) -> list[dict[str, object]]:
        return [] if self.is_late else list(steps.rows(network, self.rounds, self.device))


def run(session: Session, out: Path, layers: Sequence[Work], networks: Sequence[steps.Network], size: int) -> None:
    """Run everything; each file is rewritten after every case, so that an interrupted run leaves its results."""
    write_csv(out / "limits.csv", session.limits(size))
    measured: list[dict[str, object]] = []
    trained: list[dict[str, object]] = []
    for k, work in enumerate((*layers[:FIRST], *networks, *layers[FIRST:])):
        start = time.monotonic()
        if isinstance(work, Work):
            measured += session.layer(work)
            write_csv(out / "layers.csv", measured)
        elif rows := session.steps(work):
            trained += rows
            write_csv(out / "steps.csv", trained)
        else:
            print(f"left out: {work}", flush=True)
        name = f"{work.case}, {work.case.arithmetic}" if isinstance(work, Work) else str(work)
        print(f"{k + 1}: {name}: {time.monotonic() - start:.1f} s", flush=True)
    for path in gpu_report.write(out):
        print(path)
    print((out / "report.md").read_text())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seconds", type=positive, default=240, metavar="S", help="time limit, approximately (240)")
    parser.add_argument("--rounds", type=positive, default=9, help="samples of each candidate (9)")
    parser.add_argument("--quick", action="store_true", help="only the most important cases")
    parser.add_argument("--dry", action="store_true", help="tiny shapes on a CPU, to test this program")
    args = parser.parse_args(argv)
    if args.dry:
        session = Session(torch.device("cpu"), 1, args.seconds)
        run(session, args.out / "dry-run", TINY, steps.TINY, 64)
        return 0
    if not torch.cuda.is_available():
        print("bench.gpu: torch finds no GPU here", file=sys.stderr)
        return 1
    session = Session(torch.device("cuda", torch.cuda.current_device()), args.rounds, args.seconds)
    some = slice(FIRST if args.quick else None)
    run(session, args.out, full()[some], steps.FULL[some], 8192)
    return 0


if __name__ == "__main__":
    sys.exit(main())
