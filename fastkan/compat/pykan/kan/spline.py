"""kan.spline: B-spline bases, curves and least-squares fits, with pykan's shapes; computed in float64."""

import torch
from torch import Tensor

from ....basis.bspline import bspline_features
from ....devices import exact


def B_batch(x: Tensor, grid: Tensor, k: int = 0, extend: bool = True, device: str = "cpu") -> Tensor:
    """B-spline basis functions of degree k: x [N, I], grid [I, G + 2k + 1] -> [N, I, G + k]. Ignores extend, device."""
    return bspline_features(exact(x), exact(grid), k, "zero").to(x)


def coef2curve(x_eval: Tensor, grid: Tensor, coef: Tensor, k: int, device: str = "cpu") -> Tensor:
    """Splines with coefficients coef [I, O, G + k] at x_eval [N, I]: [N, I, O]."""
    phi = bspline_features(exact(x_eval), exact(grid), k, "zero")
    return torch.einsum("nif,iof->nio", phi, exact(coef)).to(x_eval)


def curve2coef(x_eval: Tensor, y_eval: Tensor, grid: Tensor, k: int) -> Tensor:
    """Coefficients [I, O, G + k] of the least-squares splines through y_eval [N, I, O] at x_eval [N, I].

    Minimum-norm, so that x may be constant or have few distinct values.
    """
    phi = bspline_features(exact(x_eval), exact(grid), k, "zero").transpose(0, 1)  # I N F
    coef = torch.linalg.pinv(phi) @ exact(y_eval).transpose(0, 1)  # I F O
    return coef.transpose(1, 2).to(y_eval)


def extend_grid(grid: Tensor, k_extend: int = 0) -> Tensor:
    """Knots [I, G + 1] extended by k_extend on both sides, in steps of the mean interval: [I, G + 1 + 2 k_extend]."""
    first, last = grid[:, :1], grid[:, -1:]
    steps = (last - first) / (grid.shape[1] - 1) * torch.arange(1, k_extend + 1, device=grid.device)
    return torch.cat([first - steps.flip(1), grid, last + steps], 1)
