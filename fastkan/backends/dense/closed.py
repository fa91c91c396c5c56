"""All B-splines of equidistant knots in closed form, elementwise in the dtype of x."""

import math

import torch
from torch import Tensor

from ...basis.bspline import OUTSIDE
from ...spec import MAX_DEGREE, Spec
from .window import coordinate

# A coordinate at which all functions are zero.
FAR = -1e6

# Numbers that torch.compile would not compute: (-1)^j C(K+1, j) for every degree K, and (1 / p!)^(1/p).
_TERMS = [[(-1) ** j * math.comb(k + 1, j) for j in range(k // 2 + 1)] for k in range(MAX_DEGREE + 1)]
_UNITS = [1.0] + [math.factorial(p) ** (-1 / p) for p in range(1, MAX_DEGREE + 1)]


# The most functions for which all of them in closed form are faster than a window.
CLOSED_TO = 24


def is_closed(spec: Spec, order: int, functions: int) -> bool:
    """Whether `closed_features` serves: it has the continuous derivatives on equidistant knots."""
    highest = max(order, 1) if OUTSIDE[spec.outside] == "linear" else order
    return spec.uniform and highest < spec.degree and functions <= CLOSED_TO


def closed_features(x: Tensor, grid: Tensor, spec: Spec, order: int) -> tuple[Tensor, Tensor | None]:
    """Derivatives of all F functions, [N, F, I], and what they are to be multiplied by: [I], or None for 1.

    x [N, I]; grid [I, M]. With t from x to a function's centre in units of h, and p = K - order:
    B^(order) = sign(t)^order sum_j (-1)^j C(K+1, j) max(0, (K+1)/2 - j - |t|)^p / p!
    """
    degree, outside = spec.degree, OUTSIDE[spec.outside]
    functions = grid.shape[1] - 1 - degree
    z, scale = coordinate(x, grid)
    nan = x.isnan()
    end = z if outside == "zero" else z.clamp(degree, functions)
    beyond = z - end
    flat = nan if outside == "zero" or order <= (outside == "linear") else beyond != 0
    centres = (torch.arange(functions, dtype=x.dtype, device=x.device) + (degree + 1) / 2)[:, None]
    end = torch.where(flat, FAR, end)[:, None]
    y = _centred(end, centres, degree, order)
    if outside == "linear" and order == 0:
        slope = _centred(end, centres, degree, 1)
        y = y.add_(torch.where(slope == 0, 0.0, slope * beyond[:, None]))
    y[:, : degree + 1] += torch.where(nan, x, 0.0)[:, None]
    return y, scale**order if order else None


def _centred(z: Tensor, centres: Tensor, degree: int, order: int) -> Tensor:
    """d^order/dz^order of the cardinal B-spline about each of the centres. In place where it can be: memory is time."""
    power = degree - order
    unit = _UNITS[power]
    t = centres * unit - z * unit
    a = t.abs() if order % 2 else t.abs_()
    y = None
    for j, factor in enumerate(_TERMS[degree]):
        end = unit * ((degree + 1) / 2 - j)
        r = a.neg_().add_(end) if j == degree // 2 else end - a
        r = r.relu_().pow_(power)
        y = r if y is None else y.add_(r, alpha=factor)
    assert y is not None
    return y.mul_(t.sign_()) if order % 2 else y
