"""Least-squares fit of splines to splines: the coefficients of a function after its knots change.

In a cell, between neighbouring knots of the union of both grids, all splines are polynomials: their values at K + 1
nodes determine them, and the moments of the data up to 2K determine the fit. So data are read once, O(K) per value; the
rest takes O(K^2) per cell and banded systems, without a tensor of size [N, F] or [F, F]. In float64, on the device of
the arguments.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from functools import lru_cache

import torch
from torch import Tensor

from ..basis.bspline import OUTSIDE
from .banded import Factor

# Weight of the whole range relative to the data: it matters only where there are no data.
RANGE_WEIGHT = 1e-3
# Elements in memory at a time: few enough for a cache, enough for a thread pool.
BLOCK = 1 << 20


def refit(
    coef: Tensor, old_grid: Tensor, new_grid: Tensor, degree: int, outside: str, samples: Tensor | None = None
) -> Tensor:
    """The coefficients on new_grid of the spline with coefficients coef on old_grid.

    They minimise the mean square of the difference over the new grid range, with equal weight for each of its
    intervals, exactly (Gauss-Legendre in every cell). With samples [I, N], ascending and within the new range, the mean
    is over these, plus RANGE_WEIGHT times that over the range, so that the problem has full rank for any samples. If
    the new splines contain the old ones, the function is equal to rounding error. `outside` is the extrapolation of the
    old function.

    coef [I, F, O], old_grid [I, M], new_grid [I, M'] in float64 -> [I, F', O] in float64.
    """
    if outside not in OUTSIDE:
        raise ValueError(f"outside={outside!r}: expected one of {OUTSIDE}")
    if degree == 0:  # step functions: the old range is closed at its right end
        old_grid = old_grid.clone()
        old_grid[:, -1:] = torch.nextafter(old_grid[:, -1:], old_grid.new_tensor(torch.inf))
    inputs, _, outputs = coef.shape
    nodes = degree + 1
    elements = (old_grid.shape[1] + new_grid.shape[1]) * nodes * (4 * nodes + 3 * outputs)
    if samples is not None:
        elements += samples.shape[1] * (2 * nodes + 4)
    alike = samples is None and _same_rows(old_grid) and _same_rows(new_grid)
    fits: list[Tensor] = []
    for start in range(0, inputs, step := max(1, BLOCK // elements)):
        part = slice(start, start + step)
        if alike:  # one system with all right-hand sides
            side = coef[part].transpose(0, 1).flatten(1)[None]
            fit = _Fit(side.double(), old_grid[:1], new_grid[:1], degree, outside, None)
            fits.append(fit.solve()[0].unflatten(1, (-1, outputs)).transpose(0, 1))
        else:
            rows = None if samples is None else samples[part]
            fits.append(_Fit(coef[part].double(), old_grid[part], new_grid[part], degree, outside, rows).solve())
    return fits[0] if len(fits) == 1 else torch.cat(fits)


class _Fit:
    """The fit on the U cells of all inputs, with Q nodes and P = K + 1 non-zero basis functions in each."""

    def __init__(
        self, coef: Tensor, old_grid: Tensor, new_grid: Tensor, degree: int, outside: str, samples: Tensor | None
    ):
        inner = new_grid[:, degree : new_grid.shape[1] - degree].contiguous()
        cuts = torch.cat([inner, old_grid.clamp(inner[:, :1], inner[:, -1:])], 1).sort(1).values
        first, half = cuts[:, :-1].contiguous(), cuts.diff(dim=1) / 2  # I U
        node, weight, gram_of_moments = _nodes(degree + 1, coef.device)
        middle = first + half
        points = torch.addcmul(middle.view(-1, 1), half.view(-1, 1), node)  # U Q

        self.inputs, self.intervals, self.degree = len(inner), inner.shape[1] - 1, degree
        self.row = torch.arange(self.inputs, device=inner.device).repeat_interleave(first.shape[1])
        interval = torch.searchsorted(inner, first, right=True).sub_(1).clamp_(max=self.intervals - 1)
        every = torch.arange(self.intervals + 1, device=inner.device).expand(self.inputs, -1).contiguous()
        self.cells = torch.searchsorted(interval, every).diff(dim=1).flatten()  # of each interval
        self.interval = interval.flatten()
        self.new, self.target = self._functions(points, first, coef, old_grid, new_grid, outside)  # U Q P, U Q O

        # Every interval has the weight 1 / G, for any width: where knots are dense, data are.
        share = half / inner.diff(dim=1).gather(1, interval)
        measure = share.view(-1, 1) * (weight / self.intervals)  # U Q
        if samples is None:
            self.weighted = (self.new * measure[..., None]).mT  # U P Q
        else:
            gram = _moments(samples, cuts, middle, half, 2 * degree + 1) @ gram_of_moments
            gram = gram.view_as(self.new)  # U Q Q, since P = Q
            gram.diagonal(dim1=1, dim2=2).add_(measure, alpha=RANGE_WEIGHT)
            self.weighted = torch.bmm(self.new.mT, gram)

    def _functions(
        self, points: Tensor, first: Tensor, coef: Tensor, old_grid: Tensor, new_grid: Tensor, outside: str
    ) -> tuple[Tensor, Tensor]:
        """The new splines and the old function at points [U, Q] of the cells that begin at first [I, U]."""
        degree, cells = self.degree, len(points)
        if outside == "zero":  # pad by functions with zero coefficients
            more = degree + 1
            low, high = old_grid[:, :1], old_grid[:, -1:]
            low, high = 2 * low - high, 2 * high - low
            old_grid = torch.cat([low.expand(-1, more), old_grid, high.expand(-1, more)], 1)
            coef = torch.nn.functional.pad(coef, (0, 0, more, more))
        last = old_grid.shape[1] - degree - 2
        interval = torch.searchsorted(old_grid, first, right=True).sub_(1).clamp_(degree, last).flatten()
        knots = [
            self._windows(grid, start, 2 * degree)
            for grid, start in ((new_grid, self.interval + 1), (old_grid, interval - degree + 1))
        ]
        end = points
        if outside != "zero":
            end = points.clamp(old_grid[self.row, degree, None], old_grid[self.row, last + 1, None])
        new, old = local_functions(torch.cat([points, end]), torch.cat(knots), degree).split(cells)
        if outside == "linear" and degree:
            old = old + (points - end)[..., None] * local_functions(end, knots[1], degree, 1)
        return new, torch.bmm(old, self._windows(coef, interval - degree, degree + 1))

    def solve(self) -> Tensor:
        """[I, F, O]."""
        gram, side = self._sums(torch.cat([self.new, self.target], 2)).tensor_split((self.new.shape[2],), 3)
        factor = Factor(self._assembled(gram, self.degree).narrow(2, 0, self.degree + 1))
        coef = factor.solve(self._assembled(side))
        # One step of iterative refinement, by the residual of the function rather than of the normal equations.
        residual = torch.baddbmm(self.target, self.new, self._windows(coef, self.interval, self.degree + 1), alpha=-1)
        return coef + factor.solve(self._assembled(self._sums(residual)))

    def _sums(self, values: Tensor) -> Tensor:
        """<B_p, values> in every interval, of values [U, Q, C] at the nodes: [I, G, P, C]."""
        products = torch.bmm(self.weighted, values)
        sums = torch.segment_reduce(products, "sum", lengths=self.cells, axis=0, unsafe=True)
        return sums.view(self.inputs, self.intervals, *sums.shape[1:])

    def _assembled(self, parts: Tensor, back: int = 0) -> Tensor:
        """Sum over intervals of their contributions [I, G, P, C]: [I, F, C + back]; the p-th starts at back - p."""
        inputs, intervals, count, width = parts.shape
        rows, columns = intervals + count - 1, width + back
        apart = parts.new_zeros(inputs, count, rows, columns)
        stride = count * rows * columns, rows * columns + columns - (1 if back else 0), columns, 1
        apart.as_strided((inputs, count, intervals, width), stride, back).copy_(parts.transpose(1, 2))
        return apart.sum(1)

    def _windows(self, rows: Tensor, start: Tensor, count: int) -> Tensor:
        """`count` rows from row start [U], for every cell: rows [I, F, ...] -> [U, count, ...]."""
        return rows.unfold(1, count, 1)[self.row, start].movedim(-1, 1)


def local_functions(x: Tensor, knots: Tensor, degree: int, order: int = 0) -> Tensor:
    """The K + 1 non-zero B-splines of an interval, or their derivatives, as polynomials.

    x [U, Q]; knots [U, 2K], K on each side of the interval -> [U, Q, K+1], in the order of the functions.
    """
    x, knots = x[..., None], knots[:, None]
    above, below = x - knots.narrow(2, 0, degree), knots.narrow(2, degree, degree) - x  # U Q K
    b = torch.ones_like(x)
    for k in range(1, degree + 1):
        rise, fall = above.narrow(2, degree - k, k), below.narrow(2, 0, k)  # x - t_j, t_j+k - x of B_j,k-1
        share = b / (rise + fall)
        b = x.new_zeros(*x.shape[:2], k + 1)
        if k <= degree - order:
            b.narrow(2, 0, k).copy_(fall * share)
            b.narrow(2, 1, k).addcmul_(rise, share)
        else:
            b.narrow(2, 0, k).add_(share, alpha=-k)
            b.narrow(2, 1, k).add_(share, alpha=k)
    return b


def _moments(samples: Tensor, cuts: Tensor, middle: Tensor, half: Tensor, count: int) -> Tensor:
    """sum_n u^k / N, k < count, over the samples [I, N] in every cell, u from -1 to 1 in the cell: [U, count]."""
    inputs, rows = samples.shape
    before = torch.searchsorted(samples, cuts)
    before[:, 0], before[:, -1] = 0, rows
    cells = before.diff(dim=1).flatten()
    cell = torch.arange(len(cells), device=cuts.device).repeat_interleave(cells, output_size=inputs * rows)
    half = half.clamp_min(torch.finfo(half.dtype).tiny)
    u = ((samples.flatten() - middle.flatten()[cell]) / half.flatten()[cell]).clamp_(-1, 1)
    powers = u.new_ones(count, len(u))
    for k in range(1, count):
        torch.mul(powers[k - 1], u, out=powers[k])
    return torch.segment_reduce(powers, "sum", lengths=cells.expand(count, -1), axis=1, unsafe=True).T / rows


@lru_cache(maxsize=16)
def _nodes(count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes and weights of Gauss-Legendre on [-1, 1]; [2 count - 1, count^2] that maps moments to sum_n l_p l_q.

    From the eigenvectors of the Jacobi matrix (Golub and Welsch, 1969). The Lagrange polynomial l_p, 1 at node p and
    0 at the others, is sum_a inverse[a, p] u^a.
    """
    k = torch.arange(1, count, dtype=torch.float64, device="cpu")
    side = k / (4 * k * k - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(side, 1) + torch.diag(side, -1))
    inverse = torch.linalg.inv(nodes[:, None] ** torch.arange(count, device="cpu"))
    gram = nodes.new_zeros(2 * count - 1, count, count)
    for a in range(count):
        gram[a : a + count] += inverse[a, :, None] * inverse[:, None]
    return nodes.to(device), (2 * vectors[0] ** 2).to(device), gram.flatten(1).to(device)


def _same_rows(grid: Tensor) -> bool:
    return torch.equal(grid, grid[:1].expand_as(grid))
