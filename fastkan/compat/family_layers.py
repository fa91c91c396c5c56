"""Layers of ChebyKAN, torch-conv-kan, faster-kan and inkan, accelerated where their formula is that of a family."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import functional
from ..devices import exact, place
from ..spec import Spec
from .accelerated import Accelerated, kan_sum, missing_attributes, rows_around, spline_knots, wrong_shape
from .fast_kan import knots_around

_CHEBYSHEV = Spec.of(0, "zero", None, True, "chebyshev")
_JACOBI = Spec.of(0, "zero", None, True, "jacobi")
_SWITCH = Spec.of(0, "zero", None, True, "unit_switch")
# Layers that these libraries have and no family is, by class name, and why.
NOT_A_FAMILY = {
    "GRAMLayer": "its polynomials have trained coefficients and an activation",
    "BottleNeckGRAMLayer": "its polynomials have trained coefficients and an activation",
    "KALNLayer": "it scales its inputs by the smallest and the largest of the batch",
    "BernsteinKANLayer": "its forward gives 1 for all Bernstein polynomials",
    "WavKANLayer": "its wavelets have a scale and a translation for each edge",
    "ReLUKANLayer": "its functions have trained ends",
}


def _sum_on_range(x: Tensor, coef: Tensor, spec: Spec, backend: str | None) -> Tensor:
    """sum_{i,f} coef[i,f,o] B_f(x[n,i]) on the grid range [-1, 1]: x [N, I], coef [I, F, O] of any strides."""
    grid = place(torch.linspace(-1, 1, coef.shape[1] + 1, dtype=torch.float64, device="cpu"), x.device)
    return functional.apply(x, coef, grid.expand(len(coef), -1), None, None, None, spec, backend)


def _rows_around_zero(layer: Any) -> Tensor:
    """17 rows from -3 to 3."""
    weight = next(layer.parameters())
    return torch.linspace(-3.1, 2.9, 17, dtype=weight.dtype, device=weight.device)[:, None].expand(-1, layer.inputdim)


class FusedChebyKANLayer(Accelerated):
    """ChebyKAN's ChebyKANLayer by the kernels: T_f(tanh x) without the inverse cosine, whose gradient is NaN at 1."""

    inputdim: int
    outdim: int
    cheby_coeffs: Tensor

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.tanh(x).reshape(-1, self.inputdim)
        return _sum_on_range(rows, self.cheby_coeffs.transpose(1, 2), _CHEBYSHEV, self.fastkan_backend)

    @classmethod
    def fastkan_mismatch(cls, layer: Any) -> str | None:
        names = ("inputdim", "outdim", "degree", "cheby_coeffs")
        return missing_attributes(layer, names) or wrong_shape(
            layer, {"cheby_coeffs": (layer.inputdim, layer.outdim, layer.degree + 1)}
        )

    @classmethod
    def fastkan_test_rows(cls, layer: Any) -> Tensor:
        return _rows_around_zero(layer)


class FusedJacobiKANLayer(Accelerated):
    """torch-conv-kan's JacobiKANLayer with the parameters (1, 1)."""

    inputdim: int
    act: nn.Module
    norm: nn.Module
    base_weights: Tensor
    jacobi_coeffs: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, self.inputdim)
        base = F.linear(self.act(x), self.base_weights)
        y = _sum_on_range(x, self.jacobi_coeffs.transpose(1, 2), _JACOBI, self.fastkan_backend)
        return self.act(self.norm(y + base))

    @classmethod
    def fastkan_mismatch(cls, layer: Any) -> str | None:
        names = ("inputdim", "outdim", "degree", "a", "b", "act", "norm", "base_weights", "jacobi_coeffs")
        if missing := missing_attributes(layer, names):
            return missing
        if (layer.a, layer.b) != (1, 1):
            return f"a={layer.a}, b={layer.b}: expected 1 and 1, those of the family 'jacobi'"
        inputs, outputs = layer.inputdim, layer.outdim
        shapes = {"jacobi_coeffs": (inputs, outputs, layer.degree + 1), "base_weights": (outputs, inputs)}
        return wrong_shape(layer, shapes)

    @classmethod
    def fastkan_test_rows(cls, layer: Any) -> Tensor:
        return _rows_around_zero(layer)


