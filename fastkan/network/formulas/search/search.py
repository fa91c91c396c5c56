"""Search: formulas y = p g(z) for one output, p a product of powers, g an outer function, z a sum or a product.

The logarithm of a product is a sum, so that both are found by sparse regression (pursuit.py) on the columns of the
vocabulary, on a part of the rows. The few best are then fitted on all rows, and compared by description length.

Sources: Udrescu and Tegmark, AI Feynman (arXiv 1905.11481), for outer functions and factors; Brunton et al., SINDy
(arXiv 1509.03580), for sparse regression on a vocabulary.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .columns import Columns, exact, expression
from .composition import Composition, Group, compositions
from .constants import Formula, Table, evaluator, fitted, length, loosened, measured, rounded, sum_of_squares
from .oscillations import oscillations
from .outer import IDENTITY, POWERS, Outer, outer_functions
from .power_factors import Factor, power_factors, regression
from .pursuit import pursue
from .vocabulary import alike, factors, logarithms, summands

ROWS = 200  # of the regressions
EXACT = 1e-18  # squared relative error of an exact formula
PLAIN, TRIED = 6, 2  # formulas of every regression and number of columns, without and with an outer function
ROUNDED = 16  # of a level
FITTED, FITTED_ALIKE = 50, 10  # results of the regressions of one kind
LOOSENED = 8  # of a stage
MORE = 10  # formulas that are tried after an exact one, since one of them may be shorter
NEAR = 60.0  # difference of merits within which constants are fitted
SIGNIFICANT = 12.0  # chi^2 beyond what the best of many columns has by chance
NEIGHBOURS, DEVIATIONS = 1000, 4.0  # rows, and standard deviations of their correlation by chance
LARGEST_POWER = 8
ALIKE = 5  # terms of the same kind


class Scan(NamedTuple):
    """One regression: z (of y = factor * g(z) at the scanned rows), root of the weights, and how to write a result."""

    outer: Outer
    factor: Factor
    offset: int
    target: Tensor
    root: Tensor
    columns: Columns
    logs: Tensor | None


class Search:
    """Formulas of one output y [N] of x [N, inputs], float64. formulas: the found ones, by their expressions.

    time_left: seconds, or other units, that remain; report: called with every new best Formula. exact: squared
    relative error of a formula that ends the search.
    """

    most_error = 0.5  # relative squared error of a formula that may be all there is

    def __init__(
        self, x: Tensor, y: Tensor, symbols: list, seed: int, time_left: Callable[[], float], report: Callable,
        exact: float = EXACT,
    ):  # fmt: skip
        self.x, self.y, self.seed, self.time_left, self.report = x, y, seed, time_left, report
        self.exact = exact
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        self.rows = order[:ROWS]
        self.row_unit = sum_of_squares(y[self.rows])
        self.table = Table(x, y, symbols)
        self.formulas: dict[str, Formula] = {}
        self.best: Formula | None = None

    def run(self, levels: int = 3) -> bool:
        """Search until a formula is exact, or leaves nothing to explain (True), or until the time is over (False).

        levels: from 1 to 3, of larger and larger vocabularies.
        """
        import sympy

        constant = sympy.Symbol("c_0", real=True)
        self._consider(Formula(constant, (constant,), (float(self.y.mean()),), 1.0))
        parts = power_factors(self.x, self.y, self.rows, self.table.symbols)
        for level in range(levels):
            self._scan(parts, level, (self._product_scans,))
            if level == 0 and not self._is_exact:
                for found in compositions(self.x, self.y):
                    self._of_groups(found)
            self._scan(parts, level, (self._sum_scans,))
            self._round()
            if self._is_exact or self.time_left() < 0:
                return self._is_exact
            if level > 0 and self._explains_all():
                return True
        return False

    def _scan(self, parts: list[Factor], level: int, kinds: Sequence[Callable]) -> None:
        """The regressions of some kinds on a level."""
        for factor, scans in itertools.product(parts, kinds):
            if self._is_exact or self.time_left() < 0:
                return
            self._try(scans(factor, level))
            if level == 0 and scans == self._sum_scans:
                self._oscillations(factor)

    def _oscillations(self, factor: Factor) -> None:
        """Damped oscillations of every single input."""
        import sympy

        a, w, phase, size, c = sympy.symbols("c_0:5", real=True)
        v = self.y[self.rows] / factor.values
        for i in factor.columns:
            t = self.table.symbols[i]
            wave = size * sympy.cos(w * t + phase)
            forms = [wave, wave + c, sympy.exp(a * t) * wave, sympy.exp(a * t) * wave + c]
            for values in oscillations(self.x[self.rows, i], v, factor.values**2):
                if self._is_exact or self.time_left() < 0:
                    return
                for form in forms:
                    table = {n: v for n, v in zip((a, w, phase, size, c), values, strict=True) if form.has(n)}
                    formula = Formula(factor.expression * form, tuple(table), tuple(table.values()), math.inf)
                    self._keep(fitted(measured(formula, self.table), self.table)[0])

    def _of_groups(self, found: Composition) -> None:
        """Search a function of groups of inputs, of which few are left."""
        import sympy

        groups = [Group(found.powers, False), *found.groups] if found.powers else found.groups
        symbols = [sympy.Symbol(f"z_{n}", real=True) for n in range(len(groups))]
        table = {z: group.expression(self.table.symbols) for z, group in zip(symbols, groups, strict=True)}
        z = torch.stack([group.value(self.x) for group in groups], 1)

        def adopt(formula: Formula) -> None:
            self._keep(formula._replace(expression=formula.expression.xreplace(table)))

        inner = Search(z, self.y, symbols, self.seed, self.time_left, adopt, self.exact)
        one, rest = z.new_ones(len(self.rows)), range(1, len(groups))
        parts = [Factor(one, sympy.Integer(1), list(range(len(groups))))]
        if found.powers:
            parts.insert(0, Factor(z[self.rows, 0], symbols[0], list(rest)))
        for level in range(2):
            inner._scan(parts, level, (inner._product_scans, inner._sum_scans))
            inner._round()

    @property
    def _is_exact(self) -> bool:
        return self.best is not None and self.best.error < self.exact

    def _try(self, scans: Iterator[tuple[Scan, int]]) -> None:
        """Fit the best results of some regressions."""
        found, same = [], []
        for scan, most in scans:
            if self.time_left() < 0:
                return
            basis = logarithms(self.x[self.rows])[1] if scan.logs is not None else self.x.new_ones(len(self.rows), 1)
            values = scan.columns.values if scan.logs is None else scan.logs
            results = pursue(values, scan.columns.costs, scan.target, scan.root**2, basis, most, self.row_unit)
            kept = PLAIN if scan.outer is IDENTITY and not scan.offset else TRIED
            by_size = [[r for r in results if len(r.columns) == size][:kept] for size in range(most + 1)]
            if most == ALIKE:
                same.append((results[0].merit, len(same), scan, results[0].columns))
            else:
                found += [(r.merit, len(found) + n, scan, r.columns) for n, r in enumerate(itertools.chain(*by_size))]
        more, rank = MORE, itemgetter(0, 1)
        best = sorted(found, key=rank)[:FITTED] + sorted(same, key=rank)[:FITTED_ALIKE]
        for _, _, scan, columns in sorted(best, key=rank):
            more -= self._is_exact
            if not more or self.time_left() < 0:
                break
            formula = self._as_sum(scan, columns) if scan.logs is None else self._as_product(scan, columns)
            if formula is not None:
                self._consider(formula)
        for formula in sorted(self.formulas.values(), key=self.table.merit)[:LOOSENED]:
            if self._is_exact or self.time_left() < 0:
                return
            if loose := loosened(formula):
                self._consider(loose)

    def _consider(self, formula: Formula) -> None:
        """Measure a formula, fit its constants if it is near the best, and keep it."""
        if str(formula.expression) in self.formulas:
            return
        formula = measured(formula, self.table)
        least = self.table.merit(self.best) if self.best else math.inf
        if self.exact < formula.error < math.inf and (
            self.table.merit(formula) < least + NEAR or (self.best and formula.error < 3 * self.best.error)
        ):
            formula, _ = fitted(formula, self.table)
        self._keep(formula)

    def _keep(self, formula: Formula) -> None:
        """Add a measured formula."""
        self.formulas[str(formula.expression)] = formula
        if self.best is None or self.table.merit(formula) < self.table.merit(self.best):
            self.best = formula
            self.report(formula)

    def _round(self) -> None:
        """Round the constants of the best formulas."""
        best = sorted(self.formulas.items(), key=lambda item: self.table.merit(item[1]))
        for key, formula in best[:ROUNDED]:
            del self.formulas[key]
            self._keep(rounded(formula, self.table))

    def _explains_all(self) -> bool:
        """Whether what the best formula leaves correlates neither with a column nor with that of the nearest row."""
        assert self.best is not None
        if self.best.error > self.most_error:
            return False
        rest, _ = self.table.slopes(evaluator(self.table.symbols, [self.best.filled])(self.x)[:, 0])
        rest = rest - rest.mean()
        variance, count = float(rest.square().sum()), min(len(rest), NEIGHBOURS)
        columns = summands(self.x, list(range(self.x.shape[1])), 0)
        centred = columns.values - columns.values.mean(0)
        squares = (centred.T @ rest).square() / centred.square().sum(0) / variance
        if float(squares.max()) * len(rest) > 2 * math.log(len(columns)) + SIGNIFICANT:
            return False
        x = (self.x / self.x.std(0).clamp_min(1e-300))[:count]
        nearest = torch.cdist(x, x).fill_diagonal_(math.inf).argmin(1)
        return float(rest[:count] @ rest[nearest]) < DEVIATIONS * variance / len(rest) * count**0.5

    def _product_scans(self, factor: Factor, level: int) -> Iterator[tuple[Scan, int]]:
        """z = offset + c prod x^p prod f^q."""
        v = self.y[self.rows] / factor.values
        if not bool(v.isfinite().all()):
            return
        columns, logs = factors(self.x[self.rows], factor.columns, level)
        for outer in outer_functions(v):
            z, slope, defined = _inverse(outer, v)
            for offset in (0, 1, -1):
                plain = offset == 0
                if (outer in POWERS and plain) or (not plain and level == 2):
                    continue  # powers of a product are products
                deep = outer is IDENTITY or (plain and outer.form != "tanh(z)")
                most = (3 if outer is IDENTITY and plain else 1, 2 if deep else 1, 3 if deep else 1)[level]
                target = torch.where(z == offset, 1e-300, z - offset)
                root = _root(factor.values * target / slope) * defined
                yield Scan(outer, factor, offset, target.abs().log(), root, columns, logs), most

    def _sum_scans(self, factor: Factor, level: int) -> Iterator[tuple[Scan, int]]:
        """z = c_0 + c_1 f_1 + ..."""
        v = self.y[self.rows] / factor.values
        if not bool(v.isfinite().all()):
            return
        columns = summands(self.x[self.rows], factor.columns, level)
        same = alike(self.x[self.rows], factor.columns) if level == 0 else []
        for outer in outer_functions(v):
            z, slope, defined = _inverse(outer, v)
            root = _root(factor.values / slope) * defined
            yield Scan(outer, factor, 0, z, root, columns, None), max(level + 2, 3)
            for terms in same:
                yield Scan(outer, factor, 0, z, root, terms, None), ALIKE

    def _as_sum(self, scan: Scan, chosen: tuple[int, ...]) -> Formula | None:
        """The formula of a sum of columns, with constants from the regression."""
        import sympy

        columns = torch.cat([self.x.new_ones(len(self.rows), 1), scan.columns.values[:, list(chosen)]], 1)
        solution, errors = regression(columns * scan.root[:, None], scan.target * scan.root)
        total, constants, values = sympy.Integer(0), [], []
        for n, (value, error) in enumerate(zip(solution.tolist(), errors.tolist(), strict=True)):
            if n == 0 and abs(value) <= max(3.5 * error, 1e-9 * float(scan.target.abs().max())):
                continue
            constants.append(sympy.Symbol(f"c_{n}", real=True))
            values.append(value)
            part = sympy.Integer(1) if n == 0 else expression(scan.columns.describe(chosen[n - 1]), self.table.symbols)
            total += constants[-1] * part
        return self._formula(scan, total, constants, values) if constants else None

    def _as_product(self, scan: Scan, chosen: tuple[int, ...]) -> Formula | None:
        """The formula of a product, with powers rounded to halves; None if it is not real or has the wrong signs."""
        import sympy

        assert scan.logs is not None
        x = self.x[self.rows]
        bases, logs = logarithms(x)
        columns = torch.cat([logs, scan.logs[:, list(chosen)]], 1)
        estimates = regression(columns * scan.root[:, None], scan.target * scan.root)[0].tolist()
        terms = [(self.table.symbols[i], x[:, i], estimate) for i, estimate in zip(bases, estimates[1:], strict=False)]
        product, constants, values, sign = sympy.Integer(1), [], [], torch.ones_like(scan.root)
        for c, estimate in zip(chosen, estimates[1 + len(bases) :], strict=True):
            description = scan.columns.describe(c)
            if description[0] == "exp(z)":
                constants.append(sympy.Symbol(f"c_{len(constants) + 1}", real=True))
                values.append(estimate)
                product *= sympy.exp(constants[-1] * expression(description[1], self.table.symbols))
            else:
                terms.append((expression(description, self.table.symbols), scan.columns.values[:, c], estimate))
        target = _inverse(scan.outer, self.y[self.rows] / scan.factor.values)[0] - scan.offset
        one_sign = bool((target > 0).all()) or bool((target < 0).all())
        for form, base, power in terms:
            power = half(power)
            if power is None:
                return None
            if power % 1 and bool((base < 0).any()):
                if not bool((base <= 0).all()):
                    return None
                form = -form
            elif power % 2 == 1 and one_sign and bool((base < 0).any()) and bool((base > 0).any()):
                form = sympy.Abs(form)
            elif power % 2 == 1:
                sign = sign * base.sign()
            product *= form ** exact(power)
        agreement = float((sign * target.sign() * scan.root**2).sum() / scan.root.square().sum())
        if abs(agreement) < 0.8:
            return None
        constants.append(sympy.Symbol("c_0", real=True))
        values.append(math.copysign(math.exp(estimates[0]), agreement))
        return self._formula(scan, constants[-1] * product + scan.offset, constants, values)

    def _formula(self, scan: Scan, z: Any, constants: list, values: list[float]) -> Formula:
        """factor * g(z)."""
        import sympy

        symbol = sympy.Symbol("z", real=True)
        outer: Any = sympy.sympify(scan.outer.form, locals={"z": symbol})  # type: ignore[call-overload]
        outer = outer.subs(symbol, z)
        return Formula(scan.factor.expression * outer, tuple(constants), tuple(values), math.inf)


def half(power: float) -> float | None:
    """The nearest multiple of a half, None if it is large."""
    nearest = round(2 * power) / 2
    return nearest if abs(nearest) <= LARGEST_POWER else None


def pareto(formulas: list[Formula]) -> list[Formula]:
    """Those that no other beats in both length and error, from the shortest on."""
    front, least = [], math.inf
    for formula in sorted(formulas, key=lambda f: (length(f.filled), f.error)):
        if formula.error < least * 0.99:
            front.append(formula)
            least = formula.error
    return front


def _inverse(outer: Outer, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z, |dz / dv| and where they are defined; elsewhere those of another row."""
    defined = outer.defined(v)
    v = torch.where(defined, v, v[defined][0])
    return outer.inverse(v), outer.slope(v), defined


def _root(slope: Tensor) -> Tensor:
    """Roots of weights: |dy / dz|, within limits."""
    root, finite = slope.abs(), slope.isfinite()
    root = torch.where(finite, root, root[finite].max() if bool(finite.any()) else 1.0)
    root = root.clamp_max(10 * float(root.median()))
    return root.clamp_min(1e-6 * float(root.max())).clamp_min(1e-150)
