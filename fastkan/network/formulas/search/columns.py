"""Columns: the values of many expressions of the inputs, their costs, and how each is written."""

import heapq
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

# Description of an expression: ("power", exponents of all inputs), (function, description), or an operation.
Description = tuple

# The cost of a power of an input, in arbitrary units.
POWERS = {1: 0.7, -1: 0.9, 2: 1.5, -2: 1.8, 0.5: 2.0, -0.5: 2.4, 3: 2.4, -3: 2.8, 4: 3.0, -4: 3.4}
MOST_INPUTS = 5  # of one monomial
LARGEST = 1e12
DIGITS = 5  # in which two columns that are the same agree


class Columns:
    """values [rows, columns], costs [columns], and describe(column), a Description."""

    def __init__(self, values: Tensor, costs: Tensor, describe: Callable[[int], Description]):
        self.values, self.costs, self.describe = values, costs, describe

    def __len__(self) -> int:
        return len(self.costs)

    def take(self, indices: Tensor) -> "Columns":
        return Columns(self.values[:, indices], self.costs[indices], lambda c: self.describe(int(indices[c])))

    def first(self, count: int) -> "Columns":
        return self.take(torch.arange(min(len(self), count)))

    def cheapest(self, count: int | None = None) -> "Columns":
        """Those that are finite, of moderate size and not constant, in the order of their costs."""
        largest = self.values.abs().amax(0)
        usable = (largest < LARGEST) & (self.values.std(0) > 1e-9 * largest)
        indices = usable.nonzero()[:, 0]
        return self.take(indices[torch.argsort(self.costs[indices], stable=True)][:count])


def join(parts: Sequence[Columns]) -> Columns:
    """The columns of all parts."""
    ends = torch.tensor([len(part) for part in parts]).cumsum(0).tolist()

    def describe(c: int) -> Description:
        part = bisect_right(ends, c)
        return parts[part].describe(c - (ends[part - 1] if part else 0))

    return Columns(torch.cat([p.values for p in parts], 1), torch.cat([p.costs for p in parts]), describe)


def distinct(values: Tensor, costs: Tensor, basis: Tensor) -> Tensor:
    """Indices of finite columns that differ by more than a factor and the basis [rows, n]; the cheapest of equals."""
    finite = values.isfinite().all(0).nonzero()[:, 0]
    v, costs = values[:, finite], costs[finite]
    q = torch.linalg.qr(basis)[0]
    probes = torch.randn(len(v), 2, dtype=v.dtype, generator=torch.Generator().manual_seed(0))
    probes = probes - q @ (q.T @ probes)
    dots = v.T @ probes
    rest = (v.square().sum(0) - (q.T @ v).square().sum(0)).clamp_min(0).sqrt()
    outside = rest > 1e-6 * v.norm(dim=0)
    keys = (dots / rest[:, None] * dots[:, :1].sign()).mul(10.0**DIGITS).round().long()
    seen, kept = set(), []
    for c in torch.argsort(costs, stable=True).tolist():
        key = tuple(keys[c].tolist())
        if outside[c] and key not in seen:
            seen.add(key)
            kept.append(c)
    return finite[torch.tensor(kept, dtype=torch.long)]


def inputs(x: Tensor, columns: Sequence[int]) -> Columns:
    """The inputs themselves."""
    unit = torch.eye(x.shape[1]).tolist()
    costs = x.new_full((len(columns),), POWERS[1])
    return Columns(x[:, list(columns)], costs, lambda c: ("power", tuple(unit[columns[c]])))


def monomials(x: Tensor, columns: Sequence[int], count: int) -> Columns:
    """The cheapest products of powers of some inputs."""
    options = []
    for i, column in enumerate(x.T):
        allowed = [p for p in POWERS if i in columns and _is_finite(column, p)]
        options.append([(0.0, 0.0), *sorted((POWERS[p], float(p)) for p in allowed)])
    found = _cheapest_choices(options, count)
    exponents = x.new_tensor([powers for _, powers in found]).view(-1, x.shape[1])
    costs = x.new_tensor([cost for cost, _ in found])
    return Columns(products_of_powers(x, exponents), costs, lambda c: ("power", found[c][1]))


