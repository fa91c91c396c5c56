"""L-BFGS for parameters on a device: the host waits once an evaluation."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ...devices import on_host
from .lbfgs import LBFGS, TINY, Point, strong_wolfe


class DeviceLBFGS(LBFGS):
    """LBFGS that reads all products of a gradient together with the value.

    The first trial on a direction is evaluated before its slope at the start is known, which is read with it: in vain
    where the direction turns out not to lead down.

    A direction is a few products with matrices, as many for a history of any length: the two-loop recursion is four
    small calls for every change that is remembered. Source: Byrd, Nocedal and Schnabel, Mathematical Programming 63
    (1994), equation 3.13.
    """

    products: tuple[Tensor, Tensor] | None = None  # of changes: s[i] y[j], where j is not older than i, and y[i] y[j]

    def _append(self, s: Tensor, y: Tensor) -> None:
        super()._append(s, y)
        assert self.changes is not None
        if self.products is None:
            self.products = s.new_zeros(self.history, self.history), s.new_zeros(self.history, self.history)
        row = (self.oldest + len(self.inverse)) % self.history
        by_step, by_change = (rows @ y for rows in self.changes)
        self.products[0][:, row] = by_step
        self.products[1][:, row] = self.products[1][row] = by_change

    def _descent(self, g: Tensor) -> Tensor:
        if not self.inverse or self.changes is None or self.products is None:
            return super()._descent(g)
        count, first = len(self.inverse), self.oldest
        s, y = (rows[:count] for rows in self.changes)
        # Oldest first.
        steps, squares = (m[:count, :count].roll((-first, -first), (0, 1)) for m in self.products)
        of_s, of_y = ((rows @ g).roll(-first)[:, None] for rows in (s, y))
        steps = steps.triu()
        p = torch.linalg.solve_triangular(steps, of_s, upper=True)
        q = steps.diagonal()[:, None] * p + self.scale * (squares @ p - of_y)
        q = torch.linalg.solve_triangular(steps.T, q, upper=False)
        p, q = (v[:, 0].roll(first) for v in (p, q))
        return (y.T @ p - g).mul_(self.scale).sub_(s.T @ q)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor | float]) -> Tensor | float:
        x = self._flat(self.params)
        trial = torch.empty_like(x)
        views = self._views(trial)

        def along(t: float, *others: Tensor) -> tuple[Point, list[float]]:
            torch.add(x, d, alpha=t, out=trial)
            torch._foreach_copy_(self.params, views)  # pyright: ignore[reportPrivateImportUsage]
            value, gradient = self._evaluate(closure)
            numbers = _read(value, gradient.dot(d), *_products(gradient, g, d), *others)
            value, slope, by_slope, *rest = numbers[:6]
            point = Point(t, value, gradient, slope, (t * by_slope, *rest))
            return point if slope - slope == 0 else point._replace(value=float("inf")), numbers[6:]

        most = self.evaluations + self.max_eval
        first, g = self._evaluate(closure)
        f, *products = _read(first, *_products(g, *(self.last or (g, g))[::-1]))
        for _ in range(self.max_iter):
            curvature, square, length, largest = products
            if not length > 0 or (self.tolerance_grad > TINY and largest <= self.tolerance_grad):
                break
            if self.last is not None:
                self._remember(self.last[0], g - self.last[1], curvature, square)
            while True:
                d = g.neg() if self.last is None else self._descent(g)
                t = self.lr if self.last is not None else min(1.0, 1.0 / length) * self.lr
                left = most - self.evaluations
                point, (slope, largest) = along(t, g.dot(d), d.abs().max())
                if slope < -self.tolerance_change or not self.inverse:
                    break
                self.forget()  # the history is of a function that has changed since
            if not slope < -self.tolerance_change:
                break
            trials = iter([point])
            start = Point(0.0, f, g, slope)
            found = strong_wolfe(lambda t: next(trials, None) or along(t)[0], start, t, largest, left)  # noqa: B023
            x.add_(d, alpha=found.t)
            self.last, before = (d.mul_(found.t), g), f
            f, g, products = found.value, found.gradient, found.products
            if found.t == 0:  # no better point on this line: start again from the gradient
                self.forget()
                break
            if self.evaluations >= most or abs(f - before) < self.tolerance_change:
                break
            if self.tolerance_change > TINY and largest * abs(found.t) <= self.tolerance_change:
                break
        torch._foreach_copy_(self.params, self._views(x))  # pyright: ignore[reportPrivateImportUsage]
        return first


def lbfgs(params: Iterable[Tensor], **options: Any) -> LBFGS:
    """The LBFGS for the device of these parameters."""
    params = list(params)
    return (LBFGS if all(p.is_cpu for p in params) else DeviceLBFGS)(params, **options)


def _products(gradient: Tensor, before: Tensor, step: Tensor) -> list[Tensor]:
    """Of a gradient and the one before a step: the curvature y s along the step, y y, sum |g| and max |g|."""
    change, size = gradient - before, gradient.abs()
    return [change.dot(step), change.dot(change), size.sum(), size.max()]


def _read(*values: Tensor | float) -> list[float]:
    """Numbers, those on a device in one wait."""
    read = iter(on_host(*(v for v in values if isinstance(v, Tensor))))
    return [float(next(read) if isinstance(v, Tensor) else v) for v in values]
