"""Correctness check of timed layers: no time is reported for a KAN layer whose results exceed the tolerance."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..basis.bspline import uniform_knots
from ..functional import kan_linear
from ..testing import TF32

RANGE = (-1.0, 1.0)
FEATURES = 1 << 23


@dataclass(frozen=True)
class Case:
    """The shape, degree and dtype of a layer to time; cubic and float32 by default."""

    batch: int
    in_features: int
    out_features: int
    grid_size: int
    degree: int = 3
    dtype: torch.dtype = torch.float32
    tf32: bool = False  # products may round float32 to tf32: torch.set_float32_matmul_precision("high")

    def __post_init__(self):
        for name in ("batch", "in_features", "out_features", "grid_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 1")

    @property
    def functions(self) -> int:
        return self.grid_size + self.degree

    @property
    def parameters(self) -> int:
        """Number of parameters of a KAN layer without bias: F coefficients and one base weight per edge."""
        return self.in_features * self.out_features * (self.functions + 1)

    @property
    def arithmetic(self) -> str:
        """Name of the dtype, or "tf32"."""
        return "tf32" if self.tf32 else str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        return f"{self.batch}, {self.in_features}->{self.out_features}, G={self.grid_size}"


@dataclass
class Operands:
    """Random operands of a case: x, grad_out [N, .]; coef [I, F, O]; base_weight [I, O]; knots [M], float64."""

    case: Case
    x: Tensor
    coef: Tensor
    base_weight: Tensor
    grad_out: Tensor
    knots: Tensor

    @classmethod
    def of(cls, case: Case, seed: int = 0, device: torch.device | str = "cpu") -> "Operands":
        drawn = {"generator": torch.Generator(device).manual_seed(seed), "device": device}
        shape = (case.batch, case.in_features)
        # At least 2 % of an interval from every knot: at a jump of a derivative, rounding x would change the value.
        cell = torch.randint(case.grid_size, shape, **drawn) + 0.02 + 0.96 * torch.rand(shape, **drawn).double()
        x = RANGE[0] + (RANGE[1] - RANGE[0]) * cell / case.grid_size
        return cls(
            case,
            x.to(case.dtype),
            torch.randn(case.in_features, case.functions, case.out_features, **drawn).to(case.dtype),
            torch.randn(case.in_features, case.out_features, **drawn).to(case.dtype),
            torch.randn(case.batch, case.out_features, **drawn).to(case.dtype),
            uniform_knots(*RANGE, case.grid_size, case.degree, device=torch.device(device)),
        )

    def double(self) -> "Operands":
        tensors = (self.x, self.coef, self.base_weight, self.grad_out)
        x, coef, base_weight, grad_out = (t.double() for t in tensors)
        return Operands(self.case, x, coef, base_weight, grad_out, self.knots)

    def only(self, rows: Tensor) -> "Operands":
        """The same operands, restricted to these rows."""
        case = replace(self.case, batch=len(rows))
        return Operands(case, self.x[rows], self.coef, self.base_weight, self.grad_out[rows], self.knots)


def grad(t: Tensor) -> Tensor:
    """t.grad, after a backward pass."""
    assert t.grad is not None
    return t.grad


class Unavailable(Exception):
    """This candidate cannot run here; the message gives the reason."""


@dataclass
class Candidate:
    """A layer to time, with its own input x, cotangent grad_out, parameters and constants (buffers).

    `gradients` returns the gradients of coef [I, F, O] and base_weight [I, O] after a backward pass; None for a layer
    that computes another function than the case's, which is not checked.
    """

    forward: Callable[[Tensor], Tensor]
    x: Tensor
    grad_out: Tensor
    parameters: tuple[Tensor, ...]
    gradients: Callable[[], tuple[Tensor, Tensor]] | None = None
    constants: tuple[Tensor, ...] = ()

    def __post_init__(self):
        self.x = self.x.detach().clone().requires_grad_()
        self._inputs: Iterator[tuple[Tensor, Tensor]] | None = None

    def rotate(self, count: int) -> None:
        """Cycle through `count` inputs and cotangents from now on, so that no cache holds them."""
        sets = [(self.x.detach().roll(k, 0).requires_grad_(), self.grad_out.roll(k, 0)) for k in range(count)]
        self._inputs = itertools.cycle(sets)

    def _next_input(self) -> None:
        if self._inputs is not None:
            self.x, self.grad_out = next(self._inputs)

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters)

    def infer(self) -> Tensor:
        self._next_input()
        with torch.no_grad():
            return self.forward(self.x)

    def train(self) -> Tensor:
        """Forward and backward, to x and to every parameter."""
        self._next_input()
        self.x.grad = None
        for p in self.parameters:
            p.grad = None
        y = self.forward(self.x)
        y.backward(self.grad_out)
        return y

    def results(self, rows: Tensor | None = None) -> dict[str, Tensor]:
        """y and gradients. With `rows`, only these rows have a cotangent, and y is restricted to them."""
        cotangent = self.grad_out
        try:
            if rows is not None:
                self.grad_out = torch.zeros_like(cotangent).index_copy_(0, rows, cotangent[rows])
            y = self.train().detach()
        finally:
            self.grad_out = cotangent
        assert self.gradients is not None
        grad_coef, grad_base = self.gradients()
        y = y if rows is None else y[rows]
        return {"y": y, "grad_x": grad(self.x), "grad_coef": grad_coef, "grad_base_weight": grad_base}


# Builds a candidate; raises Unavailable if it cannot run here.
Build = Callable[[Operands], Candidate]


def formula(problem: Operands, backend: str) -> Candidate:
    """kan_linear on this backend."""
    p, k = problem, problem.case.degree
    coef, base = p.coef.clone().requires_grad_(), p.base_weight.clone().requires_grad_()

    def forward(x: Tensor) -> Tensor:
        return kan_linear(x, coef, p.knots, base, degree=k, uniform=True, backend=backend)

    return Candidate(forward, p.x, p.grad_out, (coef, base), lambda: (grad(coef), grad(base)), (p.knots,))


class Checker:
    """Compares a candidate with the reference in float64, within a tolerance derived from the case.

    tolerance = 2 e + 6 s: e is the error of the reference in the case's dtype, s the standard deviation of the result
    when every feature B_f(x) is off by delta = u + 4 u_c (G + 2K), where u and u_c are the unit roundoffs of the dtype
    and of the coordinate's dtype (float32 or wider): a coordinate in units of intervals has the magnitude G + 2K, and
    four roundings cover the ways of computing it. If products round to tf32, delta grows by its epsilon for both
    operands. A slope is off by 2 delta / h. At most one of 10^8 normal samples lies beyond six standard deviations.
    Unlike the worst-case bound of testing.py this needs no memory and does not become loose with many terms.

    The candidate runs all rows, but only a sample has a cotangent and a reference y: random rows, with the first and
    the last, as many as the reference computes quickly.
    """

    def __init__(self, problem: Operands):
        self.rows = _sample(problem.case).to(problem.x.device)
        sample = problem.only(self.rows)
        self.truth = formula(sample.double(), "reference").results()
        rounded = formula(sample, "reference").results()
        spread = _spread(sample.case)
        self.tolerance = {
            name: 2 * (rounded[name].double() - truth).abs().max().item() + 6 * spread[name]
            for name, truth in self.truth.items()
        }
        zeros = torch.zeros_like(problem.x, dtype=torch.float64)
        self.truth["grad_x"] = zeros.index_copy_(0, self.rows, self.truth["grad_x"])

    def check(self, candidate: Candidate) -> tuple[float, str]:
        """The largest error divided by its tolerance, and a description of it if that is above 1, else ''."""
        worst, reason = 0.0, ""
        for name, value in candidate.results(self.rows).items():
            truth = self.truth[name]
            if value.shape != truth.shape:
                return math.inf, f"{name} has shape {list(value.shape)}, not {list(truth.shape)}"
            error = (value.double() - truth).abs().max().item()
            share = error / self.tolerance[name]
            if math.isnan(share):
                return math.inf, f"{name} has a NaN"
            if share > worst:
                worst = share
                reason = f"{name} is off by {error:.1e}, tolerance {self.tolerance[name]:.1e}" if share > 1 else ""
        return worst, reason


def _sample(case: Case) -> Tensor:
    """Sorted rows with at most FEATURES features in total, the first and the last included."""
    count = max(2, FEATURES // (case.in_features * case.functions))
    if count >= case.batch:
        return torch.arange(case.batch)
    between = torch.randperm(case.batch - 2, generator=torch.Generator().manual_seed(0))[: count - 2] + 1
    return torch.cat([torch.tensor([0]), between.sort().values, torch.tensor([case.batch - 1])])


def _spread(c: Case) -> dict[str, float]:
    """Standard deviations of the results if every feature is off by delta, for weights and cotangents of variance 1."""
    u = torch.finfo(c.dtype).eps / 2
    u_coordinate = min(u, torch.finfo(torch.float32).eps / 2)
    delta = u + 4 * u_coordinate * (c.grid_size + 2 * c.degree) + 2 * TF32 * c.tf32
    slope = 2 * delta * c.grid_size / (RANGE[1] - RANGE[0])
    near = c.degree + 1
    return {
        "y": delta * math.sqrt(c.in_features * (near + 1)),
        "grad_x": slope * math.sqrt(c.out_features * (near + 1)),
        "grad_coef": delta * math.sqrt(c.batch),
        "grad_base_weight": delta * math.sqrt(c.batch),
    }
