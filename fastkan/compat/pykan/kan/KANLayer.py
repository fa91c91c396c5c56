"""kan.KANLayer: the numeric branch of a layer, with pykan's arguments and results."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from ....network.grids import splines_of
from ....network.layers import numeric
from ..layer import EdgeLayer
from .spline import B_batch, coef2curve, curve2coef, extend_grid
from .utils import sparse_mask


class KANLayer(EdgeLayer):
    """An EdgeLayer with pykan's constructor and methods."""

    fusable = True

    def __init__(
        self, in_dim: int = 3, out_dim: int = 2, num: int = 5, k: int = 3, noise_scale: float = 0.5,
        scale_base_mu: float = 0.0, scale_base_sigma: float = 1.0, scale_sp: float = 1.0,
        base_fun: str | Callable[[Tensor], Tensor] = "silu", grid_eps: float = 0.02,
        grid_range: Sequence[float] = (-1, 1), sp_trainable: bool = True, sb_trainable: bool = True,
        save_plot_data: bool = True, device: torch.device | str = "cpu", sparse_init: bool = False, **options,
    ):  # fmt: skip
        super().__init__(
            in_dim, out_dim, num, k, noise_scale, scale_base_mu, scale_base_sigma, scale_sp, base_fun, grid_eps,
            (grid_range[0], grid_range[1]), sp_trainable, sb_trainable, sparse_init, device=device, **options,
        )  # fmt: skip

    def update_grid_from_samples(self, x: Tensor, mode: str = "sample") -> None:
        """Fit the grid to x [N, I]. mode has no effect: the functions stay the same at the data and between them."""
        self.linear.update_grid(x, margin=0.0)

    @torch.no_grad()
    def initialize_grid_from_parent(
        self, parent: numeric.KANLayer, x: Tensor | None = None, mode: str = "sample"
    ) -> None:
        """Copy the parent's grid range and splines, with this layer's number of intervals; ignores x and mode."""
        self.linear.set_grid(*splines_of(self, parent))

    def get_subset(self, in_id: Sequence[int], out_id: Sequence[int]) -> "KANLayer":
        """A new layer with these inputs and outputs of this one."""
        return cast(KANLayer, self.rearranged([int(i) for i in in_id], [int(j) for j in out_id]))

    def swap(self, i1: int, i2: int, mode: str = "in") -> None:
        """Exchange two inputs (mode "in") or two outputs ("out")."""
        order = [list(range(self.in_dim)), list(range(self.out_dim))]
        chosen = order[0] if mode == "in" else order[1]
        chosen[i1], chosen[i2] = chosen[i2], chosen[i1]
        swapped = self.rearranged(*order)
        self.mask = swapped.edge_mask
        self.linear.set_grid(swapped.linear.grid, swapped.linear.coef)
        self.scale_base, self.scale_sp = swapped.scale_base, swapped.scale_sp
