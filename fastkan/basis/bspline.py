"""B-splines of any degree on any knots: the definition, in plain PyTorch.

A grid row of G + 2K + 1 knots t has F = G + K functions of degree K; [t_K, t_F] is the grid range, closed at both
ends (its right end belongs to the last interval, as in scipy.interpolate.BSpline). Source: de Boor, A Practical Guide
to Splines, chapters IX and X.
"""

import torch
from torch import Tensor

from ..devices import widest

OUTSIDE = ("zero", "linear", "clamp")


def num_functions(grid: Tensor, degree: int) -> int:
    """F of a grid [..., G + 2K + 1]."""
    return grid.shape[-1] - degree - 1


def uniform_knots(
    low: float | Tensor, high: float | Tensor, grid_size: int, degree: int, *, device: torch.device | str | None = None
) -> Tensor:
    """G + 2K + 1 equidistant knots, G intervals on [low, high]; low and high are numbers or tensors [...].

    In float64, or float32 on a device without it.
    """
    if device is None:
        device = low.device if isinstance(low, Tensor) else torch.get_default_device()
    dtype = widest(torch.device(device))
    low = torch.as_tensor(low, dtype=dtype, device=device)[..., None]
    high = torch.as_tensor(high, dtype=dtype, device=device)[..., None]
    steps = torch.arange(-degree, grid_size + degree + 1, dtype=dtype, device=low.device)
    return low + (high - low) * (steps / grid_size)


def off_uniform(grid: Tensor) -> Tensor:
    """How far the knots of grid [I, M] are from equidistant ones between the ends, over the largest of its row: [I]."""
    first, last = grid[:, :1], grid[:, -1:]
    steps = torch.arange(grid.shape[1], dtype=grid.dtype, device=grid.device) / (grid.shape[1] - 1)
    return (grid - (first + (last - first) * steps)).abs().amax(-1) / grid.abs().amax(-1)


def bspline_features(x: Tensor, grid: Tensor, degree: int, outside: str, order: int = 0) -> Tensor:
    """d^order/dx^order of all F functions of every input.

    x [N, I] and grid [I, G+2K+1] in one dtype -> [N, I, F]. Extrapolation outside [t_K, t_F]: "zero" is the tail on the
    extended knots and zero beyond them, "linear" has the end's value and slope, "clamp" the end's value. A NaN in x
    makes the first K + 1 functions NaN.
    """
    if outside == "zero":
        y = _cox_de_boor(x, grid, degree, order)
    elif outside in OUTSIDE:
        low, high = grid[:, degree], grid[:, -degree - 1]  # I
        end = torch.minimum(torch.maximum(x, low), high)  # N I
        if outside == "linear" and order == 0:
            slope = _cox_de_boor(end, grid, degree, 1)
            rise = torch.where(slope == 0, 0.0, (x - end)[..., None] * slope)  # also where x is infinite
            y = _cox_de_boor(end, grid, degree, 0) + rise
        else:
            y = _cox_de_boor(end, grid, degree, order)
            constant_from = 2 if outside == "linear" else 1
            if order >= constant_from:
                y = y.masked_fill((x != end)[..., None], 0.0)
    else:
        raise ValueError(f"outside={outside!r}: expected one of {OUTSIDE}")
    lead = torch.arange(y.shape[-1], device=y.device) <= degree
    return torch.where(x.isnan()[..., None] & lead, x[..., None], y)


def _cox_de_boor(x: Tensor, grid: Tensor, degree: int, order: int) -> Tensor:
    if order > degree:
        return x.new_zeros(*x.shape, num_functions(grid, degree))
    t = grid
    # The knot span of x: t_m <= x < t_{m+1}; the right end of the grid range belongs to the span before it.
    at_end = x == t[:, -degree - 1]
    passed = (x[..., None] > t) | ((x[..., None] == t) & ~at_end[..., None])  # N I M
    m = passed.sum(-1) - 1  # N I
    b = (m[..., None] == torch.arange(t.shape[-1] - 1, device=x.device)).to(x.dtype)  # N I M-1
    x = torch.where(x.isfinite(), x, t[:, 0])  # NaN and infinity are in no span: 0 times a number, not NaN
    for k in range(1, degree + 1):
        width = t[:, k:] - t[:, :-k]  # I M-k: the support t_{g+k} - t_g
        scale = torch.where(width > 0, 1 / width, 0.0)  # empty supports contribute nothing (0/0 := 0)
        if k <= degree - order:
            # B_{g,k} = (x - t_g)/(t_{g+k} - t_g) B_{g,k-1} + (t_{g+k+1} - x)/(t_{g+k+1} - t_{g+1}) B_{g+1,k-1}
            rise = (x[..., None] - t[:, : -k - 1]) * scale[:, :-1]
            fall = (t[:, k + 1 :] - x[..., None]) * scale[:, 1:]
            b = rise * b[..., :-1] + fall * b[..., 1:]
        else:
            # B'_{g,k} = k (B_{g,k-1}/(t_{g+k} - t_g) - B_{g+1,k-1}/(t_{g+k+1} - t_{g+1})), for every order
            b = k * (b[..., :-1] * scale[:, :-1] - b[..., 1:] * scale[:, 1:])
    return b
