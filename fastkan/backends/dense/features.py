"""All B-splines at once, elementwise in the dtype of x: in closed form, or by their polynomial pieces."""

import math

import torch
from torch import Tensor

from ...basis.bspline import OUTSIDE
from ...spec import MAX_DEGREE, Spec
from ...transforms import by_jit
from .window import coordinate, differentiated

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


def piecewise_features(x: Tensor, grid: Tensor, spec: Spec, order: int) -> Tensor:
    """Derivatives of all F functions on any knots: x [N, I], grid [I, M] -> [N, F, I].

    Everything is elementwise in x and differentiable, so that a compiler fuses it, and an exporter knows it.
    """
    degree, outside = spec.degree, OUTSIDE[spec.outside]
    functions = grid.shape[1] - 1 - degree
    knots = grid.T  # M I
    t = _kept(knots.to(x.dtype))
    end = x if outside == "zero" else torch.minimum(torch.maximum(x, t[degree]), t[functions])
    high = t[functions]
    # The right end of the grid range belongs to the span before it.
    at_end = end == high
    m = (end[:, None] >= t).sum(1) - 1
    m = torch.where(at_end, (t < high).sum(0) - 1, m)
    u = end - torch.gather(t, 0, m.clamp(0, grid.shape[1] - 2))
    within = (m >= 0) & (m < grid.shape[1] - 1) & end.isfinite()
    u, m = _kept(torch.where(within, u, 0.0)), _kept(torch.where(within, m, -1))
    piece = m[:, None] - torch.arange(functions, device=x.device)[:, None]
    pieces = _pieces(knots, degree)
    y = _selected(piece, u, pieces, order)
    beyond = x - end
    if outside == "linear" and order == 0:
        slope = _selected(piece, u, pieces, 1)
        y = y + torch.where(slope == 0, 0.0, beyond[:, None] * slope)
    elif outside != "zero" and order > (outside == "linear"):
        y = torch.where(beyond[:, None] == 0, y, 0.0)
    lead = (torch.arange(functions, device=x.device) <= degree)[:, None]
    return torch.where(x.isnan()[:, None] & lead, x[:, None], y)


def _selected(piece: Tensor, u: Tensor, pieces: list[list[Tensor]], order: int) -> Tensor:
    """Derivative of the polynomial number `piece` [N, F, I] of every function, at u [N, I]; 0 for any other number."""
    y = torch.zeros_like(piece, dtype=u.dtype)
    for k, coefficients in enumerate(pieces):
        value = torch.zeros_like(u[:, None])
        for c in reversed(differentiated(coefficients, order)):
            value = value * u[:, None] + _kept(c.to(u.dtype))
        y = torch.where(piece == k, value, y)
    return y


def _pieces(t: Tensor, degree: int) -> list[list[Tensor]]:
    """Coefficients of u^0 .. u^K, u = x - t_m, of functions f = m - k in the span [t_m, t_{m+1}], for k = 0 .. K.

    knots t [M, I] -> [F, I] each. By the Cox-de Boor recursion of polynomials; empty supports contribute nothing.
    """
    pieces = [[torch.ones_like(t[:-1])]]
    for r in range(1, degree + 1):
        count = len(t) - 1 - r
        width = t[r:] - t[:-r]
        over = torch.where(width > 0, 1 / width, 0.0)
        raised: list[list[Tensor]] = []
        for k in range(r + 1):
            start = t[k : k + count]
            c = [torch.zeros_like(start) for _ in range(r + 1)]
            if k < r:  # (x - t_f) / (t_{f+r} - t_f) times piece k of function f
                for p, a in enumerate(pieces[k]):
                    a = a[:-1] * over[:-1]
                    c[p], c[p + 1] = c[p] + (start - t[:count]) * a, c[p + 1] + a
            if k > 0:  # (t_{f+r+1} - x) / (t_{f+r+1} - t_{f+1}) times piece k - 1 of function f + 1
                for p, a in enumerate(pieces[k - 1]):
                    a = a[1:] * over[1:]
                    c[p], c[p + 1] = c[p] + (t[r + 1 :] - start) * a, c[p + 1] - a
            raised.append(c)
        pieces = raised
    return pieces


def _kept(t: Tensor) -> Tensor:
    """t, which torch.compile then computes once, not again for every element that reads it."""
    if by_jit() or not torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return t
    t = t.contiguous()
    return t.as_strided(t.shape, t.stride())
