"""Layers to compare: fastkan's backends, nn.Linear, and other libraries' KAN formulas in plain PyTorch.

All KAN layers here have the same parameters: F coefficients and one base weight per edge, no bias.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import select
from ..nn import KANLinear
from .correctness import RANGE, Build, Candidate, Case, Operands, Unavailable, grad


class Peer(NamedTuple):
    """A candidate's label in tables, and the function that builds it."""

    label: str
    build: Build


def linear_equal_parameters(problem: Operands) -> Candidate:
    """nn.Linear with the KAN layer's aspect ratio and number of parameters: the baseline of every ratio."""
    return _linear(problem, *equal_linear(problem.case))


def equal_linear(case: Case) -> tuple[int, int]:
    """in_features and out_features of the nn.Linear with as many parameters as the KAN layer."""
    per_edge = case.parameters / (case.in_features * case.out_features)
    in_features = round(case.in_features * math.sqrt(per_edge))
    return in_features, max(1, round(case.parameters / in_features))


def linear_equal_shape(problem: Operands) -> Candidate:
    """nn.Linear of the same shape: a lower bound."""
    return _linear(problem, problem.case.in_features, problem.case.out_features)


def _linear(problem: Operands, in_features: int, out_features: int) -> Candidate:
    batch, dtype, device = problem.case.batch, problem.case.dtype, problem.x.device
    layer = nn.Linear(in_features, out_features, bias=False, dtype=dtype, device=device)
    drawn = {"generator": torch.Generator(device).manual_seed(0), "device": device}
    x = torch.rand(batch, in_features, **drawn) * 2 - 1
    grad_out = torch.randn(batch, out_features, **drawn)
    return Candidate(layer, x.to(dtype), grad_out.to(dtype), tuple(layer.parameters()))


def fastkan(backend: str, *, compiled: bool = False) -> Build:
    """Builds KANLinear on this backend, optionally compiled by torch.compile."""

    def build(problem: Operands) -> Candidate:
        c, device = problem.case, problem.x.device
        reason = select.missing(backend, device.type, (c.dtype,))
        if reason:
            raise Unavailable(reason)
        layer = KANLinear(
            c.in_features, c.out_features, c.grid_size, c.degree, grid_range=RANGE, backend=backend, dtype=c.dtype,
            device=device,
        )  # fmt: skip
        coef, base_weight = layer.coef, layer.base_weight
        assert base_weight is not None
        coef.data.copy_(problem.coef)
        base_weight.data.copy_(problem.base_weight)
        parameters = coef, base_weight
        forward = torch.compile(layer, dynamic=False) if compiled else layer
        return Candidate(
            forward, problem.x, problem.grad_out, parameters, lambda: (grad(coef), grad(base_weight)), (layer.grid,)
        )

    return build


class StoredFeatures(nn.Module):
    """A KAN layer that stores all features: y = Phi(x) W^T + silu(x) W_b^T, Phi [N, I F], W [O, I F], W_b [O, I]."""

    def __init__(self, problem: Operands):
        super().__init__()
        self.case = problem.case
        self.spline_weight = nn.Parameter(problem.coef.permute(2, 0, 1).contiguous())  # O I F
        self.base_weight = nn.Parameter(problem.base_weight.T.contiguous())  # O I

    def features(self, x: Tensor) -> Tensor:
        """[N, I] -> [N, I, F]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        spline = F.linear(self.features(x).flatten(1), self.spline_weight.flatten(1))
        return spline + F.linear(F.silu(x), self.base_weight)

    def gradients(self) -> tuple[Tensor, Tensor]:
        return grad(self.spline_weight).permute(1, 2, 0), grad(self.base_weight).T


def efficient_kan_features(x: Tensor, grid: Tensor, degree: int) -> Tensor:
    """efficient-kan's Cox-de Boor recursion: x [N, I] and grid [I, M] -> [N, I, F]."""
    x = x[..., None]
    b = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
    for k in range(1, degree + 1):
        rise = (x - grid[:, : -k - 1]) / (grid[:, k:-1] - grid[:, : -k - 1])
        fall = (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:-k])
        b = rise * b[..., :-1] + fall * b[..., 1:]
    return b


