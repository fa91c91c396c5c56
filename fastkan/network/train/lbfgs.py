"""LBFGS: limited-memory BFGS with a strong Wolfe line search, for small networks, where an optimizer's own time counts.

Source: Nocedal and Wright, Numerical Optimization (2006), algorithms 3.5, 3.6 and 7.4. The steps are those of
torch.optim.LBFGS(line_search_fn="strong_wolfe"), at a fraction of its time: vectors are flat, numbers are Python's.
What differs: a curvature counts however small the loss is, as in pykan, where torch's drops those below 1e-10; and
more changes are remembered where that costs little, since they bring as many steps much further.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

# Sufficient decrease, and the share of the slope that may be left.
DECREASE, CURVATURE = 1e-4, 0.9
# A bracket narrower than this, in the largest parameter's change, is not searched further.
BRACKET = 1e-9
# Changes, slopes and curvatures below this are none.
TINY = 1e-32
# Changes that are remembered: MOST, or fewer, but LEAST, where those of x would be more than NUMBERS numbers: all are
# read for every direction, which takes longer than a small network's gradient where they outgrow a second-level cache.
LEAST, MOST, NUMBERS = 10, 100, 1 << 17


class Point(NamedTuple):
    """A step t along the search direction: the value there, its gradient, and its slope along the direction."""

    t: float
    value: float
    gradient: Tensor
    slope: float


class LBFGS:
    """step(closure): up to max_iter iterations, or 1.25 times as many evaluations; closure leaves gradients in .grad.

    closure() returns the value, a number or a tensor. A parameter without a gradient counts as one with zeros. Where
    the value or the slope is not finite the search turns back. Parameters of 16 bits are stepped in float32. A step
    ends early where no gradient exceeds tolerance_grad, or the slope, a change of the value or of all parameters is
    within tolerance_change. history: how many changes are remembered, by default see MOST. max_eval: another number of
    evaluations.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1.0, max_iter: int = 20, history: int | None = None, *,
        max_eval: int | None = None, tolerance_grad: float = TINY, tolerance_change: float = TINY,
    ):  # fmt: skip
        self.params, self.lr, self.max_iter = list(params), lr, max_iter
        self.max_eval = max_iter * 5 // 4 if max_eval is None else max_eval
        self.tolerance_grad, self.tolerance_change = tolerance_grad, tolerance_change
        self.sizes = [p.numel() for p in self.params]
        self.history = self._affordable() if history is None else history
        # s and y [history, P], from row `oldest` on and round, and 1 / y s, from the oldest on.
        self.changes: tuple[Tensor, Tensor] | None = None
        self.oldest, self.inverse = 0, []
        self.last: tuple[Tensor, Tensor] | None = None  # the last change, and the gradient before it
        self.scale, self.evaluations = 1.0, 0

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    def forget(self) -> None:
        """Start again from the gradient alone."""
        self.oldest, self.inverse = 0, []
        self.last, self.scale = None, 1.0

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor | float]) -> Tensor | float:
        """Returns what closure returned before the step."""
        x = self._flat(self.params)
        trial = torch.empty_like(x)
        views = self._views(trial)

        def evaluate() -> tuple[Tensor | float, Tensor]:
            self.evaluations += 1
            with torch.enable_grad():
                value = closure()
            return value, self._flat([p.grad for p in self.params])

        def along(t: float) -> Point:
            torch.add(x, d, alpha=t, out=trial)
            torch._foreach_copy_(self.params, views)
            value, gradient = evaluate()
            value, slope = float(value), float(gradient.dot(d))
            return Point(t, value if math.isfinite(slope) else math.inf, gradient, slope)

        most = self.evaluations + self.max_eval
        first, g = evaluate()
        f = float(first)
        for _ in range(self.max_iter):
            if self.tolerance_grad > TINY and float(g.abs().max()) <= self.tolerance_grad:
                break
            d = self._direction(g)
            slope = float(g.dot(d))
            if not slope < -self.tolerance_change and self.inverse:  # curvatures of a function that has changed since
                self.forget()
                d = g.neg()
                slope = float(g.dot(d))
            if not slope < -self.tolerance_change:
                break
            t = self.lr if self.last is not None else min(1.0, 1.0 / float(g.abs().sum())) * self.lr
            found = strong_wolfe(along, Point(0.0, f, g, slope), t, float(d.abs().max()), most - self.evaluations)
            x.add_(d, alpha=found.t)
            self.last, before = (d.mul_(found.t), g), f
            f, g = found.value, found.gradient
            if found.t == 0:  # nothing on this line is better: the next one starts from the gradient
                self.forget()
                break
            if self.evaluations >= most or abs(f - before) < self.tolerance_change:
                break
            if self.tolerance_change > TINY and float(self.last[0].abs().max()) <= self.tolerance_change:
                break
        torch._foreach_copy_(self.params, self._views(x))
        return first

    def _affordable(self) -> int:
        if not all(p.is_cpu for p in self.params):  # where every number of the two loops is waited for
            return LEAST
        return max(LEAST, min(MOST, NUMBERS // max(1, sum(self.sizes))))

    def _flat(self, tensors: list[Tensor | None]) -> Tensor:
        pairs = zip(tensors, self.params, strict=True)
        flat = torch.cat([p.new_zeros(p.numel()) if t is None else t.reshape(-1) for t, p in pairs])
        return flat if flat.dtype == torch.float64 else flat.float()

    def _views(self, flat: Tensor) -> list[Tensor]:
        return [part.view_as(p) for part, p in zip(flat.split_with_sizes(self.sizes), self.params, strict=True)]

    def _direction(self, g: Tensor) -> Tensor:
        """-H g, with H the inverse Hessian that the last changes of x and of the gradient tell of."""
        if self.last is None:
            return g.neg()
        s, y = self.last[0], g - self.last[1]
        curvature, square = float(y.dot(s)), float(y.dot(y))
        if curvature > TINY and square > 0:
            self._remember(s, y)
            self.inverse.append(1.0 / curvature)
            self.scale = curvature / square
        if not self.inverse:
            return g.mul(-self.scale)
        fused = g.dtype in (torch.float32, torch.float64)
        two_loops = torch.ops.fastkan.lbfgs_direction if fused else reference
        return two_loops(g, *self.changes, self.inverse, self.oldest, self.scale)

    def _remember(self, s: Tensor, y: Tensor) -> None:
        if self.changes is None:
            self.changes = s.new_empty(self.history, len(s)), s.new_empty(self.history, len(s))
        row = len(self.inverse)
        if row == self.history:
            row, self.oldest = self.oldest, (self.oldest + 1) % self.history
            del self.inverse[0]
        for rows, change in zip(self.changes, (s, y), strict=True):
            rows[row] = change


def reference(g: Tensor, s: Tensor, y: Tensor, inverse: list[float], oldest: int, scale: float) -> Tensor:
    """-H g, g [P], by the last changes s of x and y of the gradient, rows of [H, P]; inverse holds 1 / y s.

    They begin in row `oldest` and go round; there are as many as inverse has numbers. On the CPU one call,
    csrc/cpu/two_loops.h: small ones took longer than a small network's gradient.
    """
    pairs = [(s[row % len(s)], y[row % len(s)], one) for row, one in enumerate(inverse, oldest)]
    q, shares = g.neg(), []
    for change, slope, of_pair in reversed(pairs):
        shares.append(of_pair * float(change.dot(q)))
        q.add_(slope, alpha=-shares[-1])
    q.mul_(scale)
    for change, slope, of_pair in pairs:
        q.add_(change, alpha=shares.pop() - of_pair * float(slope.dot(q)))
    return q


torch.library.impl("fastkan::lbfgs_direction", "CompositeExplicitAutograd", reference)


def strong_wolfe(along: Callable[[float], Point], start: Point, t: float, largest: float, most: int) -> Point:
    """A step that lowers the value enough and leaves little slope, or the best of `most` + 1 evaluations.

    along evaluates at a step; t is the first to try, `largest` the largest element of the direction.
    """
    low, high, tried = start, None, 0  # a value that is not finite is too large
    point = along(t)
    while tried < most:  # until the bracket low, high holds a step to find
        if not point.value <= _enough(start, point) or (tried > 1 and point.value >= low.value):
            high = point
        elif abs(point.slope) <= -CURVATURE * start.slope:
            return point
        elif point.slope >= 0:
            high = point
        if high is not None:
            break
        t = _minimum(low, point, point.t + 0.01 * (point.t - low.t), 10 * point.t)
        low, point = point, along(t)
        tried += 1
    else:
        low, high = start, point
    if high.value < low.value:
        low, high = high, low
    timid = False
    while tried < most and abs(high.t - low.t) * largest >= BRACKET:
        first, last = min(low.t, high.t), max(low.t, high.t)
        t = _minimum(low, high, first, last)
        margin = 0.1 * (last - first)
        if min(last - t, t - first) < margin:  # too close to an end, twice or altogether
            if timid or t >= last or t <= first:
                t, timid = last - margin if abs(t - last) < abs(t - first) else first + margin, False
            else:
                timid = True
        else:
            timid = False
        point = along(t)
        tried += 1
        if not point.value <= _enough(start, point) or point.value >= low.value:
            high = point
            if high.value < low.value:
                low, high = high, low
            continue
        if abs(point.slope) <= -CURVATURE * start.slope:
            return point
        if point.slope * (high.t - low.t) >= 0:
            high = low
        low = point
    return low


def _enough(start: Point, point: Point) -> float:
    return start.value + DECREASE * point.t * start.slope


def _minimum(a: Point, b: Point, least: float, most: float) -> float:
    """Of the cubic through two points with their slopes, within least and most; the middle of these if it has none."""
    if a.t > b.t:
        a, b = b, a
    if a.t == b.t or not math.isfinite(a.value + b.value + a.slope + b.slope):
        return (least + most) / 2
    d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return (least + most) / 2
    d2 = math.sqrt(square)
    bend = b.slope - a.slope + 2 * d2
    if bend == 0:  # a line
        return (least + most) / 2
    return min(max(b.t - (b.t - a.t) * ((b.slope + d2 - d1) / bend), least), most)
