"""Compositions: groups of inputs that a function depends on only through their products, powers or differences.

y = p(x) f(z_1, ..., z_m): p a product of powers, and every z a product of powers of some inputs, a sum of some with
signs, or an input. Dimensional analysis gives such groups from the units of the inputs; here they are read off the
data: inputs are merged as long as polynomials of fewer variables fit as well.

Source: Udrescu and Tegmark, AI Feynman (arXiv 1905.11481), section II.F, which tests symmetries by a neural network.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .columns import exact

SHARE = 0.25  # of the rows: the most coefficients of a polynomial
DEGREE = 16
UNEXPLAINED = 0.25  # share of the variance, at most, for a polynomial to tell anything
WORSE = 1.2  # ratio of the residual variances with and without a group less
NEGLIGIBLE = 1e-7  # share of the variance
POWERS = (1, -1, 2, -2, 0.5, -0.5, 3, -3)  # of factors
WITH_SIGN = (1, 2)  # those of inputs of any sign
RATIOS = (1, -1, 2, -2, 0.5, -0.5)
ROWS = 600


class Group(NamedTuple):
    """z = prod x_i^p_i, or sum p_i x_i where linear; powers: {i: p_i}."""

    powers: dict[int, float]
    linear: bool

    def coordinate(self, x: Tensor, logs: Tensor) -> Tensor:
        """log z, or z where linear."""
        source = x if self.linear else logs
        return source[:, list(self.powers)] @ x.new_tensor(list(self.powers.values()))

    def value(self, x: Tensor) -> Tensor:
        if self.linear:
            return self.coordinate(x, x)
        return torch.stack([x[:, i] ** p for i, p in self.powers.items()]).prod(0)

    def expression(self, symbols: list) -> Any:
        import sympy

        if self.linear:
            return sympy.Add(*(exact(p) * symbols[i] for i, p in self.powers.items()))
        return sympy.Mul(*(symbols[i] ** exact(p) for i, p in self.powers.items()))


class Composition(NamedTuple):
    """The groups z, and the powers of the product p, {input: power}."""

    groups: list[Group]
    powers: dict[int, float]


def compositions(x: Tensor, y: Tensor) -> list[Composition]:
    """Compositions of y [N] in terms of x [N, inputs], of at most two approximations: that of the logarithm, and the
    best of the others. Empty where no inputs can be merged."""
    x, y = x[:ROWS], y[:ROWS]
    groups = [Group({i: 1.0}, not bool((column > 0).all())) for i, column in enumerate(x.T)]
    fits = sorted((fit.variance(groups), n, fit) for n, fit in enumerate(_fits(x, y)))
    chosen = [entry for entry in fits if entry[2].free][:1] + [entry for entry in fits if not entry[2].free][:1]
    found = [_merge(groups, error, fit) for error, _, fit in chosen if error < UNEXPLAINED]
    return [c for n, c in enumerate(found) if len(c.groups) < x.shape[1] and c not in found[:n]]


def _merge(groups: list[Group], error: float, fit: "_Fit") -> Composition:
    """Merge groups, or leave them to the product of powers, as long as polynomials fit as well."""
    while len(groups) > 1 and (options := [*_without_one(groups, fit), *_merged(groups)]):
        least, n = min((fit.variance(option), n) for n, option in enumerate(options))
        if not least < WORSE * error + NEGLIGIBLE:
            break
        groups, error = options[n], min(error, least)
    return Composition(groups, fit.powers(groups))


def _fits(x: Tensor, y: Tensor) -> Iterator["_Fit"]:
    """Approximations of the logarithm of y, and of powers of y without the powers of inputs that it has as factors."""
    ones = torch.ones_like(y)
    if bool((y > 0).all()) or bool((y < 0).all()):
        positive = (x > 0).all(0).nonzero()[:, 0].tolist()
        yield _Fit(x, y.abs().log(), (y.abs() / y.abs().median()).clamp_max(3.0), positive, {})
    for powers in ({}, factor_powers(x, y)):
        v = y / Group(powers, False).value(x) if powers else y
        for power in (1, 2, -1, -2):
            target = v.sign().pow(power) * v.abs() ** power
            if power > 0 or bool(v.all()):
                yield _Fit(x, target, ones, [], powers)


def _without_one(groups: list[Group], fit: "_Fit") -> list[list[Group]]:
    """The groups with one left out, which only the product of powers then has."""
    free = [n for n, group in enumerate(groups) if not group.linear and all(i in fit.free for i in group.powers)]
    return [groups[:n] + groups[n + 1 :] for n in free]


def _merged(groups: list[Group]) -> list[list[Group]]:
    """The groups with two merged into one."""
    found = []
    for (n, a), (m, b) in itertools.combinations(enumerate(groups), 2):
        others = [g for k, g in enumerate(groups) if k not in (n, m)]
        if not a.linear and not b.linear:
            for ratio in RATIOS:
                if len(b.powers) > 1 and abs(ratio) != 1 and len(a.powers) > 1:
                    continue
                found.append([*others, Group({**a.powers, **{i: ratio * p for i, p in b.powers.items()}}, False)])
        if _single(a) and _single(b):
            found += [[*others, Group({**a.powers, **{i: s * p for i, p in b.powers.items()}}, True)] for s in (-1, 1)]
    return found


def _single(group: Group) -> bool:
    return len(group.powers) == 1 or group.linear


def factor_powers(x: Tensor, y: Tensor) -> dict[int, float]:
    """Powers of inputs that y has as factors, as far as polynomials of the other inputs show it, {input: power}."""
    x, y = x[:ROWS], y[:ROWS]
    positive = (x > 0).all(0).tolist()
    powers: dict[int, float] = {}
    groups = {i: Group({i: 1.0}, not positive[i]) for i in range(x.shape[1])}
    error = _Fit(x, y, torch.ones_like(y), [], {}).residual(list(groups.values()))
    if not error < UNEXPLAINED * float(y.var()):
        return powers
    while len(groups) > 1:
        tried = []
        for i, p in itertools.product(groups, POWERS):
            if positive[i] or p in WITH_SIGN:
                factor = Group({**powers, i: p}, False).value(x)
                others = [group for j, group in groups.items() if j != i]
                quotient = torch.where(factor == 0, 0.0, y / factor)
                tried.append((_Fit(x, quotient, factor, [], {}).residual(others), i, p))
        least, i, p = min(tried, default=(math.inf, 0, 0.0))
        if not least < WORSE * error + NEGLIGIBLE * float(y.var()):
            break
        powers[i], error = p, min(error, least)
        del groups[i]
    return powers


class _Fit:
    """Polynomials of groups that approximate a target, with logarithms of the inputs `free`; known: powers of inputs
    that are left out of the target. root: of the weights of squared errors."""

    def __init__(self, x: Tensor, target: Tensor, root: Tensor, free: list[int], known: dict[int, float]):
        positive = (x > 0).all(0)
        self.x, self.logs = x, torch.where(positive, x.clamp_min(1e-300).log(), 0.0)
        self.root, self.free, self.known = root, free, known
        self.target = target * root
        spread = self.target - root * (root @ self.target) / (root @ root)
        self.unit = float(spread.square().mean()) or 1.0

    def variance(self, groups: list[Group]) -> float:
        """Of the residual, as a share of that of the target."""
        return self.residual(groups) / self.unit

    def residual(self, groups: list[Group]) -> float:
        """Its variance, weighted."""
        a = self._matrix(groups, self._beside(groups))
        q = torch.linalg.qr(a)[0]
        rest = self.target - q @ (q.T @ self.target)
        return float(rest @ rest) / max(len(a) - a.shape[1], 1)

    def powers(self, groups: list[Group]) -> dict[int, float]:
        """The powers of the inputs beside the polynomial, rounded to halves."""
        beside = self._beside(groups)
        if not beside:
            return self.known
        solution = torch.linalg.lstsq(self._matrix(groups, beside), self.target[:, None], driver="gelsd").solution
        estimates = solution[len(solution) - len(beside) :, 0].tolist()
        return {i: half for i, p in zip(beside, estimates, strict=True) if (half := round(2 * p) / 2)}

    def _beside(self, groups: list[Group]) -> list[int]:
        """The free inputs but for one of each group, whose power the polynomial has."""
        bound = {min(g.powers, key=lambda i: abs(abs(g.powers[i]) - 1)) for g in groups if not g.linear}
        return [i for i in self.free if i not in bound]

    def _matrix(self, groups: list[Group], beside: list[int]) -> Tensor:
        z = torch.stack([g.coordinate(self.x, self.logs) for g in groups], 1) if groups else self.x[:, :0]
        z = (z - z.mean(0)) / z.std(0).clamp_min(1e-300) / 2
        count, most = z.shape[1], SHARE * len(z)
        degree = max(d for d in range(1, DEGREE + 1) if d == 1 or math.comb(count + d, d) <= most)
        columns = [torch.ones_like(z[:, :1])]
        last = [(n, z[:, n : n + 1]) for n in range(count)]
        for _ in range(degree):
            columns += [column for _, column in last]
            last = [(m, column * z[:, m : m + 1]) for n, column in last for m in range(n, count)]
        return torch.cat([*columns, self.logs[:, beside]], 1) * self.root[:, None]
