"""Grids of a KAN layer: knots that follow the data, and coefficients that keep the function when the knots change.

Everything is computed in float64 on the device of its arguments, and nothing of size [N, I, O] is ever held.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from ..basis.bspline import bspline_features, num_functions, uniform_knots

# A knot interval is never narrower than this share of the mean one: float32 coordinates have to tell its ends apart.
MIN_INTERVAL = 0.01
# A grid range is never narrower than this share of its largest end: some float32 steps, for the same reason.
MIN_RANGE = 2.0**-20
# Rows of data that are kept to place knots and to fit coefficients.
SAMPLE_ROWS = 8192
# Weight of the whole range beside the data in a fit: it decides where there are no data, and only there.
RANGE_WEIGHT = 1e-3
# Features held at a time: small enough for a cache, large enough for a thread pool.
BLOCK = 1 << 20


def is_uniform(grid: Tensor) -> bool:
    """Whether the knots of every row of grid [I, M] are equidistant to float64 rounding."""
    return bool((_off_uniform(grid) <= 8 * torch.finfo(torch.float64).eps).all())


def snapped(grid: Tensor, low: float, high: float, degree: int) -> Tensor:
    """grid [I, M] in float64, freed of float32 rounding: rows that are uniform but for it become exactly uniform.

    Other software keeps knots in float32. Knots that all are float32 numbers and within a few float32 steps of uniform
    ones are taken for these: on [low, high] if that is where they lie, else on their own range.
    """
    grid = grid.double()
    grid_size = grid.shape[-1] - 2 * degree - 1
    few_steps = 4 * torch.finfo(torch.float32).eps
    if not torch.equal(grid, grid.float().double()) or (_off_uniform(grid) > few_steps).any():
        return grid
    expected = uniform_knots(low, high, grid_size, degree, device=grid.device).expand_as(grid)
    if (_relative(grid - expected, grid) <= few_steps).all():
        return expected.contiguous()
    return uniform_knots(grid[:, degree], grid[:, -degree - 1], grid_size, degree)


def adaptive_knots(quantiles: Tensor, low: Tensor, high: Tensor, degree: int, grid_eps: float) -> Tensor:
    """Knots grid_eps * uniform + (1 - grid_eps) * quantiles, continued by `degree` knots each side.

    quantiles [I, G+1] of the data, of which the first and the last give way to the ends low and high [I] of the grid
    range. Returns [I, G+2*degree+1], always strictly increasing: where many data are equal, the share of the uniform
    grid is made as large as that takes. The step of the continuation is the uniform one, or the end interval where that
    is narrower (wide functions that barely reach into a narrow interval would need huge coefficients there, which the
    tail outside the range then shows). Source: Liu et al., KAN (arXiv 2404.19756), section 2.2.
    """
    grid_size = quantiles.shape[-1] - 1
    low, high = _widened(low.double(), high.double())
    knots = uniform_knots(low, high, grid_size, degree)
    inner = slice(degree, degree + grid_size + 1)
    uniform = knots[:, inner]
    followed = quantiles.double().clamp(low[:, None], high[:, None])
    followed = torch.cat([low[:, None], followed[:, 1:-1], high[:, None]], -1)
    uniform[:, -1] = high  # an end that is rounded down would put the largest x outside
    step = (high - low) / grid_size
    narrowest = followed.diff(dim=-1).amin(-1)
    # e step + (1 - e) narrowest >= MIN_INTERVAL step
    needed = ((MIN_INTERVAL * step - narrowest) / (step - narrowest)).nan_to_num(0.0).clamp(0.0, 1.0)
    share = needed.clamp_min(grid_eps)[:, None]
    knots[:, inner] = torch.lerp(followed, uniform, share)
    if degree:
        steps = torch.arange(1, degree + 1, device=knots.device)
        first = torch.minimum(step, knots[:, degree + 1] - low)[:, None]
        last = torch.minimum(step, high - knots[:, -degree - 2])[:, None]
        knots[:, :degree] = low[:, None] - steps.flip(0) * first
        knots[:, -degree:] = high[:, None] + steps * last
    return knots


def resized_knots(grid: Tensor, degree: int, grid_size: int) -> Tensor:
    """Knots of another number of intervals on the same ranges and with the same density: grid [I, M] -> [I, M'].

    A multiple of the number of intervals splits each into equal parts, so that the old splines are among the new ones.
    """
    inner = grid[:, degree : grid.shape[-1] - degree]
    old_size = inner.shape[-1] - 1
    knots = uniform_knots(inner[:, 0], inner[:, -1], grid_size, degree)
    knots[:, degree + grid_size] = inner[:, -1]
    if is_uniform(grid):
        return knots
    position = torch.arange(grid_size + 1, device=grid.device) * old_size  # in units of 1 / grid_size of an interval
    left = position.div(grid_size, rounding_mode="floor").clamp_max(old_size - 1)
    part = (position - left * grid_size).double() / grid_size
    knots[:, degree : degree + grid_size + 1] = torch.lerp(inner[:, left], inner[:, left + 1], part)
    return knots


class Sample:
    """What a fit needs to know of a stream of batches, in bounded memory: ranges, and up to SAMPLE_ROWS of its rows.

    Row n of the stream is kept if n * golden ratio mod 1 is among the smallest: evenly spread, in step with no period
    of the data, and the same however the stream is cut into batches. Of up to SAMPLE_ROWS rows all are kept.
    """

    def __init__(self, inputs: int, device: torch.device):
        self.inputs, self.device = inputs, device
        self.seen = 0
        self.rows = torch.empty(0, inputs, device=device, dtype=torch.float64)
        self.order = torch.empty(0, device=device, dtype=torch.int64)
        self.low = torch.full((inputs,), torch.inf, device=device, dtype=torch.float64)
        self.high = -self.low

    @classmethod
    def of(cls, x: Tensor | Iterable, inputs: int, device: torch.device) -> "Sample":
        """From a tensor [..., I], or an iterable of them or of tuples that begin with them, as a DataLoader gives."""
        sample = cls(inputs, device)
        for batch in [x] if isinstance(x, Tensor) else x:
            sample.add(batch[0] if isinstance(batch, (tuple, list)) and batch else batch)
        if sample.seen == 0:
            raise ValueError("x is empty: expected at least one row to follow")
        return sample

    def add(self, batch: Tensor) -> None:
        if not isinstance(batch, Tensor):
            raise TypeError(f"x gives a {type(batch).__name__}: expected a tensor, or batches that begin with one")
        if batch.dim() == 0 or batch.shape[-1] != self.inputs:
            shape = list(batch.shape)
            raise ValueError(f"x has shape {shape}: expected [..., {self.inputs}], the number of in_features last")
        for rows in batch.detach().reshape(-1, self.inputs).split(SAMPLE_ROWS):
            self._add(rows.to(self.device).double())

    def _add(self, rows: Tensor) -> None:  # up to SAMPLE_ROWS at a time
        if not len(rows):
            return
        if not rows.isfinite().all():
            bad = (~rows.isfinite()).any(0).nonzero().flatten().tolist()
            raise ValueError(f"x has NaN or infinite entries in its inputs {bad[:8]}: expected finite numbers")
        self.low = torch.minimum(self.low, rows.amin(0))
        self.high = torch.maximum(self.high, rows.amax(0))
        index = torch.arange(self.seen, self.seen + len(rows), device=self.device)
        self.seen += len(rows)
        order = torch.cat([self.order, index * -0x61C8864680B583EB])  # 2^64 / golden ratio, in wrapping arithmetic
        rows = torch.cat([self.rows, rows])
        if len(order) > SAMPLE_ROWS:
            kept = order.topk(SAMPLE_ROWS, largest=False).indices.sort().values
            order, rows = order[kept], rows[kept]
        self.order, self.rows = order, rows

    def quantiles(self, count: int) -> Tensor:
        """The data at `count` equidistant ranks, the smallest and the largest among them: [I, count]."""
        ordered = self.rows.T.contiguous().sort(-1).values  # I N
        rank = torch.linspace(0, ordered.shape[1] - 1, count, device=self.device, dtype=torch.float64)
        below = rank.floor().long()
        return torch.lerp(ordered[:, below], ordered[:, rank.ceil().long()], rank - below)


def refit(
    coef: Tensor, old_grid: Tensor, new_grid: Tensor, degree: int, outside: str, samples: Tensor | None = None
) -> Tensor:
    """The coefficients on new_grid of the function that coef is on old_grid.

    They minimise the mean square of the difference over the new grid range, each of its intervals counting alike,
    exactly (Gauss-Legendre on every interval of the two grids together). With samples [N, I] the mean over these comes
    first, and the range with RANGE_WEIGHT beside it, so that the problem has full rank whatever the samples. If the new
    splines contain the old ones the function is kept to rounding error. What the old function is outside its own range
    follows `outside`.

    coef [I, F, O], old_grid [I, M], new_grid [I, M'] in float64 -> [I, F', O] in float64.
    """
    inputs = coef.shape[0]
    if samples is None and _same_rows(old_grid) and _same_rows(new_grid):
        old_grid, new_grid = old_grid[:1], new_grid[:1]
        transfer = _transfer(old_grid, new_grid, degree, outside, None).expand(inputs, -1, -1)
        step = max(1, BLOCK // coef[0].numel())
        return torch.cat([transfer[:step][: len(c)] @ c.double() for c in coef.split(step)])
    functions = num_functions(new_grid, degree) + num_functions(old_grid, degree)
    points = (degree + 1) * (old_grid.shape[-1] + new_grid.shape[-1])
    step = max(1, BLOCK // max(points * functions, functions**2, coef[0].numel()))
    parts = []
    for start in range(0, inputs, step):
        part = slice(start, start + step)
        rows = None if samples is None else samples[:, part]
        parts.append(_transfer(old_grid[part], new_grid[part], degree, outside, rows) @ coef[part].double())
    return torch.cat(parts)


def _transfer(old_grid: Tensor, new_grid: Tensor, degree: int, outside: str, samples: Tensor | None) -> Tensor:
    """T [I, F', F] with new coefficients T @ old ones: T = A^-1 M, A = <new, new>, M = <new, old>."""

    def features(points: Tensor) -> tuple[Tensor, Tensor]:  # P I -> I P F', I P F
        grids = (new_grid, old_grid)
        return tuple(bspline_features(points, grid, degree, outside).transpose(0, 1) for grid in grids)

    points, weights = _quadrature(old_grid, new_grid, degree)
    new, old = features(points)
    weighted = (new * weights.T[..., None]).mT  # I F' P
    gram, cross = weighted @ new, weighted @ old
    if samples is not None:
        gram, cross = RANGE_WEIGHT * gram, RANGE_WEIGHT * cross
        step = max(1, BLOCK // (gram.shape[0] * (gram.shape[1] + cross.shape[2])))
        for rows in samples.double().split(step):
            new_there, old_there = features(rows)
            gram = gram + new_there.mT @ new_there / len(samples)
            cross = cross + new_there.mT @ old_there / len(samples)
    transfer = _solve(gram, cross)
    if samples is None:
        # The residual at the points, not of the equations: what is lost there to rounding is then found again.
        transfer = transfer + _solve(gram, weighted @ (old - new @ transfer))
    return transfer


def _solve(gram: Tensor, cross: Tensor) -> Tensor:
    # Normalised B-splines are well conditioned on any knots; bare ones are not, at the ends of the range.
    norm = gram.diagonal(dim1=-2, dim2=-1).rsqrt()[..., None]  # I F' 1
    gram, cross = norm * gram * norm.mT, norm * cross
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed.any():
        return norm * (torch.linalg.pinv(gram, hermitian=True) @ cross)
    return norm * torch.cholesky_solve(cross, factor)


def _quadrature(old_grid: Tensor, new_grid: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights [P, I] that integrate products of two splines over the new grid range, all intervals alike.

    An interval of the new grid has the weight 1 / G, whatever its width: where knots are dense, data are.
    """
    inner = new_grid[:, degree : new_grid.shape[-1] - degree].contiguous()
    breaks = torch.cat([inner, old_grid.clamp(inner[:, :1], inner[:, -1:])], -1).sort(-1).values  # I U
    width = breaks.diff(dim=-1)[..., None]
    node, weight = _gauss_legendre(degree + 1, new_grid.device)
    points = breaks[:, :-1, None] + width * (node + 1) / 2  # I U-1 Q
    intervals = inner.shape[-1] - 1
    interval = torch.searchsorted(inner, breaks[:, :-1].contiguous(), right=True).sub(1).clamp(0, intervals - 1)
    density = 1 / (intervals * inner.diff(dim=-1).gather(-1, interval))[..., None]
    weights = density * width * weight / 2
    return points.flatten(1).T.contiguous(), weights.flatten(1).T.contiguous()


def _gauss_legendre(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [-1, 1], from the eigenvectors of the Jacobi matrix (Golub and Welsch, 1969)."""
    k = torch.arange(1, count, dtype=torch.float64)
    side = k / (4 * k * k - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(side, 1) + torch.diag(side, -1))
    return nodes.to(device), (2 * vectors[0] ** 2).to(device)


def _widened(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The range with the least width that its magnitude allows; one around nothing but zeros becomes [-1/2, 1/2]."""
    least = MIN_RANGE * torch.maximum(low.abs(), high.abs())
    least = torch.where((high == low) & (least == 0), 1.0, least)
    short = (least - (high - low)).clamp_min(0.0) / 2
    return low - short, high + short


def _off_uniform(grid: Tensor) -> Tensor:
    return _relative(grid - uniform_knots(grid[:, 0], grid[:, -1], grid.shape[-1] - 1, 0), grid)


def _relative(difference: Tensor, grid: Tensor) -> Tensor:
    return difference.abs().amax(-1) / grid.abs().amax(-1)


def _same_rows(grid: Tensor) -> bool:
    return torch.equal(grid, grid[:1].expand_as(grid))
