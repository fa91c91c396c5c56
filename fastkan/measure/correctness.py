"""The gate: what a KAN layer must compute before its time counts.

A contestant that computes a KAN layer but not within the tolerance gets a reason instead of a number.
"""

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
    """One shape to run at: cubic and float32 unless said otherwise."""

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
        """Of a KAN layer without bias: F coefficients and one base weight on every edge."""
        return self.in_features * self.out_features * (self.functions + 1)

    @property
    def arithmetic(self) -> str:
        """The dtype, or tf32."""
        return "tf32" if self.tf32 else str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        return f"{self.batch}, {self.in_features}->{self.out_features}, G={self.grid_size}"


@dataclass
class Operands:
    """A case with its numbers: x, grad_out [N, .]; coef [I, F, O]; base_weight [I, O]; knots [M], float64."""

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
        # 2 % of an interval away from every knot: where a derivative jumps, the rounding of x would decide the value.
        cell = torch.randint(case.grid_size, shape, **drawn) + 0.02 + 0.96 * torch.rand(shape, **drawn).double()
        x = RANGE[0] + (RANGE[1] - RANGE[0]) * cell / case.grid_size
        return cls(
            case,
            x.to(case.dtype),
            torch.randn(case.in_features, case.functions, case.out_features, **drawn).to(case.dtype),
            torch.randn(case.in_features, case.out_features, **drawn).to(case.dtype),
            torch.randn(case.batch, case.out_features, **drawn).to(case.dtype),
            uniform_knots(*RANGE, case.grid_size, case.degree, device=device),
        )

    def double(self) -> "Operands":
        tensors = (self.x, self.coef, self.base_weight, self.grad_out)
        return Operands(self.case, *(t.double() for t in tensors), self.knots)

    def only(self, rows: Tensor) -> "Operands":
        """The problem of these rows alone."""
        case = replace(self.case, batch=len(rows))
        return Operands(case, self.x[rows], self.coef, self.base_weight, self.grad_out[rows], self.knots)


class Unavailable(Exception):
    """This contestant cannot take part here; the message says why."""


@dataclass
class Contestant:
    """Something with a forward and a backward.

    x and grad_out are its own input and cotangent, parameters what it trains, constants its buffers. `gradients`
    returns the gradients of coef [I, F, O] and base_weight [I, O] after a backward; it is None where another function
    than the case's is computed, and then there is nothing to check.
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
        """From now on every call takes the next of `count` inputs and cotangents, so that no cache holds them."""
        sets = [(self.x.detach().roll(k, 0).requires_grad_(), self.grad_out.roll(k, 0)) for k in range(count)]
        self._inputs = itertools.cycle(sets)

    def _turn(self) -> None:
        if self._inputs is not None:
            self.x, self.grad_out = next(self._inputs)

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters)

    def infer(self) -> Tensor:
        self._turn()
        with torch.no_grad():
            return self.forward(self.x)

    def train(self) -> Tensor:
        """Forward and backward, to x and to every parameter."""
        self._turn()
        self.x.grad = None
        for p in self.parameters:
            p.grad = None
        y = self.forward(self.x)
        y.backward(self.grad_out)
        return y

    def results(self, rows: Tensor | None = None) -> dict[str, Tensor]:
        """What a KAN layer is checked by. With `rows` only these have a cotangent, and y is of these alone."""
        cotangent = self.grad_out
        try:
            if rows is not None:
                self.grad_out = torch.zeros_like(cotangent).index_copy_(0, rows, cotangent[rows])
            y = self.train().detach()
        finally:
            self.grad_out = cotangent
        grad_coef, grad_base = self.gradients()
        y = y if rows is None else y[rows]
        return {"y": y, "grad_x": self.x.grad, "grad_coef": grad_coef, "grad_base_weight": grad_base}


# Makes a contestant; raises Unavailable where it cannot take part.
Build = Callable[[Operands], Contestant]


def formula(problem: Operands, backend: str) -> Contestant:
    """kan_linear itself on that backend."""
    p, k = problem, problem.case.degree
    coef, base = p.coef.clone().requires_grad_(), p.base_weight.clone().requires_grad_()

    def forward(x: Tensor) -> Tensor:
        return kan_linear(x, coef, p.knots, base, degree=k, uniform=True, backend=backend)

    return Contestant(forward, p.x, p.grad_out, (coef, base), lambda: (coef.grad, base.grad), (p.knots,))


class Gate:
    """The reference in float64, and how far from it a right answer in the case's dtype can be.

    tolerance = 2 e + 6 s: e is the error that the reference makes in the case's dtype, s the standard deviation of the
    result when every feature B_f(x) is off by delta = u + 4 u_c (G + 2K), where u and u_c are the roundings of the
    dtype and of the coordinate's dtype (float32 or better): a coordinate counted in intervals has the magnitude G + 2K,
    and four roundings cover the ways in which it is formed. Where products round to tf32, its epsilon for
    each of their two operands adds to delta. A slope is off by 2 delta / h. Six standard deviations: no
    more than one of 10^8 normal samples lies beyond. Unlike the worst case of testing.py this takes no memory and does
    not grow slack with the number of terms.

    The contestant runs all rows, but only as many as the reference can do soon have a cotangent and a known y: random
    ones, with the first and the last.
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
        nothing = torch.zeros_like(problem.x, dtype=torch.float64)
        self.truth["grad_x"] = nothing.index_copy_(0, self.rows, self.truth["grad_x"])

    def check(self, contestant: Contestant) -> tuple[float, str]:
        """The largest error as a share of its tolerance, and what is wrong ('' if nothing is)."""
        worst, reason = 0.0, ""
        for name, value in contestant.results(self.rows).items():
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
    """Rows with at most FEATURES features together, in order, the first and the last among them."""
    wanted = max(2, FEATURES // (case.in_features * case.functions))
    if wanted >= case.batch:
        return torch.arange(case.batch)
    between = torch.randperm(case.batch - 2, generator=torch.Generator().manual_seed(0))[: wanted - 2] + 1
    return torch.cat([torch.tensor([0]), between.sort().values, torch.tensor([case.batch - 1])])


def _spread(c: Case) -> dict[str, float]:
    """Standard deviations of the results when every feature is off by delta; weights and cotangents have variance 1."""
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
