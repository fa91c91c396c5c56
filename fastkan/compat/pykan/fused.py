"""pykan's own models accelerated: a kan.MultKAN whose layers compute their sums through the kernels.

pykan's layers return the values on every edge beside the sums. Its model reads them only with save_act, so they are
left out where that is False, after speed() and during fit() with lamb=0, and elsewhere made when they are read.
"""

import functools

import torch
from torch import Tensor, nn

from ..accelerated import Accelerated, is_fused, kan_std, kan_sum, misshapen, missing_of, spline_knots, spread
from .edge_values import Forward


class FusedKANLayer(Accelerated):
    """forward of pykan's KANLayer; within its model without the values on every edge."""

    # "made"; "read": made when they are; "none": None three times
    fastkan_values = "made"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        backend = self.fastkan_choose(x, self.coef) if self._fastkan_serves(x) else None
        knots = None if backend is None else spline_knots(self, self.grid, self.k)
        if knots is None:
            return super().forward(x)
        coef = self.coef.transpose(1, 2)  # I O F -> I F O
        base_weight, scale = self.scale_base * self.mask, self.scale_sp * self.mask
        operands = x, coef, knots, self.k, self.base_fun, base_weight, scale, backend
        sums = kan_sum(*operands)
        if self.fastkan_values == "none":
            return sums, None, None, None
        own = Forward(self, x)
        preacts = own.values(1, lambda: torch.std(x, dim=0).expand(self.out_dim, -1))
        return sums, preacts, own.values(2, functools.cache(lambda: kan_std(*operands))), own.values(3)

    def _fastkan_serves(self, x: Tensor) -> bool:
        if self.fastkan_values == "none":
            return True
        traced = torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type)
        return self.fastkan_values == "read" and is_fused(self.base_fun) and not traced

    @classmethod
    def fastkan_unlike(cls, layer: nn.Module) -> str | None:
        wanted = ("in_dim", "out_dim", "k", "grid", "coef", "mask", "scale_base", "scale_sp", "base_fun")
        if missing := missing_of(layer, wanted):
            return missing
        inputs, outputs = layer.in_dim, layer.out_dim
        functions = layer.grid.shape[-1] - layer.k - 1
        shapes = {"grid": (inputs, functions + layer.k + 1), "coef": (inputs, outputs, functions)}
        return misshapen(layer, shapes | dict.fromkeys(("mask", "scale_base", "scale_sp"), (inputs, outputs)))

    @classmethod
    def fastkan_sample(cls, layer: nn.Module) -> Tensor:
        layer.fastkan_values = "none"
        return spread(layer.grid)


class FusedSymbolicLayer(Accelerated):
    """forward of pykan's Symbolic_KANLayer, at once where no edge is symbolic: zero, with a gradient of zeros."""

    def forward(self, x: Tensor, singularity_avoiding: bool = False, y_th: float = 10.0) -> tuple[Tensor, Tensor]:
        if self.mask.any() or any(name != "0" for row in self.funs_name for name in row):
            return super().forward(x, singularity_avoiding=singularity_avoiding, y_th=y_th)
        # not finite where x or the affine map is not, as there
        sums = (x * 0.0).sum(1, keepdim=True) + (self.affine.sum(-1) * 0.0).sum(1)
        values = Forward(self, x, singularity_avoiding, y_th).values(1, zero=True)
        return sums, values.made() if torch.compiler.is_compiling() else values

    @classmethod
    def fastkan_unlike(cls, layer: nn.Module) -> str | None:
        return missing_of(layer, ("in_dim", "out_dim", "mask", "funs_name", "affine"))

    @classmethod
    def fastkan_sample(cls, layer: nn.Module) -> Tensor:
        weight = layer.affine
        return torch.linspace(-1, 1, 5, dtype=weight.dtype, device=weight.device)[:, None].expand(-1, layer.in_dim)


class FusedMultKAN(Accelerated):
    """forward of pykan's MultKAN, which tells its layers whether the values on every edge will be read."""

    def forward(self, x: Tensor, *args, **options) -> Tensor:
        layers = [layer for layer in self.act_fun if isinstance(layer, FusedKANLayer)]
        for layer in layers:
            layer.fastkan_values = "read" if self.save_act else "none"
        try:
            return super().forward(x, *args, **options)
        finally:
            for layer in layers:
                layer.fastkan_values = "made"

    @classmethod
    def fastkan_unlike(cls, layer: nn.Module) -> str | None:
        return missing_of(layer, ("act_fun", "symbolic_fun", "save_act"))
