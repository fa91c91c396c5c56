"""kanpiler: the network of a formula computes the formula, to rounding in float64."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fastkan
from fastkan import KAN, kanpiler
from fastkan.network.layers import library

sp = pytest.importorskip("sympy", reason="SymPy is not installed", exc_type=ImportError)
VARIABLES = x, y, z = sp.symbols("x y z")
POSITIVE = 0.2 + 1.4 * torch.rand(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SIGNED = 2.0 * POSITIVE - 1.8


def truth(expr, rows: torch.Tensor) -> torch.Tensor:
    """The expression by NumPy, [N, 1], or [N, O] of a list of them."""
    expr = expr if isinstance(expr, list) else [expr]
    columns = [sp.lambdify(VARIABLES, e, "numpy")(*rows.T.numpy()) for e in expr]
    return torch.tensor(np.stack([np.broadcast_to(c, len(rows)) for c in columns], 1), dtype=torch.float64)


def exact(model: KAN, expr, rows: torch.Tensor = POSITIVE, digits: float = 1e-13) -> None:
    found, expected = model(rows), truth(expr, rows)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=digits, atol=digits, equal_nan=True)


def compiled(expr, **options) -> KAN:
    return kanpiler(VARIABLES, expr, dtype=torch.float64, **options)


PAPER = [  # the papers' formulas, and the width that they take
    (sp.exp(sp.sin(sp.pi * x) + y**2), [3, 1, 1]),
    (x * y, [3, [0, 1]]),
    (x / y, [3, [0, 1]]),
    (sp.sqrt(x**2 + y**2), [3, 1, 1]),
    ((x + y) / (1 + x * y), [3, [1, 1], [0, 1]]),
    (sp.exp(-((x - y) ** 2) / (2 * z**2)) / sp.sqrt(2 * sp.pi * z**2), [3, 3, [1, 1], [0, 1]]),
    (sp.exp((sp.sin(sp.pi * (x**2 + y**2)) + sp.sin(sp.pi * (y**2 + z**2))) / 2), [3, 2, 1, 1]),
]


@pytest.mark.parametrize(("expr", "width"), PAPER, ids=str)
def test_formulas_of_the_papers(expr, width):
    model = compiled(expr)
    exact(model, expr)
    assert model.width == KAN(width).width
    assert not any(layer.active for layer in model.act_fun)


PYKANS_ERRORS = [  # its compiler raises an error, or makes another function
    x, sp.Integer(3), -x, 2 * x - 1, sp.pi * sp.sqrt(2), x + 1, x**2 + sp.sin(x), (x + y) ** 7, x**0.5, x**-0.5,
    x + sp.sin(x) + sp.exp(x**2 + sp.sin(x)), x**y, 2**x, sp.Rational(1, 3) ** (x * y), x**sp.pi,
]  # fmt: skip
OTHERS = [
    sp.exp(x), 1 / x, x * sp.sin(x), sp.sin(x) ** 2 + sp.cos(x) ** 2 * y, x**2.0, sp.exp(x) / (1 + sp.exp(x)),
    (x + y) * (x - y) * (y + 2 * z), x * y + y * z + x * z, 1 / (1 / x + 1 / y), sp.log(x, 2),
    sp.sin(sp.sin(sp.sin(sp.sin(x)))) + y * z, x + y, sp.sqrt(x**2), sp.Mul(x, x, evaluate=False),
    sp.Pow(x, 0, evaluate=False) + y, x**2 + y**2 + sp.exp(x**2 + y**2), x + y + sp.sin(x + y),
]  # fmt: skip


@pytest.mark.parametrize("expr", PYKANS_ERRORS + OTHERS, ids=str)
def test_any_formula(expr):
    exact(compiled(expr), expr)


@pytest.mark.parametrize("exponent", [*range(-13, 14), 60, -49])
def test_integer_powers(exponent):
    exact(compiled((x - 2) ** exponent), (x - 2) ** exponent, SIGNED)


@pytest.mark.parametrize("exponent", ["1/2", "-1/2", "3/2", "-3/2", "5/2", "1/4", "-7/8", "1/3", "-2/3", "10/7"])
def test_rational_powers(exponent):
    expr = (2 * x + y) ** sp.Rational(exponent)
    exact(compiled(expr), expr)
    assert compiled(expr)(-POSITIVE).isnan().all()
    if sp.Rational(exponent) > 0:
        assert compiled(expr)(torch.zeros(1, 3, dtype=torch.float64)) == 0


@pytest.mark.parametrize("name", library.SYMBOLIC_LIB)
def test_functions_of_the_library(name):
    function = library.SYMBOLIC_LIB[name]
    expr = function.sympy_fn(x / 2)
    model = compiled(expr)
    exact(model, expr)
    torch.testing.assert_close(model(POSITIVE)[:, 0], function(POSITIVE[:, 0] / 2), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", ["sinh", "cosh", "coth", "sech", "csch", "sec", "csc", "cot", "asinh"])
def test_composite_functions(name):
    expr = getattr(sp, name)(x - y) * z
    exact(compiled(expr), expr, SIGNED, 1e-11)


def test_max_min_and_step_functions():
    for expr in (sp.Max(x, y, z), sp.Min(x, y**2), sp.acosh(1 + x), sp.sign(x) * sp.Abs(y)):
        exact(compiled(expr), expr, POSITIVE if expr.func == sp.acosh else SIGNED)


@pytest.mark.parametrize("exprs", [
    [x * y, x + y], [x + y, x * y, 3 * x * z - 2], [x * y, x * y], [x, 2], [sp.exp(sp.exp(x)), y, x * y * z],
], ids=str)  # fmt: skip
def test_several_outputs_in_their_order(exprs):
    exact(compiled(exprs), exprs)


def test_common_subexpressions_are_computed_once():
    assert compiled(sp.sin(x * y) + sp.cos(x * y) + sp.exp(2 * x * y + 1)).width_in == [3, 1, 3, 1]
    assert compiled([sp.sin(x + y), sp.cos(x + y + 1)]).width_in == [3, 1, 2]


@st.composite
def expressions(draw, depth: int = 3):
    """Trees of any shape whose values, and derivatives, are of moderate size on [-1, 1.4]^3."""
    if depth == 0 or draw(st.integers(0, 5)) == 0:
        number = sp.Rational(draw(st.integers(-8, 8)), draw(st.integers(1, 5)))
        return draw(st.sampled_from([x, y, z, x, y, z, number, sp.pi]))
    parts = expressions(depth - 1)
    kind = draw(st.sampled_from(["add", "mul", "unary", "unary", "power", "divide", "exponent"]))
    if kind == "add":
        return draw(parts) + draw(parts) - draw(parts)
    if kind == "mul":
        return draw(parts) * draw(parts)
    bounded = sp.sin(draw(parts))
    if kind == "power":
        return (bounded / 2 + 1) ** sp.Rational(draw(st.integers(-9, 9)), draw(st.integers(1, 4)))
    if kind == "divide":
        return draw(parts) / (bounded + 2)
    if kind == "exponent":
        return (bounded + 2) ** sp.cos(draw(parts))
    unary = [sp.sin, sp.cos, sp.tanh, sp.atan, sp.exp, sp.Abs, sp.asin, sp.atanh, sp.acos, sp.sqrt, sp.log, sp.cosh]
    function = draw(st.sampled_from(unary))
    argument = {sp.asin: bounded / 2, sp.acos: bounded / 2, sp.atanh: bounded / 2, sp.sqrt: bounded + 2}
    return function(argument.get(function, bounded + 2 if function == sp.log else bounded))


@settings(max_examples=60, deadline=None)
@given(st.lists(expressions(), min_size=1, max_size=3))
def test_random_formulas(exprs):
    model = compiled(exprs)
    found, expected = model(SIGNED), truth(exprs, SIGNED)
    scale = expected.abs().amax(0).clamp_min(1.0)
    torch.testing.assert_close(found / scale, expected / scale, rtol=1e-10, atol=1e-10)


def test_the_formula_comes_back():
    expr = sp.exp(sp.sin(sp.pi * x) + y**2) / (1 + x * y) - 2 * z
    (found,), variables = compiled(expr).symbolic_formula()
    values = sp.lambdify(variables, found, "numpy")(*POSITIVE.T.numpy())
    torch.testing.assert_close(torch.tensor(values)[:, None], truth(expr, POSITIVE), rtol=1e-12, atol=1e-12)


def test_matches_pykan_where_pykan_is_right():
    compiler = pytest.importorskip("kan.compiler", reason="pykan is not installed", exc_type=ImportError)
    expr = sp.exp(sp.sin(sp.pi * x) + y**2)
    theirs = compiler.kanpiler([x, y], expr)
    mine = kanpiler([x, y], expr)
    assert theirs.width == mine.width
    rows = POSITIVE[:, :2].float()
    torch.testing.assert_close(mine(rows), theirs(rows), rtol=1e-6, atol=1e-6)


def test_user_functions():
    library.add_symbolic("J0", torch.special.bessel_j0)
    rows = POSITIVE
    model = compiled(sp.besselj(0, x + y) * z)
    torch.testing.assert_close(model(rows)[:, 0], torch.special.bessel_j0(rows[:, 0] + rows[:, 1]) * rows[:, 2])
    assert compiled(sp.besselj(0, x)).symbolic_fun[0].funs_name[0][0] == "J0"
    library.add_symbolic("ramp", torch.nn.functional.softsign)
    model = compiled(sp.Function("ramp")(2 * x) + y)
    torch.testing.assert_close(model(rows)[:, 0], torch.nn.functional.softsign(2 * rows[:, 0]) + rows[:, 1])
    with pytest.raises(ValueError, match=r"expr has besselj\(1, x\)"):
        compiled(sp.besselj(1, x))


def test_wider_deeper_and_trained():
    expr = sp.exp(sp.sin(x) + y**2) * z
    model = compiled(expr, grid=4, k=2, seed=3)
    assert (model.grid, model.k) == (4, 2)
    model.expand_width(1, 2)
    model.expand_width(1, 1, sum_bool=False, mult_arity=3)
    model.expand_depth()
    model.expand_width(2, 1)
    model.perturb(mag=0.1)
    exact(model, expr)
    target = truth(expr, POSITIVE) + 0.1 * torch.sin(3 * POSITIVE[:, :1] * POSITIVE[:, 1:2])
    before = (model(POSITIVE) - target).square().mean().sqrt().item()
    data = {"train_input": POSITIVE, "train_label": target, "test_input": POSITIVE, "test_label": target}
    model.fit(data, steps=8, progress=False)
    assert (model(POSITIVE) - target).square().mean().sqrt().item() < 0.5 * before


def test_only_its_parameters_train():
    expr = sp.sin(2 * x) + y * z
    model = compiled(expr)
    with torch.no_grad():
        model.symbolic_fun[0].affine[model.symbolic_fun[0].mask != 0] += 0.05
    target = truth(expr, POSITIVE)
    data = {"train_input": POSITIVE, "train_label": target, "test_input": POSITIVE, "test_label": target}
    results = model.fit(data, steps=10, progress=False, update_grid=False)
    assert results["train_loss"][-1] < 1e-8


def test_history_begins_with_the_formula():
    model = compiled(x * y, history=True)
    model.perturb(mode="all")
    exact(model.checkout("0.0"), x * y)


@pytest.mark.parametrize(("variables", "expr", "error", "message"), [
    ([x, y], x * z, ValueError, "expr has z: expected the input variables alone, x, y"),
    ([x], sp.Symbol("x", positive=True), ValueError, "other assumptions is another symbol"),
    ([x], sp.gamma(x), ValueError, r"expr has gamma\(x\): expected sums, products, powers and functions"),
    ([x], sp.Piecewise((x, x > 0), (0, True)), ValueError, "expr has Piecewise"),
    ([x], sp.Derivative(sp.Function("f")(x), x), ValueError, "expr has Derivative"),
    ([x], sp.I * x, ValueError, "expr has I: expected real numbers"),
    ([x], sp.oo * x, ValueError, "expected real numbers"),
    ([x], (-2) ** x, ValueError, r"expr has \(-2\)\*\*x: expected a base above 0"),
    ([x], "x + 1", TypeError, "expr='x \\+ 1': expected a SymPy expression"),
    ([x], [], ValueError, "expected an expression, or a list of at least one"),
    ([x], sp.Eq(x, 1), TypeError, "expected a SymPy expression"),
    ([x], None, TypeError, "expr=None"),
    (x, x, TypeError, "input_variables=x: expected a list"),
    (["x"], x, TypeError, "expected SymPy symbols"),
    ([x, x], x, ValueError, "expected different symbols"),
    ([], sp.Integer(1), ValueError, "at least one"),
])  # fmt: skip
def test_inexpressible_models_are_errors(variables, expr, error, message):
    with pytest.raises(error, match=message):
        kanpiler(variables, expr)


def test_sympy_is_needed_here_alone():
    code = (
        "import sys; sys.modules['sympy'] = None; import fastkan\n"
        "fastkan.KAN([2, 1])\n"
        "try: fastkan.kanpiler([], 1)\n"
        "except ImportError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install sympy numpy" in result.stdout
    assert fastkan.kanpiler is fastkan.network.kanpiler
