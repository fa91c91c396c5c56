"""The search of discover: its vocabulary, sparse regression, outer functions, constants, and the whole of it."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from fastkan import KAN
from fastkan.network.formulas import discover
from fastkan.network.formulas.search import columns, constants, outer, pursuit, vocabulary
from fastkan.network.formulas.search.power_factors import power_estimates
from fastkan.network.formulas.search.search import Search, pareto

sympy = pytest.importorskip("sympy")
SYMBOLS = list(sympy.symbols("x_1 x_2 x_3", real=True))


def uniform(rows: int, inputs: int, low: float = 0.5, high: float = 2.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, inputs, generator=generator, dtype=torch.float64) * (high - low) + low


def values(expressions, x: torch.Tensor) -> torch.Tensor:
    return constants.evaluator(SYMBOLS[: x.shape[1]], expressions)(x)


@pytest.mark.parametrize("low", [0.5, -1.0], ids=["positive", "of both signs"])
def test_columns_are_what_they_say(low):
    x = uniform(20, 3, low=low)
    some = vocabulary.summands(x, [0, 1, 2], 0)
    factors, logs = vocabulary.factors(x, [0, 1, 2], 0)
    assert len(some) > 1000 and len(factors) > 1000 and bool(logs.isfinite().all())
    for found in (some, factors):
        chosen = list(range(0, len(found), 37))
        written = values([columns.expression(found.describe(c), SYMBOLS) for c in chosen], x)
        if found is factors:
            sizes = logs[:, chosen].exp()
            torch.testing.assert_close(written.abs(), sizes, rtol=1e-6, atol=1e-9)
        else:
            torch.testing.assert_close(written, found.values[:, chosen], rtol=1e-8, atol=1e-8)


def test_columns_do_not_repeat():
    x = uniform(50, 2)
    found = vocabulary.summands(x, [0, 1], 0).values
    centred = found - found.mean(0)
    cosines = (centred / centred.norm(dim=0)).T @ (centred / centred.norm(dim=0))
    assert int((cosines.abs().triu(1) > 1 - 1e-13).sum()) < 5


def test_powers_of_negative_inputs():
    x = torch.tensor([[-2.0, 3.0], [0.5, -1.0]], dtype=torch.float64)
    found = columns.products_of_powers(x, torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.5, 0.0], [-1.0, 3.0]]).double())
    expected = [[-2.0, 12.0, math.nan, -13.5], [0.5, -0.25, 0.5**0.5, -2.0]]
    torch.testing.assert_close(found, torch.tensor(expected).double(), equal_nan=True)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_sparse_regression_finds_the_columns(count):
    generator = torch.Generator().manual_seed(count)
    a = torch.randn(60, 300, generator=generator, dtype=torch.float64)
    truth = list(range(5, 5 + 7 * count, 7))
    target = a[:, truth] @ torch.linspace(1, 2, count, dtype=torch.float64) + 3
    weights = torch.rand(60, generator=generator, dtype=torch.float64) + 0.1
    unit = float((target - target.mean()).square().sum())
    best = pursuit.pursue(a, torch.ones(300).double(), target, weights, torch.ones(60, 1).double(), 4, unit)[0]
    assert sorted(best.columns) == truth


@pytest.mark.parametrize("function", [outer.IDENTITY, *outer.POWERS, *outer.OTHERS], ids=lambda f: f.form)
def test_outer_functions_invert(function):
    y = torch.linspace(-0.9, 0.9, 50, dtype=torch.float64)
    y = y[function.defined(y) & (y.abs() > 0.05)].requires_grad_()
    z = function.inverse(y)
    (slope,) = torch.autograd.grad(z.sum(), y)
    torch.testing.assert_close(function.slope(y.detach()), slope.abs(), rtol=1e-9, atol=1e-9)
    form = sympy.lambdify(sympy.Symbol("z"), sympy.sympify(function.form), "numpy")
    torch.testing.assert_close(torch.as_tensor(form(z.detach().numpy())), y.detach(), rtol=1e-9, atol=1e-9)


def table(x: torch.Tensor, y: torch.Tensor) -> constants.Table:
    return constants.Table(x, y, SYMBOLS[: x.shape[1]])


def test_expressions_that_are_infinite_have_no_values():
    x = uniform(5, 2)
    found = values([SYMBOLS[0] + sympy.zoo, SYMBOLS[1], sympy.oo * SYMBOLS[0], sympy.nan], x)
    assert found[:, [0, 2, 3]].isnan().all() and torch.equal(found[:, 1], x[:, 1])


def test_constants_are_fitted_and_rounded():
    x = uniform(200, 2)
    noise = 0.01 * torch.randn(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    data = table(x, 2 * torch.exp(-x[:, 0] / 3) + math.pi * x[:, 1] + noise)
    c, d, e = symbols = sympy.symbols("c_0 c_1 c_2", real=True)
    start = constants.Formula(c * sympy.exp(d * SYMBOLS[0]) + e * SYMBOLS[1], symbols, (1.0, -0.1, 1.0), math.inf)
    found = constants.rounded(start, data)
    assert not found.constants
    assert sympy.simplify(found.expression - 2 * sympy.exp(-SYMBOLS[0] / 3) - sympy.pi * SYMBOLS[1]) == 0


@pytest.mark.parametrize(
    ("value", "tolerance", "number"),
    [(0.3333, 1e-3, "1/3"), (3.1416, 1e-4, "pi"), (0.0796, 1e-4, "1/(4*pi)"), (1.2345, 1e-6, None), (0.6, 0.5, None)],
)
def test_simple_numbers(value, tolerance, number):
    found = constants.simple_number(value, tolerance)
    assert found == (number and sympy.sympify(number))


def test_scales_inside_of_functions_are_freed():
    x, _, _ = SYMBOLS
    formula = constants.Formula(sympy.exp(x) * sympy.cos(2 * x), (), (), math.inf)
    loose = constants.loosened(formula)
    assert loose is not None and sorted(map(float, loose.values)) == [0.0, 1.0, 2.0]
    assert sympy.simplify(loose.filled - formula.expression).subs(x, 0.3).evalf() == pytest.approx(0, abs=1e-12)
    k, other = sympy.symbols("k_1 k_3", real=True)  # left of a formula whose other constants were rounded
    again = constants.loosened(constants.Formula(sympy.exp(k * x) + other * sympy.cos(x), (k, other), (1.0, 2.0), 1.0))
    assert again is not None and len(set(again.constants)) == 4
    assert constants.loosened(constants.Formula(x**2, (), (), math.inf)) is None


def test_powers_that_are_factors_are_recognised():
    x = uniform(400, 3)
    found = {e.column: e.power for e in power_estimates(x, x[:, 0] ** 2 * (1 + x[:, 1] * x[:, 2] ** 2))}
    assert found[0] == 2.0


FORMULAS = {
    "three factors": ("x_1*x_2*x_3", -1.0),
    "two products": ("x_1*x_2 + x_3**2", -1.0),
    "a quotient of sums": ("(x_1 + x_2)/(1 + x_1*x_2/x_3**2)", 0.5),
    "a root": ("sqrt(x_1**2 + x_2**2 + x_3**2)", -1.0),
    "a Gaussian": ("exp(-(x_1 - x_2)**2/(2*x_3**2))/x_3", 0.5),
    "an absolute value": ("x_3 + Abs(x_1 - x_2)", -1.0),
    "a wave": ("exp(-x_1)*cos(4*x_2)", -1.0),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_are_found_without_noise(name):
    text, low = FORMULAS[name]
    truth = sympy.sympify(text, locals={str(s): s for s in SYMBOLS})
    inputs = len(truth.free_symbols)
    x = uniform(300, inputs, low=low, high=1.5)
    search = Search(x, values([truth], x)[:, 0], SYMBOLS[:inputs], 0, lambda: 1.0, lambda formula: None)
    assert search.run() and search.best is not None
    other = uniform(100, inputs, low=low, high=1.5, seed=1)
    torch.testing.assert_close(values([search.best.filled], other), values([truth], other), rtol=1e-7, atol=1e-7)


@pytest.mark.long
def test_a_formula_is_found_with_noise_and_noise_is_not_explained():
    x = uniform(500, 3)
    y = x[:, 0] * x[:, 1] / x[:, 2] ** 2
    y = y + 0.1 * y.std() * torch.randn(500, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = KAN.discover((x, y), verbose=False)
    assert str(found.formulas[0]) == "x_1*x_2/x_3**2" and not found.exact
    torch.testing.assert_close(found.model(x)[:, 0], x[:, 0] * x[:, 1] / x[:, 2] ** 2)
    assert found.front[-1][1] < 0.2 and len(found.front) > 1
    assert [error for _, error in found.front] == sorted((error for _, error in found.front), reverse=True)


def test_the_time_limit_is_kept(monkeypatch):
    x = uniform(100, 3, low=-1)
    y = torch.sin(5 * x[:, 0] * x[:, 1] + torch.tanh(3 * x[:, 2] + x[:, 0])) + torch.exp(x[:, 1] * x[:, 2])
    seconds = itertools.count()
    monkeypatch.setattr(discover, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    found = KAN.discover((x, y), verbose=False, simplify=False, time_limit=30.0)
    assert next(seconds) < 50 and not found.exact and 0 < found.error < 2
    with pytest.raises(ValueError, match="time_limit=-1"):
        KAN.discover((x, y), time_limit=-1)


def test_an_interruption_returns_the_best_formula_so_far(monkeypatch):
    x = uniform(100, 2)
    monkeypatch.setattr(Search, "_product_scans", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    found = KAN.discover((x, x[:, 0]), verbose=False)
    assert found.formulas[0].is_number


def test_the_front_has_no_formula_that_another_beats():
    x = SYMBOLS[0]
    formulas = [constants.Formula(e, (), (), error) for e, error in ((x, 0.5), (x**2 + x, 0.6), (sympy.sin(x), 0.1))]
    assert pareto(formulas) == [formulas[0], formulas[2]]
