"""Accelerated models of pykan: a kan.MultKAN whose layers compute their sums by the kernels.

pykan's layers return the values on every edge beside the sums. Its model reads them only with save_act=True: after
speed() and during fit() with lamb=0 they are omitted, otherwise computed when they are read.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..accelerated import (
    Accelerated,
    is_fused,
    kan_std,
    kan_sum,
    missing_attributes,
    rows_around,
    spline_knots,
    wrong_shape,
)
from .edge_values import Forward


class FusedKANLayer(Accelerated):
    """pykan's KANLayer with forward by the kernels where its model does not read the values on every edge."""

    # Values on every edge: "eager" by the original forward, "lazy" when they are read, or "none".
    fastkan_edge_values = "eager"
    in_dim: int
    out_dim: int
    k: int
    grid: Tensor
    coef: Tensor
    mask: Tensor
    scale_base: Tensor
    scale_sp: Tensor
    base_fun: Callable

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        knots = spline_knots(self, self.grid, self.k) if self._fastkan_supports(x) else None
        if knots is None:
            return super().forward(x)
        coef = self.coef.transpose(1, 2)  # I O F -> I F O
        base_weight, scale = self.scale_base * self.mask, self.scale_sp * self.mask
        operands = x, coef, knots, self.k, self.base_fun, base_weight, scale, self.fastkan_backend
        sums = kan_sum(*operands)
        if self.fastkan_edge_values == "none":
            return sums, None, None, None
        original = Forward(self, x)
        preacts = original.values(1, lambda: torch.std(x, dim=0).expand(self.out_dim, -1))
        return sums, preacts, original.values(2, functools.cache(lambda: kan_std(*operands))), original.values(3)

    def _fastkan_supports(self, x: Tensor) -> bool:
        if self.fastkan_edge_values == "none":
            return True
        traced = torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type)
        return self.fastkan_edge_values == "lazy" and is_fused(self.base_fun) and not traced

    @classmethod
    def fastkan_mismatch(cls, layer: Any) -> str | None:
        names = ("in_dim", "out_dim", "k", "grid", "coef", "mask", "scale_base", "scale_sp", "base_fun")
        if missing := missing_attributes(layer, names):
            return missing
        inputs, outputs = layer.in_dim, layer.out_dim
        functions = layer.grid.shape[-1] - layer.k - 1
        shapes = {"grid": (inputs, functions + layer.k + 1), "coef": (inputs, outputs, functions)}
        return wrong_shape(layer, shapes | dict.fromkeys(("mask", "scale_base", "scale_sp"), (inputs, outputs)))

    @classmethod
    def fastkan_test_rows(cls, layer: Any) -> Tensor:
        layer.fastkan_edge_values = "none"
        return rows_around(layer.grid)


class FusedSymbolicLayer(Accelerated):
    """pykan's Symbolic_KANLayer; without symbolic edges its forward is zero at once, with a gradient of zeros."""

    in_dim: int
    out_dim: int
    mask: Tensor
    funs_name: list[list[str]]
    affine: Tensor

    def forward(self, x: Tensor, singularity_avoiding: bool = False, y_th: float = 10.0) -> tuple[Tensor, Tensor]:
        if self.mask.any() or any(name != "0" for row in self.funs_name for name in row):
            return super().forward(x, singularity_avoiding=singularity_avoiding, y_th=y_th)
        # as in pykan not finite where x or the affine map is not
        sums = (x * 0.0).sum(1, keepdim=True) + (self.affine.sum(-1) * 0.0).sum(1)
        values = Forward(self, x, singularity_avoiding, y_th).values(1, zero=True)
        return sums, values.compute() if torch.compiler.is_compiling() else values

    @classmethod
    def fastkan_mismatch(cls, layer: Any) -> str | None:
        return missing_attributes(layer, ("in_dim", "out_dim", "mask", "funs_name", "affine"))

    @classmethod
    def fastkan_test_rows(cls, layer: Any) -> Tensor:
        weight = layer.affine
        return torch.linspace(-1, 1, 5, dtype=weight.dtype, device=weight.device)[:, None].expand(-1, layer.in_dim)


class FusedMultKAN(Accelerated):
    """pykan's MultKAN, whose forward sets whether its layers provide the values on every edge."""

    act_fun: nn.ModuleList
    save_act: bool

    def forward(self, x: Tensor, *args, **options) -> Tensor:
        layers = [layer for layer in self.act_fun if isinstance(layer, FusedKANLayer)]
        for layer in layers:
            layer.fastkan_edge_values = "lazy" if self.save_act else "none"
        try:
            return super().forward(x, *args, **options)
        finally:
            for layer in layers:
                layer.fastkan_edge_values = "eager"

    @classmethod
    def fastkan_mismatch(cls, layer: Any) -> str | None:
        return missing_attributes(layer, ("act_fun", "symbolic_fun", "save_act"))