class FusedFasterKANLayer(Accelerated):
    """faster-kan's FasterKANLayer. Its gradient by x is inv_denominator times that of its forward, here as well."""

    layernorm: nn.Module
    rbf: Any
    spline_linear: nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        rbf, weight = self.rbf, self.spline_linear.weight
        trained = rbf.grid.requires_grad or rbf.inv_denominator.requires_grad
        knots = None if trained or x.dim() != 2 else self.fastkan_convert(rbf.grid, _even_knots)
        if knots is None:
            return super().forward(x)
        x = self.layernorm(x)
        x = x.detach() + rbf.inv_denominator * (x - x.detach())
        coef = weight.unflatten(1, (-1, len(rbf.grid))).permute(1, 2, 0)  # O I F -> I F O
        functional.check_input(x, len(coef))
        grid = knots[0].expand(len(coef), -1)
        return functional.apply(x, coef, grid, None, None, None, _SWITCH, self.fastkan_backend)

    @classmethod
    def fastkan_mismatch(cls, layer: Any) -> str | None:
        names = ("layernorm", "rbf", "spline_linear")
        if missing := missing_attributes(layer, names) or missing_attributes(layer.rbf, ("grid", "inv_denominator")):
            return missing
        grid = layer.rbf.grid
        if grid.dim() != 1 or len(grid) < 2 or layer.spline_linear.weight.shape[1] % len(grid):
            return "the weights do not fit the grid"
        return None if layer.spline_linear.bias is None else "spline_linear has a bias"

    @classmethod
    @torch.no_grad()
    def fastkan_test_rows(cls, layer: Any) -> Tensor:
        grid = layer.rbf.grid
        grid.copy_(torch.linspace(float(grid[0]), float(grid[-1]), len(grid), dtype=grid.dtype, device=grid.device))
        return rows_around(grid.expand(layer.spline_linear.weight.shape[1] // len(grid), -1))


class FusedConvKANLayer(Accelerated):
    """torch-conv-kan's KANLayer: splines and base function by the kernels, then its normalisation and PReLU."""

    grid: Tensor
    spline_order: int
    base_activation: Callable
    base_weight: Tensor
    spline_weight: Tensor
    layer_norm: nn.Module
    prelu: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        knots = spline_knots(self, self.grid.to(x.device), self.spline_order)
        if knots is None or x.dim() != 2:
            return super().forward(x)
        coef, base = self.spline_weight.permute(1, 2, 0), self.base_weight.T
        operands = knots, self.spline_order, self.base_activation, base, None, self.fastkan_backend
        return self.prelu(self.layer_norm(kan_sum(x, coef, *operands)))

    @classmethod
    def fastkan_mismatch(cls, layer: Any) -> str | None:
        names = ("input_features", "output_features", "grid_size", "spline_order", "base_activation", "grid",
                 "base_weight", "spline_weight", "layer_norm", "prelu")  # fmt: skip
        if missing := missing_attributes(layer, names):
            return missing
        inputs, outputs, functions = layer.input_features, layer.output_features, layer.grid_size + layer.spline_order
        shapes = {
            "grid": (inputs, functions + layer.spline_order + 1), "base_weight": (outputs, inputs),
            "spline_weight": (outputs, inputs, functions),
        }  # fmt: skip
        return wrong_shape(layer, shapes)

    @classmethod
    def fastkan_test_rows(cls, layer: Any) -> Tensor:
        layer.grid = exact(layer.grid)  # neither a buffer nor a parameter, so double() leaves it
        return rows_around(layer.grid)


class FusedInkanLayer(Accelerated):
    """inkan's KANLayer of one-dimensional splines, on views of its one packed weight."""

    in_features: int
    n_bases: int
    inv_h: float
    grid_starts: Tensor
    weight: Tensor
    base_activation: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        inputs, functions = self.in_features, self.n_bases
        knots = self.fastkan_convert(self.grid_starts, _following_knots, self.inv_h)
        if knots is None or x.dim() != 2:
            return super().forward(x)
        splines, base = self.weight.split([inputs * functions, inputs], 1)
        coef = splines.unflatten(1, (inputs, functions)).permute(1, 2, 0)
        grid = knots[0].expand(inputs, -1), knots[1]
        return kan_sum(x, coef, grid, 3, self.base_activation, base.T, None, self.fastkan_backend)

    @classmethod
    def fastkan_mismatch(cls, layer: Any) -> str | None:
        names = ("in_features", "out_features", "n_bases", "inv_h", "grid_starts", "weight", "base_activation",
                 "spline_order", "dim")  # fmt: skip
        if missing := missing_attributes(layer, names):
            return missing
        if (layer.dim, layer.spline_order) != (1, 3):
            return f"dim={layer.dim}, spline_order={layer.spline_order}: expected 1 and 3"
        inputs, functions = layer.in_features, layer.n_bases
        shapes = {"grid_starts": (functions,), "weight": (layer.out_features, inputs * (functions + 1))}
        return wrong_shape(layer, shapes)

    @classmethod
    def fastkan_test_rows(cls, layer: Any) -> Tensor:
        layer.grid_starts = layer.grid_starts[0] + torch.arange(layer.n_bases).to(layer.grid_starts) / layer.inv_h
        functions = getattr(sys.modules[type(layer).__module__], "_BASIS_FNS", None)
        if functions is not None:  # without torch.compile
            layer._basis_fn = functions[layer.basis_mode, False]
        return rows_around(_following_knots(layer.grid_starts, layer.inv_h)[0].expand(layer.in_features, -1))


def _even_knots(centres: Tensor) -> tuple[Tensor | None, bool]:
    """Knots [1, F + 1] of intervals with these midpoints [F]; None unless they are equidistant."""
    return knots_around(centres, float(centres[-1] - centres[0]) / (len(centres) - 1))


def _following_knots(starts: Tensor, inv_h: float) -> tuple[Tensor, bool]:
    """Knots [1, F + 4] of uniform cubic splines whose supports begin at starts[0], + 1 / inv_h, ..."""
    steps = torch.arange(len(starts) + 4, dtype=torch.float64, device=exact(starts).device)
    return place((exact(starts[0]) + steps / inv_h)[None], starts.device), True
