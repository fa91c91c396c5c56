"""L-BFGS with a strong Wolfe line search for small networks, where the optimizer's own time counts.

Source: Nocedal and Wright, Numerical Optimization (2006), algorithms 3.5, 3.6 and 7.4. The steps are those of
torch.optim.LBFGS(line_search_fn="strong_wolfe"), in a fraction of its time: vectors are flat, scalars are Python
floats. Differences: curvatures below 1e-10 count too, as in pykan; and the history is longer where that is cheap,
since the loss falls further in as many steps.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Wolfe conditions: sufficient decrease, and the share of the slope that may remain.
DECREASE, CURVATURE = 1e-4, 0.9
# Width of the bracket, as the largest change of a parameter, at which the search ends.
BRACKET = 1e-9
# Changes, slopes and curvatures below this count as zero.
TINY = 1e-32
# History length: MAX_HISTORY, torch's, reduced to at least MIN_HISTORY, pykan's, if the steps would exceed
# HISTORY_ELEMENTS numbers: all are read for every direction, which takes longer than a small network's gradient once
# they outgrow the L2 cache. The same on every device, so that trainings take the same steps.
MIN_HISTORY, MAX_HISTORY, HISTORY_ELEMENTS = 10, 100, 1 << 17


class Point(NamedTuple):
    """A point of the line search: step t, value, gradient, and slope along the direction; products of the gradient
    where they are read along."""

    t: float
    value: float
    gradient: Tensor
    slope: float
    products: Sequence[float] = ()


class LBFGS:
    """L-BFGS optimizer: step(closure) does up to max_iter iterations with at most max_eval evaluations.

    closure() leaves gradients in .grad (None counts as zeros) and returns the value, a number or a tensor. Where value
    or slope is not finite the line search turns back. Parameters of 16 bits are stepped in float32. A step ends early
    where no gradient exceeds tolerance_grad, or where the slope, the change of the value or that of all parameters is
    within tolerance_change. max_eval: 1.25 max_iter by default. history: its length, by default see MAX_HISTORY.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1.0, max_iter: int = 20, history: int | None = None, *,
        max_eval: int | None = None, tolerance_grad: float = TINY, tolerance_change: float = TINY,
    ):  # fmt: skip
        self.params, self.lr, self.max_iter = list(params), lr, max_iter
        self.max_eval = max_iter * 5 // 4 if max_eval is None else max_eval
        self.tolerance_grad, self.tolerance_change = tolerance_grad, tolerance_change
        self.sizes = [p.numel() for p in self.params]
        self.history = self._history_length() if history is None else history
        # Ring buffers s and y [history, P] that start at row `oldest`, and 1 / y s, oldest first.
        self.changes: tuple[Tensor, Tensor] | None = None
        self.oldest, self.inverse = 0, []
        self.last: tuple[Tensor, Tensor] | None = None  # the last change, and the gradient before it
        self.scale, self.evaluations = 1.0, 0

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    def forget(self) -> None:
        """Drop the history: the next direction is the negative gradient."""
        self.oldest, self.inverse = 0, []
        self.last, self.scale = None, 1.0

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor | float]) -> Tensor | float:
        """One step; returns the closure's value before it."""
        x = self._flat(self.params)
        trial = torch.empty_like(x)
        views = self._views(trial)

        def along(t: float) -> Point:
            torch.add(x, d, alpha=t, out=trial)
            torch._foreach_copy_(self.params, views)  # pyright: ignore[reportPrivateImportUsage]
            value, gradient = self._evaluate(closure)
            value, slope = float(value), float(gradient.dot(d))
            return Point(t, value if math.isfinite(slope) else math.inf, gradient, slope)

        most = self.evaluations + self.max_eval
        first, g = self._evaluate(closure)
        f = float(first)
        for _ in range(self.max_iter):
            if self.tolerance_grad > TINY and float(g.abs().max()) <= self.tolerance_grad:
                break
            d = self._direction(g)
            slope = float(g.dot(d))
            if (
                not slope < -self.tolerance_change and self.inverse
            ):  # the history is of a function that has changed since
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
            if found.t == 0:  # no better point on this line: start again from the gradient
                self.forget()
                break
            if self.evaluations >= most or abs(f - before) < self.tolerance_change:
                break
            if self.tolerance_change > TINY and float(self.last[0].abs().max()) <= self.tolerance_change:
                break
        torch._foreach_copy_(self.params, self._views(x))  # pyright: ignore[reportPrivateImportUsage]
        return first

    def _evaluate(self, closure: Callable[[], Tensor | float]) -> tuple[Tensor | float, Tensor]:
        """The closure's value and its gradient."""
        self.evaluations += 1
        with torch.enable_grad():
            value = closure()
        return value, self._flat([p.grad for p in self.params])

    def _history_length(self) -> int:
        return max(MIN_HISTORY, min(MAX_HISTORY, HISTORY_ELEMENTS // max(1, sum(self.sizes))))

    def _flat(self, tensors: Sequence[Tensor | None]) -> Tensor:
        pairs = zip(tensors, self.params, strict=True)
        flat = torch.cat([p.new_zeros(p.numel()) if t is None else t.reshape(-1) for t, p in pairs])
        return flat if flat.dtype == torch.float64 else flat.float()

    def _views(self, flat: Tensor) -> list[Tensor]:
        return [part.view_as(p) for part, p in zip(flat.split_with_sizes(self.sizes), self.params, strict=True)]

    def _direction(self, g: Tensor) -> Tensor:
        """-H g, with H the inverse Hessian from the history."""
        if self.last is None:
            return g.neg()
        s, y = self.last[0], g - self.last[1]
        self._remember(s, y, float(y.dot(s)), float(y.dot(y)))
        return self._descent(g)

    def _remember(self, s: Tensor, y: Tensor, curvature: float, square: float) -> None:
        """Add a step s with its change y of the gradient to the history; curvature: y s, square: y y."""
        if curvature > TINY and square > 0:
            self._append(s, y)
            self.inverse.append(1.0 / curvature)
            self.scale = curvature / square

    def _descent(self, g: Tensor) -> Tensor:
        """-H g, with H from the history as it is."""
        if not self.inverse or self.changes is None:
            return g.mul(-self.scale)
        fused = g.dtype in (torch.float32, torch.float64)
        two_loops = torch.ops.fastkan.lbfgs_direction if fused else reference
        return two_loops(g, *self.changes, self.inverse, self.oldest, self.scale)

    def _append(self, s: Tensor, y: Tensor) -> None:
        if self.changes is None:
            self.changes = s.new_empty(self.history, len(s)), s.new_empty(self.history, len(s))
        row = len(self.inverse)
        if row == self.history:
            row, self.oldest = self.oldest, (self.oldest + 1) % self.history
            del self.inverse[0]
        for rows, change in zip(self.changes, (s, y), strict=True):
            rows[row] = change


def reference(g: Tensor, s: Tensor, y: Tensor, inverse: list[float], oldest: int, scale: float) -> Tensor:
    """-H g for g [P] by the two-loop recursion, from steps s and gradient changes y, ring buffers [H, P].

    inverse: 1 / y s, oldest first, which is row `oldest` of s and y. On the CPU this is one call (csrc/cpu/lbfgs.h),
    since many small ones took longer than the gradient of a small network. Scalars stay on the device.
    """
    pairs = [(s[row % len(s)], y[row % len(s)], one) for row, one in enumerate(inverse, oldest)]
    q, shares = g.neg(), []
    for change, slope, of_pair in reversed(pairs):
        shares.append(of_pair * change.dot(q))
        q.addcmul_(slope, shares[-1], value=-1)
    q.mul_(scale)
    for change, slope, of_pair in pairs:
        q.addcmul_(change, shares.pop() - of_pair * slope.dot(q))
    return q


torch.library.impl("fastkan::lbfgs_direction", "CompositeExplicitAutograd", reference)


def strong_wolfe(along: Callable[[float], Point], start: Point, t: float, largest: float, most: int) -> Point:
    """Line search: a point that satisfies the strong Wolfe conditions, or the best of `most` + 1 evaluations.

    along: evaluates a step; t: the first trial; largest: the largest element of the direction.
    """
    low, high, tried = start, None, 0  # a value that is not finite is too large
    point = along(t)
    while tried < most:  # until low and high bracket a minimum
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
    near_end = False
    while tried < most and abs(high.t - low.t) * largest >= BRACKET:
        first, last = min(low.t, high.t), max(low.t, high.t)
        t = _minimum(low, high, first, last)
        margin = 0.1 * (last - first)
        if min(last - t, t - first) < margin:  # too close to an end: a second time, or at the end
            if near_end or t >= last or t <= first:
                t, near_end = last - margin if abs(t - last) < abs(t - first) else first + margin, False
            else:
                near_end = True
        else:
            near_end = False
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
    """The largest value of sufficient decrease at point."""
    return start.value + DECREASE * point.t * start.slope


def _minimum(a: Point, b: Point, least: float, most: float) -> float:
    """Minimum of the cubic through two points with their slopes, clamped to [least, most]; their middle without one."""
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
