"""Time against the number of grid intervals, and what filling the coefficients' gradient with zeros takes of it."""

from collections.abc import Sequence

import torch

from fastkan.measure.correctness import Build, Candidate, Case, Operands
from fastkan.measure.peers import builds
from fastkan.measure.progress import bar
from fastkan.measure.timing import csv_rows, measure

from . import cases
from .peers import PEERS

FULL, TINY = cases.SCALING, cases.TINY

# Above this a layer that holds all features of all rows is left out, for its memory.
DENSE_FEATURES = 1 << 24


class ZeroFill(Candidate):
    """Not a layer: zeros written into a new gradient of the coefficients, which any layer must do at least."""

    def infer(self) -> torch.Tensor:
        return torch.empty_like(self.parameters[0]).zero_()  # zeros_like may leave the pages to whoever touches them

    train = infer


class ZeroFillInPlace(ZeroFill):
    """The same after a forward, as in a training step: by then the coefficients have the caches."""

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
    """As in layers, with the peers `zero-fill` and `forward-zero-fill` beside the layers."""
    return [row for case in which for row in csv_rows(measure(case, candidates(case), rounds, progress=bar))]
