"""The kernels for GPUs one by one on small problems, compared with the reference on the host.

    python -m bench.kernels NAME... [--all]

Each call is named before it runs, so that one that hangs is known. --all runs every problem: for compute-sanitizer,
under which no kernel but these should run. Exit status: 0 if all are right, 77 if none of them exists here.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch

from fastkan import select
from fastkan.kinds import EVERYDAY
from fastkan.prove import stacks
from fastkan.testing import CONTRACTIONS, TF32, Problem, assert_matches_reference, call

ABSENT = 77  # the exit status by which test programs say that they were skipped
ALGORITHM = "FASTKAN_CUDA_ALGORITHM"
SINGLE, DOUBLE, BF16, HALF = torch.float32, torch.float64, torch.bfloat16, torch.float16


@dataclass(frozen=True)
class Kernels:
    """Problems that run kernels of one kind; the first one alone is the quick check."""

    problems: tuple[dict, ...]
    contractions: tuple[str, ...] = ("kan_out", "kan_backward")
    backend: str = "native"
    algorithm: str = ""  # of the compiled backend; it must be the one that ran
    hopper: bool = False


# In part of a tile and in many; without and with split sums.
WHOLE = {"rows": 300, "inputs": 19, "outputs": 72, "grid_size": 5, "weighted": True, "knots": "promised"}
SPLIT = {"rows": 70, "inputs": 150, "outputs": 136, "grid_size": 9, "per_input": True, "knots": "promised"}
FEW = {"rows": 600, "inputs": 2, "outputs": 3, "grid_size": 40}
ALIGNED = {"rows": 70, "inputs": 19, "outputs": 40, "grid_size": 5, "knots": "promised"}
PRODUCTS = ({**WHOLE, "dtype": BF16}, {**SPLIT, "dtype": HALF})
TRITON = ({**ALIGNED, "rows": 33, "dtype": SINGLE}, *PRODUCTS)

# Simplest first.
KERNELS = {
    "features": Kernels(TRITON, backend="triton:features"),
    "gather": Kernels(
        (
            ALIGNED,
            *({**FEW, "dtype": dtype, "knots": "uneven"} for dtype in (SINGLE, BF16, DOUBLE)),
            {**ALIGNED, "outputs": 37, "weighted": True, "order": 2},
            {**ALIGNED, "dtype": HALF, "degree": 5, "per_input": True},
            {**ALIGNED, "dtype": DOUBLE, "grid_size": 200},
        ),
        CONTRACTIONS,
        algorithm="gather",
    ),
    "fused": Kernels(TRITON, backend="triton:fused"),
    "matrix": Kernels(
        (*PRODUCTS, *({**case, "dtype": dtype} for case in (WHOLE, SPLIT) for dtype in (SINGLE, DOUBLE))),
        algorithm="matrix",
    ),
    "stack": Kernels(()),
    "wgmma": Kernels(
        (*PRODUCTS, *({**WHOLE, "dtype": BF16, **change} for change in ({"rows": 1}, {"grid_size": 6}))),
        ("kan_out",),
        algorithm="wgmma",
        hopper=True,
    ),
}
# kind of layers, widths, rows, tangents, grid size
STACKS = (
    (EVERYDAY[0]._replace(x=DOUBLE, coef=DOUBLE), (3, 6, 2), 70, 0, 5),
    (EVERYDAY[0]._replace(x=DOUBLE, coef=DOUBLE), (2, 5, 1), 300, 2, 5),
    (EVERYDAY[0], (3, 6, 4, 2), 300, 1, 3),
)


def calls(name: str, backend, device: torch.device | str, every: bool = False) -> Iterator[str]:
    """Run the kernels of that name; yields what is computed next. AssertionError if a result is wrong."""
    kernels, many = KERNELS[name], None if every else 1
    if name == "stack":
        yield from _stacks(backend, device, STACKS[:many])
    for case, contraction in itertools.product(kernels.problems[:many], kernels.contractions):
        yield f"{name} {contraction} {case}"
        p = Problem.random(**case)
        if kernels.algorithm in ("", "gather") or p.coef.dtype != SINGLE:
            _check(kernels, backend, contraction, p, device)
        else:
            _check_rounding(kernels, backend, contraction, p, device)


def _check(kernels: Kernels, backend, contraction: str, p: Problem, device: torch.device | str) -> None:
    before = os.environ.get(ALGORITHM, "")
    os.environ[ALGORITHM] = kernels.algorithm
    try:
        found = tuple(t.cpu() for t in call(backend, contraction, p.on(device)))
    finally:
        os.environ[ALGORITHM] = before
    assert_matches_reference(SimpleNamespace(**{contraction: lambda *args: found}), contraction, p)
    if kernels.algorithm and (ran := backend.cuda_algorithm()) != kernels.algorithm:
        raise AssertionError(f"{contraction} ran by {ran!r}: expected {kernels.algorithm!r}")


def _check_rounding(kernels: Kernels, backend, contraction: str, p: Problem, device: torch.device | str) -> None:
    """As _check, with tf32 products."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        _check(kernels, backend, contraction, Problem(**{**vars(p), "operand_epsilon": TF32}), device)
    finally:
        torch.set_float32_matmul_precision(before)


def _stacks(backend, device: torch.device | str, cases: Sequence[tuple]) -> Iterator[str]:
    for kind, *shape in cases:
        case = stacks.Case.of(kind, *shape)
        yield f"stack of {kind}, {case.label}"
        case.check(case.run(backend, case.on(torch.device(device))))


def absent(name: str, device: torch.device) -> str | None:
    """The reason why that GPU has no such kernels; None if it has."""
    kernels = KERNELS[name]
    if reason := select.missing(kernels.backend, device.type, (SINGLE,)):
        return reason
    if kernels.hopper and torch.cuda.get_device_capability(device)[0] != 9:
        return "they take sm_90"
    return None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.kernels", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="+", choices=list(KERNELS), metavar="NAME", help=", ".join(KERNELS))
    parser.add_argument("--all", action="store_true", help="all problems")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("bench.kernels: torch sees no GPU here", file=sys.stderr)
        return 1
    device, count = torch.device("cuda", torch.cuda.current_device()), 0
    for name in args.names:
        if reason := absent(name, device):
            print(f"no {name} kernels here: {reason}", flush=True)
            continue
        for what in calls(name, select.functions_of(KERNELS[name].backend), device, args.all):
            print(what, flush=True)
            count += 1
    torch.cuda.synchronize()
    return 0 if count else ABSENT


if __name__ == "__main__":
    sys.exit(main())