def _is_finite(column: Tensor, power: float) -> bool:
    """Whether the power of all values is a finite real number."""
    if power % 1:
        return bool((column >= 0 if power > 0 else column > 0).all())
    return power > 0 or bool((column != 0).all())


def _cheapest_choices(options: list[list[tuple[float, float]]], count: int) -> list[tuple[float, tuple[float, ...]]]:
    """(cost, exponents) of `count` monomials in the order of their costs."""
    start: tuple[int, ...] = (0,) * len(options)
    queue: list[tuple[float, tuple[int, ...]]] = [(0.0, start)]
    seen: set[tuple[int, ...]] = {start}
    found = []
    while queue and len(found) <= count:
        cost, choice = heapq.heappop(queue)
        found.append((cost, tuple(options[i][n][1] for i, n in enumerate(choice))))
        for i, at in enumerate(choice):
            after = (*choice[:i], at + 1, *choice[i + 1 :])
            if at + 1 < len(options[i]) and after not in seen and sum(map(bool, after)) <= MOST_INPUTS:
                seen.add(after)
                heapq.heappush(queue, (sum(options[j][n][0] for j, n in enumerate(after)), after))
    return found[1:]


def products_of_powers(x: Tensor, exponents: Tensor) -> Tensor:
    """prod x_i^p_i for every row of exponents, [rows, len(exponents)]; NaN where it is not real."""
    zero = x == 0
    logs = x.abs().log().masked_fill(zero, -700.0)
    odd, fractional = (exponents.abs() % 2 == 1).to(x.dtype), (exponents % 1 != 0).to(x.dtype)
    negative = (x < 0).to(x.dtype)
    sign = 1 - 2 * ((negative @ odd.T) % 2)
    return (sign * (logs @ exponents.T).exp()).masked_fill(negative @ fractional.T > 0, math.nan)


# Functions of one variable: of torch, and the cost.
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "1 + z": (lambda z: 1 + z, 1.0),
    "1 - z": (lambda z: 1 - z, 1.0),
    "z + 2": (lambda z: z + 2, 2.0),
    "z - 2": (lambda z: z - 2, 2.0),
    "exp(z)": (torch.exp, 1.5),
    "exp(z) - 1": (torch.expm1, 2.0),
    "exp(z) + 1": (lambda z: z.exp() + 1, 2.2),
    "log(z)": (torch.log, 1.5),
    "log(1 + z)": (torch.log1p, 2.2),
    "cos(z)": (torch.cos, 1.5),
    "sin(z)": (torch.sin, 1.5),
    "1 - cos(z)": (lambda z: 1 - z.cos(), 2.0),
    "1 + cos(z)": (lambda z: 1 + z.cos(), 2.2),
    "cos(2*z)": (lambda z: (2 * z).cos(), 2.0),
    "sin(2*z)": (lambda z: (2 * z).sin(), 2.0),
    "cos(pi*z)": (lambda z: (math.pi * z).cos(), 2.0),
    "sin(pi*z)": (lambda z: (math.pi * z).sin(), 2.0),
    "tanh(z)": (torch.tanh, 2.0),
    "cosh(z)": (torch.cosh, 2.0),
    "sinh(z)": (torch.sinh, 2.2),
    "atan(z)": (torch.atan, 2.2),
    "asin(z)": (torch.asin, 2.2),
    "Abs(z)": (torch.abs, 1.5),
}
SHIFTS = ("1 + z", "1 - z", "z + 2", "z - 2")
# Shifts of single inputs; those between are found from these by least squares.
MORE_SHIFTS = tuple(f"z {sign} {c}" for c in ("1/3", "1/2", "2/3", "3/2", "3", "4", "6", "10") for sign in "+-")
for _form in MORE_SHIFTS:
    _sign, _constant = (1 if "+" in _form else -1), float(Fraction(_form.split()[-1]))
    FUNCTIONS[_form] = (lambda z, c=_sign * _constant: z + c, 2.5)
