"""Taylor series of functions of x, cut off: from a family's formula to its derivatives of any order.

A family is a formula in a Series, f(u(x)), made of sums, products and the functions below; all its derivatives follow.
Values stay finite at saturation: there is no inverse function and no quotient in them.

Source: Griewank and Walther, Evaluating Derivatives, chapter 13.
"""

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Term = Tensor | float
# Beyond this many units of a family's coordinate all functions that fall or saturate are constant in float64.
REACH = 30.0
# x is at most this, so that its coordinates are finite in float32.
LARGE = 1e30


class Series:
    """terms[k] = f^(k)(x) / k! at every x, k = 0 to order: tensors that broadcast, or numbers; missing ones are 0.

    Operators take Series and numbers; a tensor goes in as `constant`, since torch.compile takes an operator of a tensor
    and another object for the tensor's.
    """

    def __init__(self, terms: Sequence[Term], order: int):
        self.terms, self.order = list(terms)[: order + 1], order

    def map(self, linear: Callable[[Term], Term]) -> "Series":
        """linear(f)."""
        return Series([linear(term) for term in self.terms], self.order)

    def __add__(self, other: "Series | float") -> "Series":
        if not isinstance(other, Series):
            return Series([self.terms[0] + other, *self.terms[1:]], self.order)
        long, short = sorted((self.terms, other.terms), key=len, reverse=True)
        return Series([a + b for a, b in zip(long, short, strict=False)] + long[len(short) :], self.order)

    def __mul__(self, other: "Series | float") -> "Series":
        if not isinstance(other, Series):
            return self.map(lambda term: term * other)
        a, b = self.terms, other.terms
        count = min(self.order + 1, len(a) + len(b) - 1)
        return Series([_convolved(a, b, k) for k in range(count)], self.order)

    def __neg__(self) -> "Series":
        return self * -1.0

    def __sub__(self, other: "Series | float") -> "Series":
        return self + -other

    def __rsub__(self, other: float) -> "Series":
        return -self + other

    __radd__, __rmul__ = __add__, __mul__

    def exp(self) -> "Series":
        """e^f: y' = y f'."""
        y: list[Term] = [torch.exp(self._value())]
        for k in range(1, self.order + 1):
            y.append(self._slope_times(y, k))
        return Series(y, self.order)

    def tanh(self) -> "Series":
        """tanh f: y' = (1 - y^2) f'."""
        y: list[Term] = [torch.tanh(self._value())]
        v: list[Term] = []  # 1 - y^2
        for k in range(1, self.order + 1):
            v.append(float(k == 1) - _convolved(y, y, k - 1))
            y.append(self._slope_times(v, k))
        return Series(y, self.order)

    def sin(self) -> "Series":
        """sin f: with c = cos f, s' = c f' and c' = -s f'."""
        s: list[Term] = [torch.sin(self._value())]
        c: list[Term] = [torch.cos(self._value())] if self.order else []
        for k in range(1, self.order + 1):
            s, c = [*s, self._slope_times(c, k)], [*c, -self._slope_times(s, k)]
        return Series(s, self.order)

    def cos(self) -> "Series":
        """cos f."""
        return (self + math.pi / 2).sin()

    def relu(self) -> "Series":
        """max(f, 0), with the derivatives of 0 where f is 0."""
        positive = (self._value() > 0).to(self._value().dtype)
        return self.map(lambda term: term * positive)

    def _value(self) -> Tensor:
        value = self.terms[0]
        assert isinstance(value, Tensor)
        return value

    def _slope_times(self, y: Sequence[Term], k: int) -> Term:
        """(1 / k) sum_j j f_j y_{k-j}: the k-th term of the integral of f' y."""
        terms = [j * self.terms[j] * y[k - j] for j in range(1, min(k, len(self.terms) - 1) + 1)]
        return sum(terms[1:], terms[0]) / k if terms else 0.0


