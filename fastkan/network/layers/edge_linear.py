"""EdgeLinear: KANLinear with the initialization of pykan's layers."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...basis.bspline import bspline_features, uniform_knots
from ...nn import KANLinear


class Start(NamedTuple):
    """The initialization of a KANLayer: its arguments of these names."""

    noise_scale: float
    scale_base_mu: float
    scale_base_sigma: float
    scale_sp: float
    sparse_init: bool


class EdgeLinear(KANLinear):
    """The KANLinear of a KANLayer, initialized like pykan's layers."""

    spline_scale: nn.Parameter  # pyright: ignore[reportIncompatibleVariableOverride]  never None here

    def __init__(self, start: Start, generator: torch.Generator | None, *args: Any, **options: Any):
        self.start = start
        super().__init__(*args, enable_standalone_scale_spline=True, generator=generator, **options)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialize again: random parameters, and a uniform grid of the present size on grid_range.

        Random numbers are drawn on the CPU in pykan's order and precision: the same seed gives the same network.
        """
        start, size, degree = self.start, self.grid_size, self.spline_order
        inputs, outputs = self.in_features, self.out_features
        grid = uniform_knots(*self.grid_range, size, degree, device=torch.device("cpu"))[None]
        self.grid.copy_(grid.expand_as(self.grid))
        noise = (torch.rand(size + 1, inputs, outputs, generator=generator, device="cpu") - 0.5) * start.noise_scale
        if self.family == "bspline":
            phi = bspline_features(grid[:, degree : degree + size + 1].T, grid, degree, "zero")[:, 0]  # P F
            self.coef.copy_(torch.einsum("fp,pio->ifo", torch.linalg.pinv(phi), noise.double() / size))
        else:  # of other functions the values at the knots may need huge coefficients
            self.coef.copy_(noise[:size].transpose(0, 1) / size)
        draw = torch.rand(inputs, outputs, generator=generator, device="cpu") * 2 - 1
        if self.base_weight is not None:
            self.base_weight.copy_((start.scale_base_mu + start.scale_base_sigma * draw) / math.sqrt(inputs))
        self.spline_scale.copy_(start.scale_sp / math.sqrt(inputs) * first_mask(inputs, outputs, start.sparse_init))


def first_mask(inputs: int, outputs: int, sparse: bool) -> Tensor:
    """The mask [I, O] of a new layer, on the CPU: ones, or with `sparse` edges from every input to the nearest output
    on [0, 1], and to every output from the nearest input."""
    if not sparse:
        return torch.ones(inputs, outputs, device="cpu")
    at = [(torch.arange(n, device="cpu") + 0.5) / n for n in (inputs, outputs)]
    distance = (at[0][:, None] - at[1]).abs()
    mask = torch.zeros(inputs, outputs, device="cpu")
    mask.scatter_(1, distance.argmin(1)[:, None], 1.0)
    mask.scatter_(0, distance.argmin(0)[None], 1.0)
    return mask
