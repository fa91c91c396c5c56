"""Powers of inputs that y has as factors: from regressions of its logarithm, and from composition.py."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .columns import exact, products_of_powers
from .composition import factor_powers
from .vocabulary import logarithms


class Factor(NamedTuple):
    """A product of powers of inputs that y may have as a factor: values, SymPy expression, and the other inputs."""

    values: Tensor
    expression: Any
    columns: list[int]


def power_factors(x: Tensor, y: Tensor, rows: Tensor, symbols: list) -> list[Factor]:
    """Products of powers that y may have as a factor, the likeliest first; then one without any."""
    import sympy

    estimates = power_estimates(x, y)
    sure = [(e.column, e.power) for e in estimates if e.rest < 3]
    found, taken = [], []
    for powers in (sure, factor_powers(x, y).items(), [(e.column, e.power) for e in estimates]):
        chosen = sorted(powers)
        if not chosen or chosen in taken:
            continue
        taken.append(chosen)
        exponents = x.new_zeros(1, x.shape[1])
        for i, p in chosen:
            exponents[0, i] = p
        values = products_of_powers(x[rows], exponents)[:, 0]
        if not bool((values.isfinite() & (values != 0)).all()):
            continue
        form = sympy.Mul(*(symbols[i] ** exact(p) for i, p in chosen))
        others = [i for i in range(x.shape[1]) if i not in dict(chosen)]
        if others:
            found.append(Factor(values, form, others))
    return [*found, Factor(torch.ones_like(y[rows]), sympy.Integer(1), list(range(x.shape[1])))]


class Estimate(NamedTuple):
    """y is about x_column^power times a function of the others; rest: F statistic of what contradicts it."""

    column: int
    power: float
    rest: float


def power_estimates(x: Tensor, y: Tensor) -> list[Estimate]:
    """The inputs of which y is a power times a function of the others, as far as a regression of log |y| shows it."""
    largest = float(y.abs().max())
    if largest == 0:
        return []
    target = y.abs().clamp_min(1e-12 * largest).log()
    root = (y.abs() / y.abs().median().clamp_min(1e-12 * largest)).clamp_max(3.0)[:, None]
    scaled = (x - x.mean(0)) / x.std(0).clamp_min(1e-300)
    columns, logs = logarithms(x)
    inputs, found = range(x.shape[1]), []
    for n, i in enumerate(columns):
        others = [j for j in inputs if j != i]
        mixed = [scaled[:, j] * scaled[:, k] for j in others for k in others if k >= j]
        known = [logs[:, [0, 1 + n]], logs[:, [1 + m for m, j in enumerate(columns) if j != i]]]
        known += [scaled[:, others], scaled[:, others] ** 3, *(m[:, None] for m in mixed)]
        a, b = torch.cat(known, 1) * root, target * root[:, 0]
        if a.shape[1] >= len(x) // 2:
            continue
        solution, errors = regression(a, b)
        rest = b - a @ solution
        variance = float(rest @ rest) / (len(x) - a.shape[1])
        more = torch.stack([scaled[:, i] ** p for p in (1, 2, 3)] + [scaled[:, i] * scaled[:, j] for j in others], 1)
        more = more * root
        more = more - a @ torch.linalg.lstsq(a, more, driver="gelsd").solution
        gain = more @ torch.linalg.lstsq(more, rest[:, None], driver="gelsd").solution
        power, error = float(solution[1]), float(errors[1])
        nearest = round(2 * power) / 2
        if nearest and abs(power - nearest) < max(4 * error, 0.02) and error < 0.2:
            found.append(Estimate(i, nearest, float(gain.square().sum()) / max(variance, 1e-300) / more.shape[1]))
    return found


def regression(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares: the solution and its standard errors."""
    size = a.norm(dim=0).clamp_min(1e-300)
    scaled = a / size
    solution = torch.linalg.lstsq(scaled, b[:, None], driver="gelsd").solution[:, 0]
    rest = b - scaled @ solution
    variance = float(rest @ rest) / max(len(b) - a.shape[1], 1)
    spread = torch.linalg.pinv(scaled.T @ scaled, hermitian=True).diagonal().clamp_min(0)
    return solution / size, (spread * variance).sqrt() / size