def _convolved(a: Sequence[Term], b: Sequence[Term], k: int) -> Term:
    """sum_j a_j b_{k-j}."""
    terms = [a[j] * b[k - j] for j in range(max(0, k - len(b) + 1), min(k, len(a) - 1) + 1)]
    return sum(terms[1:], terms[0])


Formula = Callable[[Series, Tensor], Series | list[Series]]
Features = Callable[..., Tensor]


def by_series(formula: Formula) -> Features:
    """The features of a family: d^order/dx^order of all F functions, from their formula.

    formula(x, grid): x as a Series of values [N, I], grid [I, F + 1] with equidistant knots -> all functions as one
    Series [N, I, F], or as a list of F of values [N, I]. The result takes x [N, I], grid and an order, 0 by default,
    and gives [N, I, F] in the dtype of x. NaN makes all functions NaN; infinite x counts as LARGE.
    """

    @functools.wraps(formula)
    def features(x: Tensor, grid: Tensor, order: int = 0) -> Tensor:
        at = Series([torch.nan_to_num(x).clamp(-LARGE, LARGE), 1.0], order)
        found = formula(at, grid)
        if isinstance(found, Series):
            y = _derivative(found, order, (*x.shape, grid.shape[-1] - 1), x)
        else:
            y = torch.stack([_derivative(f, order, x.shape, x) for f in found], -1)
        return torch.where(x.isnan()[..., None], x[..., None], y)

    return features


def _derivative(f: Series, order: int, shape: Sequence[int], like: Tensor) -> Tensor:
    if order >= len(f.terms):
        return like.new_zeros(shape)
    term = f.terms[order] * math.factorial(order)
    return (term if isinstance(term, Tensor) else like.new_full((), term)).expand(shape)


def constant(value: Tensor) -> Series:
    """The function that does not depend on x."""
    return Series([value], 0)


def scaled(x: Series, grid: Tensor) -> Series:
    """z, -1 at the first and 1 at the last knot: [N, I]."""
    first, last = grid[:, 0], grid[:, -1]
    return (x - constant(first)) * constant(2 / (last - first)) - 1.0


def squashed(x: Series, grid: Tensor) -> Series:
    """tanh z, [N, I]: the coordinate of polynomials, which would grow without bounds."""
    return bounded(scaled(x, grid)).tanh()


def centred(x: Series, grid: Tensor, width: Tensor | None = None) -> Series:
    """t = (x - c_f) / width for the F intervals with midpoints c_f: [N, I, F]. width [I, 1]; None for an interval's."""
    functions = grid.shape[-1] - 1
    first, last = grid[:, :1], grid[:, -1:]
    middle = torch.arange(functions, dtype=grid.dtype, device=grid.device) + 0.5
    t = each(x - constant(first[:, 0])) * constant(functions / (last - first)) - constant(middle)
    return bounded(t if width is None else t * constant((last - first) / (functions * width)))


def bounded(t: Series) -> Series:
    """t, its value at most REACH in size."""
    value = t.terms[0]
    assert isinstance(value, Tensor)
    return Series([value.clamp(-REACH, REACH), *t.terms[1:]], t.order)


def each(x: Series) -> Series:
    """x with one more dimension, the last, for functions: [N, I] -> [N, I, 1]."""
    return x.map(lambda term: term[..., None] if isinstance(term, Tensor) else term)


def orthogonal(z: Series, functions: int, step: Callable[[int], tuple[float, float, float]]) -> list[Series]:
    """Polynomials P_0 = 1, P_{n+1} = (a z + b) P_n - c P_{n-1} with a, b, c = step(n)."""
    value = z.terms[0]
    assert isinstance(value, Tensor)
    found = [Series([torch.ones_like(value)], z.order)]
    for n in range(functions - 1):
        a, b, c = step(n)
        following = (z * a + b) * found[n]
        found.append(following - found[n - 1] * c if n else following)
    return found