# Waves of more frequencies, for single inputs; those between are found from these by least squares.
FREQUENCIES = ("3*z", "4*z", "5*z", "6*z", "8*z", "2*pi*z", "3*pi*z", "4*pi*z", "5*pi*z")
for _argument in FREQUENCIES:
    _factor = math.prod(math.pi if part == "pi" else float(part) for part in _argument.split("*")[:-1])
    FUNCTIONS[f"cos({_argument})"] = (lambda z, k=_factor: (k * z).cos(), 2.5)
    FUNCTIONS[f"sin({_argument})"] = (lambda z, k=_factor: (k * z).sin(), 2.5)
WAVES = tuple(name for name in FUNCTIONS if name[:4] in ("cos(", "sin("))
SMOOTH = tuple(name for name in FUNCTIONS if name not in (*SHIFTS, *MORE_SHIFTS, *WAVES[6:], "Abs(z)"))


def functions(names: Sequence[str], of: Columns) -> Columns:
    """Every function of every column."""

    def one(name: str) -> Columns:
        function, cost = FUNCTIONS[name]
        return Columns(function(of.values), of.costs + cost, lambda c: (name, of.describe(c)))

    return join([one(name) for name in names])


def powers(of: Columns, exponents: Sequence[float]) -> Columns:
    """Every power of every column; NaN where it is not real."""

    def one(p: float) -> Columns:
        values = of.values if p % 1 == 0 else of.values.masked_fill(of.values < 0, math.nan)
        return Columns(values**p, of.costs + POWERS[p], lambda c: ("**", of.describe(c), p))

    return join([one(p) for p in exponents])


def sums(of: Columns) -> Columns:
    """The sum and the difference of every two columns."""
    i, j = torch.triu_indices(len(of), len(of), 1)

    def one(sign: int) -> Columns:
        def describe(c: int) -> Description:
            return ("+", of.describe(int(i[c])), sign, of.describe(int(j[c])))

        return Columns(of.values[:, i] + sign * of.values[:, j], of.costs[i] + of.costs[j] + 0.5, describe)

    return join([one(1), one(-1)])


def products(left: Columns, right: Columns) -> Columns:
    """The product of every column with every other."""
    i = torch.arange(len(left)).repeat_interleave(len(right))
    j = torch.arange(len(right)).repeat(len(left))

    def describe(c: int) -> Description:
        return ("*", left.describe(int(i[c])), right.describe(int(j[c])))

    return Columns(left.values[:, i] * right.values[:, j], left.costs[i] + right.costs[j], describe)


def expression(description: Description, symbols: Sequence):
    """The SymPy expression of a description."""
    import sympy

    kind, *parts = description
    if kind == "power":
        return sympy.Mul(*(symbol ** exact(p) for symbol, p in zip(symbols, parts[0], strict=True) if p))
    if kind == "+":
        return expression(parts[0], symbols) + parts[1] * expression(parts[2], symbols)
    if kind == "*":
        return expression(parts[0], symbols) * expression(parts[1], symbols)
    if kind == "**":
        return expression(parts[0], symbols) ** exact(parts[1])
    z = sympy.Symbol("z", real=True)
    function: Any = sympy.sympify(kind, locals={"z": z})  # type: ignore[call-overload]
    return function.subs(z, expression(parts[0], symbols))


def exact(exponent: float):
    """A fraction of small denominator as a SymPy number."""
    import sympy

    fraction = Fraction(exponent).limit_denominator(8)
    return sympy.Rational(fraction.numerator, fraction.denominator)
