"""The search of discover: groups of inputs, oscillations, terms of the same kind, and formulas for classes."""

import math

import pytest
import torch

from fastkan import KAN
from fastkan.network.formulas.search.composition import Group, compositions
from fastkan.network.formulas.search.constants import Formula, Labels, fitted, measured
from fastkan.network.formulas.search.oscillations import oscillations
from fastkan.network.formulas.search.search import Search

sympy = pytest.importorskip("sympy")
A, B, C, D, E = SYMBOLS = list(sympy.symbols("a b c d e", real=True, positive=True))


def uniform(rows: int, inputs: int, low: float, high: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(rows, inputs, generator=generator, dtype=torch.float64)


def noise(rows: int) -> torch.Tensor:
    return torch.randn(rows, generator=torch.Generator().manual_seed(99), dtype=torch.float64)


def found(f, inputs: int, low: float = 1.0, high: float = 3.0, share: float = 0.0) -> list[tuple[set, object]]:
    """Of every composition the groups, each up to its inverse or sign, and the product."""
    x = uniform(600, inputs, low, high)
    y = f(*x.T)
    y = y + share * y.std() * noise(600)
    result = []
    for composition in compositions(x, y):
        groups = {min((g.expression(SYMBOLS), _opposite(g).expression(SYMBOLS)), key=str) for g in composition.groups}
        result.append((groups, Group(composition.powers, False).expression(SYMBOLS)))
    return result


def _opposite(group: Group) -> Group:
    return Group({i: -p for i, p in group.powers.items()}, group.linear)


@pytest.mark.parametrize("share", [0.0, 0.01], ids=["exact", "noise"])
def test_a_product_of_powers_and_a_function_of_one_group(share):
    (groups, product), *_ = found(lambda a, b, c, d, e: a**2 / b * torch.tanh(c * d / e), 5, share=share)
    assert groups == {C * D / E} or groups == {E / (C * D)}
    rest = sympy.powsimp(product / (A**2 / B))
    assert not rest.has(A, B), "the power of the group's own inputs is in the function"


def test_differences_and_single_inputs():
    cases = found(lambda a, b, c: 2 + torch.cos(a - b) * c**2, 3)
    assert any(groups == {min(A - B, B - A, key=str), C} or A - B in groups or B - A in groups for groups, _ in cases)
    assert not found(lambda a, b: torch.sin(3 * a) + b * a, 2, -1.0, 1.0), "nothing to merge"
    assert not found(lambda a, b, c: noise(600), 3), "nothing to see"


def test_groups_that_can_not_be_merged():
    """A product of an input that is negative somewhere with a sum of others."""
    x = uniform(300, 4, -1.0, 3.0)
    x[:, 0] = x[:, 0].abs() + 0.1
    y = torch.sin(x[:, 1] + x[:, 2]) * x[:, 0] + 0.01 * x[:, 3]
    for of in (y, y.round(), torch.zeros_like(y), y.abs(), y.sign()):
        for composition in compositions(x, of):
            assert all(group.powers for group in composition.groups)
    assert compositions(x[:5], y[:5]) is not None and compositions(x[:, :1], y) == []


@pytest.mark.parametrize(
    ("f", "inputs", "expected"),
    [
        (lambda a, b, c, d, e: a * b / (torch.exp(b * c / (d * e)) - 1), 5, A * B / (sympy.exp(B * C / (D * E)) - 1)),
        pytest.param(lambda a, b, c, d, e: a * (b + c * d**2 / e), 5, A * (B + C * D**2 / E), marks=pytest.mark.long),
        pytest.param(
            lambda a, b, c, d, e: a / ((b - c) ** 2 + (d - e) ** 2 + 1),
            5,
            A / ((B - C) ** 2 + (D - E) ** 2 + 1),
            marks=pytest.mark.long,
        ),
    ],
    ids=["Bose-Einstein", "a sum", "differences"],
)
def test_functions_of_groups_are_found(f, inputs, expected):
    x = uniform(500, inputs, 1.0, 3.0)
    result = KAN.discover((x, f(*x.T)[:, None]), var=SYMBOLS, verbose=False, simplify=False, time_limit=None)
    assert result.exact
    rows = uniform(50, inputs, 1.0, 3.0, seed=5)
    values = sympy.lambdify(SYMBOLS[:inputs], result.formulas[0] - expected, "numpy")(*rows.numpy().T)
    assert torch.as_tensor(values).abs().max() < 1e-9


@pytest.mark.parametrize(("a", "w", "phase", "size", "c"), [(-0.5, 2.3, 0.4, 1.0, 0.0), (0.2, 11.0, -2.0, 3.0, 7.0)])
def test_oscillations(a, w, phase, size, c):
    t = uniform(300, 1, -1.0, 5.0)[:, 0]
    v = c + size * torch.exp(a * t) * torch.cos(w * t + phase)
    best = oscillations(t, v, torch.ones_like(t))
    # Near enough for Levenberg-Marquardt: the waves differ by less than half of one over the range.
    assert min(abs(of[1] - w) for of in best) < math.pi / 6
    symbols = sympy.symbols("c_0:5", real=True)
    form = symbols[3] * sympy.exp(symbols[0] * A) * sympy.cos(symbols[1] * A + symbols[2]) + symbols[4]
    search = Search(t[:, None], v, [A], 0, lambda: 100.0, lambda formula: None)
    errors = [fitted(measured(Formula(form, symbols, of, math.inf), search.table), search.table)[0] for of in best]
    assert min(formula.error for formula in errors) < 1e-20


@pytest.mark.parametrize("share", [pytest.param(0.0, marks=pytest.mark.long), 0.05], ids=["exact", "noise"])
def test_a_damped_oscillation_of_any_frequency(share):
    t, m = uniform(200, 2, 0.2, 6.0).T
    y = m * torch.exp(-t / 2) * torch.cos(2.3 * t + 0.4)
    y = y + share * y.std() * noise(200)
    result = KAN.discover((torch.stack([t, m], 1), y[:, None]), var=[A, B], verbose=False, simplify=False)
    expected = B * sympy.exp(-A / 2) * sympy.cos(sympy.Rational(23, 10) * A + sympy.Rational(2, 5))
    assert sympy.nsimplify(result.formulas[0] - expected, rational=True).equals(0)


def test_terms_of_the_same_kind():
    """None of them is near the sum."""
    x = uniform(200, 4, -1.0, 1.0)
    y = torch.tanh(3 * (x**4).sum(1) - 2)
    result = KAN.discover((x, y[:, None]), var=SYMBOLS[:4], verbose=False, simplify=False, time_limit=None)
    expected = sympy.tanh(3 * (A**4 + B**4 + C**4 + D**4) - 2)
    assert result.exact and sympy.expand(result.formulas[0].args[0] - expected.args[0]) == 0


# Classes


def labels(odds: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return (torch.rand(len(odds), generator=generator, dtype=odds.dtype) < odds.sigmoid()).long()


def test_constants_of_labels_are_those_of_logistic_regression():
    x = uniform(400, 2, -1.0, 1.0)
    y = labels(2 * x[:, 0] - x[:, 1] + 0.5).double()
    table = Labels(x, y, [A, B])
    c = sympy.symbols("c_0:3", real=True)
    start = Formula(c[0] * A + c[1] * B + c[2], c, (0.0, 0.0, 0.0), math.inf)
    fit, _ = fitted(measured(start, table), table)
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    design = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    optimizer = torch.optim.LBFGS([w], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = table.y.numel() * torch.nn.functional.binary_cross_entropy_with_logits(design @ w, y)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert list(fit.values) == pytest.approx(w.tolist(), abs=2e-3)  # the penalty moves them by less
    assert table.merit(fit) < table.merit(measured(start, table))


def test_classification_of_two():
    x = uniform(1000, 2, -1.0, 1.0)
    y = labels(12 * x[:, 0] - 4 * x[:, 1] + 3)
    result = KAN.discover((x, y), var=[A, B], task="classification", verbose=False, simplify=False, time_limit=10.0)
    (formula,) = result.formulas
    assert result.error < 0.2 and result.front and not result.exact
    rows = uniform(2000, 2, -1.0, 1.0, seed=8)
    odds = torch.as_tensor(sympy.lambdify([A, B], formula, "numpy")(*rows.numpy().T))
    truth = 12 * rows[:, 0] - 4 * rows[:, 1] + 3
    assert float(((odds > 0) == (truth > 0)).double().mean()) > 0.95
    logits = result.model(x)
    torch.testing.assert_close(
        logits[:, 0], torch.as_tensor(sympy.lambdify([A, B], formula, "numpy")(*x.numpy().T)), rtol=1e-6, atol=1e-6
    )


@pytest.mark.long
def test_classification_of_three():
    x = uniform(400, 1, -1.0, 1.0)
    y = torch.bucketize(x[:, 0].contiguous(), torch.tensor([-0.4, 0.3], dtype=x.dtype)) + 5
    result = KAN.discover((x, y), task="classification", verbose=False, simplify=False, time_limit=10.0)
    assert len(result.formulas) == 3 and result.error < 0.05


def test_labels_of_nothing_are_a_constant():
    x = uniform(300, 2, -1.0, 1.0)
    result = KAN.discover((x, labels(x[:, 0] * 0)), task="classification", verbose=False, simplify=False)
    assert not result.formulas[0].free_symbols


def test_wrong_tasks():
    x = uniform(60, 2, -1.0, 1.0)
    with pytest.raises(ValueError, match="task='classes': expected 'regression' or 'classification'"):
        KAN.discover((x, x[:, :1]), task="classes")
    with pytest.raises(ValueError, match="different values: expected one column of 2 to 20 classes"):
        KAN.discover((x, x[:, :1]), task="classification")
    with pytest.raises(ValueError, match="expected neither with task='classification'"):
        KAN.discover((x, x[:, 0] > 0), task="classification", lib=["x"])
