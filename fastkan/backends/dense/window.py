"""B-splines in the dtype of x: the K + 1 functions around each x, which are all that are not zero there.

float32 is enough for a coordinate: the first knot is subtracted as a sum of two numbers of that dtype, so that the
difference has the rounding errors of x alone. No tensor larger than the grid has another dtype than x.
"""

import math
from typing import Any

import torch
from torch import Tensor

from ...basis.bspline import OUTSIDE, off_uniform
from ...snapshot import readable
from ...spec import MAX_DEGREE, Spec
from ...transforms import by_jit, is_traced


def known(spec: Spec, grid: Tensor) -> Spec:
    """`spec` with what is certain about the knots: a trace may get others later, and on a CPU they may be read."""
    if by_jit():
        return spec._replace(uniform=False)
    if spec.uniform or not grid.is_cpu or not readable(grid):
        return spec
    row = grid[:1] if grid.stride(0) == 0 else grid
    return spec._replace(uniform=bool((off_uniform(row) <= 8 * torch.finfo(grid.dtype).eps).all()))


def coordinate(x: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """(x - t_0) / h [N, I] and 1 / h [I] on equidistant knots t: x [N, I], grid [I, M]."""
    first = grid[:, 0]
    over_h = ((grid.shape[1] - 1) / (grid[:, -1] - first)).to(x.dtype)
    high = first.to(x.dtype)
    low = (first - high.to(grid.dtype)).to(x.dtype)
    return (x - high).sub_(low).mul_(over_h), over_h


def fraction(x: Tensor, m: Tensor, grid: Tensor) -> Tensor:
    """(x - t_m) / h [N, I] on equidistant knots, to rounding: x near t_m, m [N, I], grid [I, M].

    t_m = t_0 + m h, where t_0 and h are sums of two numbers, h's first with half of the digits, so that m times it is
    exact. The error of x - t_0 is computed too. Source: Dekker 1971, Knuth's sum of two numbers.
    """
    first, intervals = grid[:, 0], grid.shape[1] - 1
    h = (grid[:, -1] - first) / intervals
    high, h_high = first.to(x.dtype), h.to(x.dtype)
    split = h_high * _SPLIT[x.dtype]
    h_high = split - (split - h_high)
    low, h_low = (first - high.to(grid.dtype)).to(x.dtype), (h - h_high.to(grid.dtype)).to(x.dtype)
    m, from_first = m.to(x.dtype), x - high
    part = from_first - x
    error = (x - (from_first - part)) - (high + part)
    return ((from_first - m * h_high) + (error - low - m * h_low)) * (1 / h).to(x.dtype)


def _pieces(degree: int) -> list[list[float]]:
    """The first half of the pieces of a cardinal B-spline on [j, j + 1], as coefficients of u^0, ..., u^K, u = x - j.

    The others are their mirror images, piece K - j of u is piece j of 1 - u. Source: de Boor, chapter IX.
    """
    return [
        [
            math.comb(degree, p)
            * sum((-1) ** i * math.comb(degree + 1, i) * (j - i) ** (degree - p) for i in range(j + 1))
            / math.factorial(degree)
            for p in range(degree + 1)
        ]
        for j in range(degree // 2 + 1)
    ]


# 2^s + 1: multiples of it cut s binary digits off, half of them all.
_SPLIT = {torch.float32: 2.0**12 + 1, torch.float64: 2.0**27 + 1}
_PIECES = [_pieces(degree) for degree in range(MAX_DEGREE + 1)]


def uniform_values(u: Tensor, degree: int, order: int) -> list[Tensor]:
    """h^order times the derivatives of the K + 1 functions in an interval, at its fraction u in [0, 1]."""
    ends = (u, 1.0, 1 - u, (-1.0) ** order)
    w = []
    for k in range(degree + 1):
        piece = min(degree - k, k)
        at, sign = ends[:2] if piece == degree - k else ends[2:]
        coefficients = differentiated(_PIECES[degree][piece], order)
        w.append(_polynomial([sign * c for c in coefficients], at))
    return w


def differentiated(coefficients: list[Any], order: int) -> list[Any]:
    """Coefficients of a polynomial's derivative, constant first; numbers or tensors."""
    for _ in range(order):
        coefficients = [p * c for p, c in enumerate(coefficients)][1:]
    return coefficients


def _polynomial(coefficients: list[float], u: Tensor) -> Tensor:
    y = torch.full_like(u, coefficients[-1] if coefficients else 0.0)
    for c in reversed(coefficients[:-1]):
        y = y * u
        y = y + c if c else y
    return y


def any_values(x: Tensor, m: Tensor, knots: Tensor, degree: int, order: int) -> list[Tensor]:
    """Derivatives of the K + 1 functions on [t_m, t_{m+1}], by the Cox-de Boor recursion: x, m [N, I]; knots [I, M]."""
    if order > degree:
        return [torch.zeros_like(x)] * (degree + 1)
    # Rows padded at both ends: only functions that do not exist read beyond them.
    before, after = knots[:, :1].expand(-1, degree), knots[:, -1:].expand(-1, degree)
    knots = torch.cat([before, knots, after], 1)
    inputs, count = knots.shape
    at = (m + count * torch.arange(inputs, device=x.device)).reshape(-1)

    def read(table: Tensor, j: int) -> Tensor:
        """Column m + j of an unpadded table."""
        return table.reshape(-1)[degree + j :].index_select(0, at).view(x.shape)

    t = knots.to(x.dtype)
    left = [x - read(t, 1 - j) for j in range(1, degree + 1)]
    right = [read(t, j) - x for j in range(1, degree + 1)]
    w = [torch.ones_like(x)]
    for r in range(1, degree + 1):
        width = torch.roll(knots, -r, 1) - knots  # t_{g+r} - t_g, in the dtype of the grid
        over = torch.where(width > 0, 1 / width, 0.0).to(x.dtype)  # empty supports contribute nothing
        # B_{g,r} = (x - t_g) B_{g,r-1} / (t_{g+r} - t_g) + (t_{g+r+1} - x) B_{g+1,r-1} / (t_{g+r+1} - t_{g+1})
        q = [w[k] * read(over, 1 + k - r) for k in range(r)]
        if r > degree - order:
            w = [-r * q[0], *(r * (a - b) for a, b in zip(q[:-1], q[1:], strict=True)), r * q[-1]]
        else:
            inner = [left[r - k] * q[k - 1] + right[k] * q[k] for k in range(1, r)]
            w = [right[0] * q[0], *inner, left[0] * q[-1]]
    return w


def _spans(x: Tensor, knots: Tensor) -> Tensor:
    """m [N, I] with t_m <= x < t_{m+1}: x [N, I], ascending knots [I, M]."""
    if is_traced():  # comparisons fuse, and ONNX has no search
        return (x[..., None] >= knots).sum(-1) - 1
    return torch.searchsorted(knots.contiguous(), x.T.contiguous(), right=True).T - 1


class Window:
    """The K + 1 functions around each x: x [N, I], grid [I, M]."""

    def __init__(self, x: Tensor, grid: Tensor, spec: Spec):
        degree, last = spec.degree, grid.shape[1] - 1
        self.degree, self.functions, self.outside = degree, last - degree, OUTSIDE[spec.outside]
        if spec.uniform:
            self.knots, (z, self.scale) = None, coordinate(x, grid)
            self.end = z if self.outside == "zero" else z.clamp(degree, self.functions)
            at_end, inside = self.end == self.functions, (z >= 0) & (z < last)
            m = torch.where(x.isnan(), 0.0, self.end).clamp(0, last - 1).long()
            m = torch.where(at_end, self.functions - 1, m)
            self.u = torch.where(z == self.end, fraction(x, m, grid), self.end - m)
        else:
            self.knots, z, self.scale, t = grid, x, None, grid.to(x.dtype)
            low, high = t[:, degree], t[:, self.functions]
            self.end = z if self.outside == "zero" else torch.clamp(z, low, high)
            at_end, inside = self.end == high, (z >= t[:, 0]) & (z < t[:, -1])
            before_end = (t < high[:, None]).sum(-1) - 1
            m = torch.where(at_end, before_end, _spans(self.end, t).clamp(0, last - 1))
        self.beyond = z - self.end
        nan = x.isnan()
        self.m = torch.where(nan, degree, m)
        self.inside = (inside | at_end) if self.outside == "zero" else ~nan
        self.fill = torch.where(nan, x, 0.0)

    def values(self, order: int) -> list[Tensor]:
        """Derivatives of functions m - K, ..., m over `factor`, [N, I] each; 0 where one does not exist.

        A NaN in x makes all of them NaN.
        """
        w = self._within(order)
        inside = self.inside
        if self.outside == "linear" and order == 0:
            slopes = self._within(1)  # 0 also where x is infinite
            w = [y + torch.where(slope == 0, 0.0, self.beyond * slope) for y, slope in zip(w, slopes, strict=True)]
        elif self.outside != "zero" and order > (self.outside == "linear"):
            inside = self.beyond == 0
        if self.outside != "zero":
            return [torch.where(inside, y, self.fill) for y in w]
        first = self.m - self.degree
        exist = [inside & (first >= -k) & (first < self.functions - k) for k in range(self.degree + 1)]
        return [torch.where(e, y, self.fill) for e, y in zip(exist, w, strict=True)]

    def factor(self, order: int) -> Tensor | None:
        """What `values` are to be multiplied by, [I], or None for 1: a power of 1 / h."""
        return None if self.scale is None or order == 0 else self.scale**order

    def places(self) -> list[Tensor]:
        """Columns f I + i of these functions in rows of features, [N, I] each, all different."""
        inputs = self.m.shape[1]
        column = torch.arange(inputs, device=self.m.device)
        functions = [self.m - (self.degree - k) for k in range(self.degree + 1)]
        if self.outside == "zero":
            functions = [torch.remainder(f, self.functions) for f in functions]
        return [f * inputs + column for f in functions]

    def _within(self, order: int) -> list[Tensor]:
        if self.knots is None:
            return uniform_values(self.u, self.degree, order)
        return any_values(self.end, self.m, self.knots, self.degree, order)