class EfficientKAN(StoredFeatures):
    """All F B-splines of every input by the Cox-de Boor recursion, as in github.com/Blealtan/efficient-kan.

    Without its optional spline scaler. Knots are computed in the layer's dtype, or float32 if that is narrower.
    """

    grid: Tensor

    def __init__(self, problem: Operands):
        super().__init__(problem)
        c = self.case
        h = (RANGE[1] - RANGE[0]) / c.grid_size
        wide = torch.promote_types(c.dtype, torch.float32)
        knots = torch.arange(-c.degree, c.grid_size + c.degree + 1, dtype=wide) * h + RANGE[0]
        self.register_buffer("grid", knots.expand(c.in_features, -1).contiguous().to(c.dtype))

    def features(self, x: Tensor) -> Tensor:
        return efficient_kan_features(x, self.grid, self.case.degree)


class ClosedCubic(StoredFeatures):
    """All F uniform cubic B-splines in closed form: B = (max(2-a,0)^3 - 4 max(1-a,0)^3) / 6, a = |(x - t_g)/h - 2|."""

    centre: Tensor

    def __init__(self, problem: Operands):
        super().__init__(problem)
        if self.case.degree != 3:
            raise Unavailable("cubic only")
        self.register_buffer("centre", torch.arange(self.case.functions, dtype=self.case.dtype) - 1)

    def features(self, x: Tensor) -> Tensor:
        a = ((x - RANGE[0]) * (self.case.grid_size / (RANGE[1] - RANGE[0])))[..., None] - self.centre
        a = a.abs()
        return (F.relu(2 - a) ** 3 - 4 * F.relu(1 - a) ** 3) / 6


class GaussianRBF(StoredFeatures):
    """F Gaussians of the normalised input, as in github.com/ZiyaoLi/fast-kan: not B-splines, so not checked."""

    centre: Tensor

    def __init__(self, problem: Operands):
        super().__init__(problem)
        c = self.case
        self.norm = nn.LayerNorm(c.in_features, dtype=c.dtype) if c.in_features > 1 else nn.Identity()
        self.register_buffer("centre", torch.linspace(*RANGE, c.functions, dtype=c.dtype))
        self.width = (RANGE[1] - RANGE[0]) / max(1, c.functions - 1)

    def features(self, x: Tensor) -> Tensor:
        return torch.exp(-(((self.norm(x)[..., None] - self.centre) / self.width) ** 2))


def stored(layer: type[StoredFeatures], *, compiled: bool = False, exact: bool = True) -> Build:
    """Builds a candidate of this class, optionally compiled by torch.compile."""

    def build(problem: Operands) -> Candidate:
        module = layer(problem).to(problem.x.device)
        forward = torch.compile(module, dynamic=False) if compiled else module
        gradients = module.gradients if exact else None
        return Candidate(
            forward, problem.x, problem.grad_out, tuple(module.parameters()), gradients, tuple(module.buffers())
        )

    return build


PEERS: dict[str, Peer] = {
    "linear": Peer("nn.Linear, equal parameters", linear_equal_parameters),
    "linear-same-shape": Peer("nn.Linear, equal shape", linear_equal_shape),
    "native": Peer("fastkan native", fastkan("native")),
    "dense": Peer("fastkan dense", fastkan("dense")),
    "dense-compiled": Peer("fastkan dense, compiled", fastkan("dense", compiled=True)),
    "reference": Peer("fastkan reference", fastkan("reference")),
    "efficient-kan": Peer("efficient-kan's formula", stored(EfficientKAN)),
    "efficient-kan-compiled": Peer("efficient-kan's formula, compiled", stored(EfficientKAN, compiled=True)),
    "fast-kan": Peer("fast-kan's formula (RBF)", stored(GaussianRBF, exact=False)),
    "fast-kan-compiled": Peer("fast-kan's formula (RBF), compiled", stored(GaussianRBF, compiled=True, exact=False)),
    "closed-cubic": Peer("closed-form cubic, dense", stored(ClosedCubic)),
    "closed-cubic-compiled": Peer("closed-form cubic, dense, compiled", stored(ClosedCubic, compiled=True)),
}

# Every ratio is to this one.
BASELINE = "linear"

DEFAULT = (BASELINE, "linear-same-shape", "native", "reference", "efficient-kan")


def builds(names: Iterable[str], peers: dict[str, Peer] = PEERS) -> dict[str, Build]:
    """`peers` of timing.measure: the baseline first, then these names."""
    return {name: peers[name].build for name in dict.fromkeys((BASELINE, *names))}
