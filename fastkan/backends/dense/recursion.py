"""All B-splines of few functions by the Cox-de Boor recursion, for tracers: a compiler fuses it into one loop."""

import torch
from torch import Tensor

from ...basis.bspline import OUTSIDE
from ...spec import Spec
from ...transforms import by_jit


class Recursion:
    """Every function at each x: x [N, I], grid [I, M]; on any knots, in the dtype of x.

    One tensor [N, I] a function and level, and no indices: all operators are elementwise and differentiable.
    """

    def __init__(self, x: Tensor, grid: Tensor, spec: Spec):
        self.degree, self.outside = spec.degree, OUTSIDE[spec.outside]
        knots, last = grid.T, grid.shape[1] - 1
        self.t = t = _kept(knots.to(x.dtype))
        low, high = t[self.degree], t[last - self.degree]
        nan = x.isnan()
        self.fill = torch.where(nan, x, 0.0)
        x = torch.where(nan, 0.0, x)
        low, high = (t[0], t[last]) if self.outside == "zero" else (low, high)
        self.end = torch.minimum(torch.maximum(x, low), high)
        self.beyond = x - self.end
        # The right end of the grid range belongs to the span before it.
        high = t[last - self.degree]
        at = x if self.outside == "zero" else self.end
        at = torch.where(at == high, _kept(torch.where(t < high, t, -torch.inf).amax(0)), at)
        above = [torch.where(at >= knot, 1.0, 0.0).to(x.dtype) for knot in t]
        self.spans = [a - b for a, b in zip(above[:-1], above[1:], strict=True)]
        widths = [knots[r:] - knots[:-r] for r in range(1, self.degree + 1)]  # t_{f+r} - t_f
        # Empty supports contribute nothing.
        self.over = [_kept(torch.where(width > 0, 1 / width, 0.0).to(x.dtype)) for width in widths]

    def values(self, order: int) -> list[Tensor]:
        """Derivatives of all functions, [N, I] each. A NaN in x makes those of the first span NaN."""
        y = self._within(order)
        if self.outside == "linear" and order == 0:
            slopes = self._within(1)  # 0 also where x is infinite
            y = [b + torch.where(slope == 0, 0.0, self.beyond * slope) for b, slope in zip(y, slopes, strict=True)]
        elif self.outside != "zero" and order > (self.outside == "linear"):
            y = [torch.where(self.beyond == 0, b, 0.0) for b in y]
        return [b + self.fill if f <= self.degree else b for f, b in enumerate(y)]

    def _within(self, order: int) -> list[Tensor]:
        """Derivatives by B_{f,r} = (x - t_f) q_f + (t_{f+r+1} - x) q_{f+1}, B'_{f,r} = r (q_f - q_{f+1}).

        q_f = B_{f,r-1} / (t_{f+r} - t_f). Source: de Boor, A Practical Guide to Splines, chapters IX and X.
        """
        if order > self.degree:
            return [torch.zeros_like(self.end)] * (len(self.spans) - self.degree)
        y = self.spans
        for r, over in enumerate(self.over, start=1):
            q = [b * o for b, o in zip(y, over, strict=True)]
            pairs = list(zip(q[:-1], q[1:], strict=True))
            if r > self.degree - order:
                y = [r * (a - b) for a, b in pairs]
            else:
                y = [(self.end - self.t[f]) * a - (self.end - self.t[f + r + 1]) * b for f, (a, b) in enumerate(pairs)]
        return y


def _kept(t: Tensor) -> Tensor:
    """t, which torch.compile then computes once, not again for every element that reads it."""
    if by_jit() or not torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return t
    t = t.contiguous()
    return t.as_strided(t.shape, t.stride())
