"""Least-squares fit of any basis functions to any: what refit is for B-splines, for the families that are not."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import torch
from torch import Tensor

from ..reference import basis_features
from ..spec import Spec
from .refit import RANGE_WEIGHT

# Points on the new range for each of the functions, and the most data.
POINTS, MOST_DATA = 8, 1024
# Directions with less than this share of the largest singular value are left out, or coefficients would be huge.
CUTOFF = 1e-12


def refit_family(
    coef: Tensor, old_grid: Tensor, old: Spec, new_grid: Tensor, new: Spec, samples: Tensor | None = None
) -> Tensor:
    """The coefficients of basis `new` on new_grid of the function with coefficients coef of `old` on old_grid.

    They minimise the mean square of the difference at Chebyshev's points of the new range, or at samples [I, N],
    ascending, with RANGE_WEIGHT for the range. If the new functions contain the old ones, the function is equal up to
    rounding and CUTOFF.

    coef [I, F, O], old_grid [I, M], new_grid [I, M'] in float64 -> [I, F', O] in float64.
    """
    low, high = new_grid[:, new.degree], new_grid[:, -new.degree - 1]
    count = POINTS * max(coef.shape[1], new_grid.shape[1])
    at = (torch.arange(count, dtype=torch.float64, device=coef.device) + 0.5) * (torch.pi / count)
    x = (low + high) / 2 + (high - low) / 2 * at.cos()[:, None]  # P I
    weight = x.new_full((count, 1), 1 / count)
    if samples is not None:
        every = torch.linspace(0, samples.shape[1] - 1, min(samples.shape[1], MOST_DATA), device=coef.device)
        data = samples[:, every.round().long()].T.double()
        x, weight = torch.cat([x, data]), torch.cat([RANGE_WEIGHT * weight, x.new_full((len(data), 1), 1 / len(data))])
    weight = weight.sqrt()
    phi = (weight[..., None] * basis_features(x, new_grid, new, 0)).transpose(0, 1)  # I P F'
    old_phi = (weight[..., None] * basis_features(x, old_grid, old, 0)).transpose(0, 1)
    target, solve = old_phi @ coef.double(), torch.linalg.pinv(phi, rtol=CUTOFF)
    found = solve @ target
    return found + solve @ (target - phi @ found)
