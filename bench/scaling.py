"""Time against the number of grid intervals, and the part of it spent on zero-filling the coefficients' gradient."""

from collections.abc import Sequence

import torch

from fastkan.measure.correctness import Build, Candidate, Case, Operands
from fastkan.measure.peers import builds
from fastkan.measure.progress import bar
from fastkan.measure.timing import csv_rows, measure

from . import cases
from .peers import PEERS

FULL, TINY = cases.SCALING, cases.TINY

# Layers that store all features of all rows are left out above this size.
DENSE_FEATURES = 1 << 24


class ZeroFill(Candidate):
    """Not a layer: writes zeros into a new gradient of the coefficients, a lower bound for every layer."""

    def infer(self) -> torch.Tensor:
        return torch.empty_like(self.parameters[0]).zero_()  # zeros_like may allocate pages lazily

    train = infer


class ZeroFillInPlace(ZeroFill):
    """The same after a forward pass, as in a training step, when the coefficients fill the caches."""

    def infer(self) -> torch.Tensor:
        with torch.no_grad():
            self.forward(self.x)
        return super().infer()

    train = infer


def zero_fill(problem: Operands) -> Candidate:
    return ZeroFill(torch.zeros_like, problem.x, problem.grad_out, (problem.coef,))


def zero_fill_in_place(problem: Operands) -> Candidate:
    native = PEERS["native"].build(problem)
    return ZeroFillInPlace(native.forward, problem.x, problem.grad_out, (problem.coef,))


def candidates(case: Case) -> dict[str, Build]:
    dense = case.batch * case.in_features * case.functions <= DENSE_FEATURES
    layers = builds(["native", *(["efficient-kan"] if dense else [])], PEERS)
    return {**layers, "zero-fill": zero_fill, "forward-zero-fill": zero_fill_in_place}


def rows(which: Sequence[Case], rounds: int) -> list[dict[str, object]]:
    """As in layers.py, with `zero-fill` and `forward-zero-fill` as further peers."""
    return [row for case in which for row in csv_rows(measure(case, candidates(case), rounds, progress=bar))]
