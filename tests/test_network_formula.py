"""symbolic_formula evaluated against the model: names, normalizers, recognised numbers, simplification, errors."""

import math
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastkan import KAN
from fastkan.compat.pykan import from_pykan
from fastkan.network.formulas import simplify
from fastkan.network.layers.library import SYMBOLIC_LIB
from support.tiers import long

sympy = pytest.importorskip("sympy")

# Finite and of moderate slope wherever a random network may lead them: no poles, and no ends of domains.
TAME = ("x", "x^2", "x^3", "exp", "sin", "cos", "tanh", "abs", "arctan", "gaussian", "0")


def uniform(*shape: int, seed: int = 0, low: float = -1.0, high: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * (high - low) + low


def values(formulas: list, inputs: list, x: torch.Tensor) -> torch.Tensor:
    """The formulas at the rows of x, by NumPy: [N, outputs]."""
    found = sympy.lambdify(inputs, formulas, "numpy")(*x.numpy().T)
    return torch.stack([torch.from_numpy(np.broadcast_to(np.asarray(f, dtype=float), len(x)).copy()) for f in found], 1)


@torch.no_grad()
def symbolic_network(width, mult_arity, seed: int, names=TAME, sparse: float = 0.7) -> KAN:
    """Random functions, affine parameters and masks on the edges, and no numeric branch."""
    model = KAN(width, mult_arity=mult_arity, seed=seed, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64) * 1.4 - 0.7

    for numeric, symbolic in zip(model.act_fun, model.symbolic_fun, strict=True):
        numeric.mask.zero_()
        choice = torch.randint(len(names), (symbolic.out_dim, symbolic.in_dim), generator=generator).tolist()
        symbolic.funs_name = [[names[n] for n in row] for row in choice]
        symbolic.affine.copy_(draw(*symbolic.affine.shape))
        symbolic.mask = (draw(symbolic.out_dim, symbolic.in_dim) < 1.4 * sparse - 0.7) * (1 + draw(1))
    for name in ("node_bias", "node_scale", "subnode_bias", "subnode_scale"):
        for p in getattr(model, name):
            p.copy_(draw(*p.shape) + ("scale" in name))
    return model


def assert_formula_is_model(model: KAN, x: torch.Tensor, **options) -> None:
    expected = model(x)
    formulas, inputs = model.symbolic_formula(**options)
    found = values(formulas, inputs, x)
    scale = 1 + expected.abs().amax(0)
    assert bool(((found - expected).abs() <= 1e-10 * scale).all()), (found - expected).abs().amax(0) / scale


@st.composite
def shapes(draw):
    depth = draw(st.integers(1, 3))
    width, arities = [[draw(st.integers(1, 3)), 0]], [[]]
    for _ in range(depth):
        n_sum, n_mult = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        n_sum += n_sum + n_mult == 0
        width.append([n_sum, n_mult])
        arities.append([draw(st.integers(1, 4)) for _ in range(n_mult)])
    return width, arities


@pytest.mark.parametrize("examples", [10, *long(40)])
def test_formula_matches_the_model(examples):
    @settings(max_examples=examples, deadline=None)
    @given(shapes(), st.integers(0, 10**6))
    def check(shape, seed):
        width, arities = shape
        assert_formula_is_model(symbolic_network(width, arities, seed), uniform(20, width[0][0], seed=seed))

    check()


def test_two_multiplication_nodes_of_arity_3():
    """pykan takes the wrong factors here."""
    model = KAN([2, [0, 2], 1], mult_arity=3, dtype=torch.float64)
    for l, (i, j, name) in [
        *((0, (i, j, name)) for j, name in enumerate(("x", "sin", "exp", "x^2", "cos", "tanh")) for i in (0, 1)),
        (1, (0, 0, "x")), (1, (1, 0, "x")),
    ]:  # fmt: skip
        model.fix_symbolic(l, i, j, name, fit_params_bool=False, verbose=False)
    x = uniform(30, 2)
    f = [x.sum(1), x.sin().sum(1), x.exp().sum(1), x.square().sum(1), x.cos().sum(1), x.tanh().sum(1)]
    truth = f[0] * f[1] * f[2] + f[3] * f[4] * f[5]
    formulas, inputs = model.symbolic_formula()
    torch.testing.assert_close(values(formulas, inputs, x)[:, 0], truth, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(model(x)[:, 0], truth, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", [n for n in SYMBOLIC_LIB if n != "0"])
def test_every_function(name):
    model = KAN([1, 1], dtype=torch.float64)
    model.fix_symbolic(0, 0, 0, name, fit_params_bool=False, verbose=False)
    model.symbolic_fun[0].set_edge(0, 0, name, (0.6, 0.1, 1.7, -0.3))
    assert_formula_is_model(model, uniform(20, 1, low=0.1, high=0.9))


@pytest.mark.parametrize("width,arity", [([2, 3, 1], 2), ([2, [2, 1], 2], 2), ([3, [1, 1], [1, 1], 1], 2)])
def test_pykans_formula_is_the_same(width, arity):
    kan = pytest.importorskip("kan", reason="pykan is not installed", exc_type=ImportError)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()
    theirs = kan.KAN([w if isinstance(w, int) else list(w) for w in width], mult_arity=arity, auto_save=False).double()
    generator = torch.Generator().manual_seed(3)
    for l in range(theirs.depth):
        for i in range(theirs.width_in[l]):
            for j in range(theirs.width_out[l + 1]):
                name = TAME[int(torch.randint(len(TAME) - 1, (1,), generator=generator))]
                theirs.fix_symbolic(l, i, j, name, fit_params_bool=False, verbose=False, log_history=False)
        affine = theirs.symbolic_fun[l].affine
        affine.data = torch.rand(affine.shape, generator=generator, dtype=torch.float64) - 0.5
    torch.set_rng_state(state), np.random.set_state(numpy_state)
    x = uniform(25, theirs.width_in[0])
    normalizer = [[0.1] * x.shape[1], [1.3] * x.shape[1]]
    outputs = [[0.2] * theirs.width_in[-1], [0.7] * theirs.width_in[-1]]
    expected, _ = theirs.symbolic_formula(normalizer=normalizer, output_normalizer=outputs)
    mine = from_pykan(theirs, exact=True)
    found, inputs = mine.symbolic_formula(normalizer=normalizer, output_normalizer=outputs)
    assert [str(s) for s in inputs] == [f"x_{n + 1}" for n in range(x.shape[1])]
    torch.testing.assert_close(
        values(found, inputs, x), values([sympy.sympify(e) for e in expected], inputs, x), rtol=1e-10, atol=1e-11
    )
    scaled = mine((x - 0.1) / 1.3) * 0.7 + 0.2
    torch.testing.assert_close(values(found, inputs, x), scaled, rtol=1e-10, atol=1e-11)


def hypotenuse() -> KAN:
    model = KAN([2, 1, 1], dtype=torch.float64)
    for i in (0, 1):
        model.fix_symbolic(0, i, 0, "x^2", fit_params_bool=False, verbose=False)
    model.fix_symbolic(1, 0, 0, "sqrt", fit_params_bool=False, verbose=False)
    return model


def test_variables_by_name_and_symbol():
    model = hypotenuse()
    (formula,), inputs = model.symbolic_formula(var=["a", r"\theta_0"])
    a, theta = (sympy.Symbol(name) for name in ("a", r"\theta_0"))
    assert formula == sympy.sqrt(a**2 + theta**2) and inputs == [a, theta]
    assert sympy.latex(formula) == r"\sqrt{\theta_{0}^{2} + a^{2}}"
    p = sympy.Symbol("p", positive=True)
    assert model.symbolic_formula(var=[p, 2 * p], simplify=True)[0][0] == sympy.sqrt(5) * p
    assert str(model.symbolic_formula()[0][0]) == "sqrt(x_1**2 + x_2**2)"


def test_names_are_not_read_as_code():
    (formula,), inputs = hypotenuse().symbolic_formula(var=["x:3, y", "exit()"])
    assert [s.name for s in inputs] == ["x:3, y", "exit()"] and formula.free_symbols == set(inputs)


def test_columns_after_prune_input():
    model = symbolic_network([4, 2, 1], 2, 7, sparse=1.0).prune_input(active_inputs=[3, 1])
    assert_formula_is_model(model, uniform(10, 4))
    (formula,), inputs = model.symbolic_formula()
    assert [str(s) for s in inputs] == ["x_1", "x_2", "x_3", "x_4"]
    assert {str(s) for s in formula.free_symbols} <= {"x_2", "x_4"}
    named, all_named = model.symbolic_formula(var=["u", "v"])[0][0], model.symbolic_formula(var=list("abcd"))[0][0]
    x_2, x_4, u, v, b, d = sympy.symbols("x_2 x_4 u v b d")
    assert named == simplify.substitute(formula, {x_4: u, x_2: v}) and all_named == simplify.substitute(
        formula, {x_4: d, x_2: b}
    )


def test_normalizers_are_those_of_the_variables():
    model = hypotenuse()
    (formula,), inputs = model.symbolic_formula(
        normalizer=(torch.tensor([1.0, 2.0]), np.array([0.5, 4.0])), output_normalizer=[[3.0], [2.0]]
    )
    x = uniform(10, 2)
    expected = model((x - torch.tensor([1.0, 2.0])) / torch.tensor([0.5, 4.0])) * 2 + 3
    torch.testing.assert_close(values([formula], inputs, x), expected, rtol=1e-13, atol=1e-13)


def test_symbolic_branch_that_is_switched_off():
    model = symbolic_network([2, 2], 2, 1)
    model.symbolic_enabled = False
    assert_formula_is_model(model, uniform(5, 2))


def test_numeric_edges_are_named():
    model = hypotenuse()
    model.unfix_symbolic(0, 1, 0)
    with pytest.raises(ValueError, match=r"\(0, 1, 0\) have a numeric branch.*fix_symbolic"):
        model.symbolic_formula()
    (formula,), (x1, x2) = model.symbolic_formula(numeric="function")
    assert formula == sympy.sqrt(x1**2 + sympy.Function("phi_0_1_0")(x2))
    model = hypotenuse()
    model.set_mode(0, 0, 0, "ns")
    with pytest.raises(ValueError, match=r"\(0, 0, 0\) have a numeric branch"):
        model.symbolic_formula()
    with pytest.raises(ValueError, match="and 11 more"):
        KAN([3, 7]).symbolic_formula()


@pytest.mark.parametrize(
    "options,error,text",
    [
        ({"var": ["a"]}, ValueError, "var=.*expected 2 variables"),
        ({"var": ["a", 3]}, TypeError, "var has 3"),
        ({"normalizer": [[0.0, 0.0]]}, ValueError, "normalizer=.*mean, std"),
        ({"normalizer": [[0.0, 0.0], [1.0, 0.0]]}, ValueError, "normalizer=.*2 finite means"),
        ({"output_normalizer": [[0.0, 0.0], [1.0, 1.0]]}, ValueError, "output_normalizer=.*1 finite means"),
        ({"floating_digit": 0.5}, TypeError, "floating_digit=0.5"),
        ({"simplify": -1}, ValueError, "simplify=-1"),
        ({"snap": math.nan}, ValueError, "snap=nan"),
        ({"numeric": "skip"}, ValueError, "numeric='skip'"),
    ],
)
def test_wrong_arguments(options, error, text):
    with pytest.raises(error, match=text):
        hypotenuse().symbolic_formula(**options)


def test_floating_digit():
    model = KAN([1, 1], dtype=torch.float64)
    model.symbolic_fun[0].set_edge(0, 0, "sin", (3.14159, 0.00004, 1.0, 2.71828))
    model.act_fun[0].mask.zero_()
    assert str(model.symbolic_formula(floating_digit=2)[0][0]) == "sin(3.14*x_1) + 2.72"


# Numbers


@pytest.mark.parametrize(
    "value,expected",
    [
        (0.5, "1/2"), (-2.0000000001, "-2"), (1 / 3, "1/3"), (math.pi, "pi"), (-1.5 * math.pi + 1e-9, "-3*pi/2"),
        (0.37, "37/100"), (1e-9, "0"), (22 / 7, "22/7"), (1024.0, "1024"), (math.e, "None"), (math.sqrt(2), "None"),
        (0.2503, "None"),
    ],
)  # fmt: skip
def test_numbers_are_recognised(value, expected):
    assert str(simplify.nearest_fraction(value, 1e-6)) == expected


def test_few_random_numbers_are_taken_for_fractions():
    taken = [simplify.nearest_fraction(v, 1e-6) for v in uniform(2000, seed=4, low=-5, high=5).tolist()]
    assert sum(found is not None for found in taken) <= 20


X, Y = sympy.symbols("x_1 x_2")
F = sympy.Float
WRITTEN = {
    "sqrt(x_1**2 + x_2**2)": 1.3 * sympy.sqrt(0.7 / 1.69 * X**2 / 0.7 + 1 / 1.69 * Y**2 + 1e-11),
    "exp(x_2**2 + sin(pi*x_1))": 1.35
    * sympy.exp(0.5 * (2.0 * Y**2 + 2.0 * sympy.sin(3.14159265358 * X)) - 0.3001045925),
    "x_1*x_2": 0.25 * (X + 1.0 * Y) ** 2 - 0.25 * (X - 1.0 * Y) ** 2,
    "x_1/x_2": 2.0 * sympy.exp(0.5 * (2.0 * sympy.log(3.0 * X) - 2.0 * sympy.log(Y)) - math.log(6)),
    "log(2*x_1 + 3*x_2)": 1.0 * sympy.log(0.2 * X + 0.3 * Y) + math.log(10),
    "exp(-(x_1 - 1)**2/2)": 1.0 * sympy.exp(-((math.sqrt(0.5) * X - math.sqrt(0.5)) ** 2)),
    "3/(2*(x_1/4 + x_2/2 + 1))": 1.5 / (0.25 * X + 0.5 * Y + 1.0),
    "Abs(x_1 - 2*x_2)": 0.5 * sympy.Abs(2.0 * X - 4.0 * Y),
}


@pytest.mark.parametrize("expected", WRITTEN)
def test_redundant_numbers_are_put_where_they_are_recognised(expected):
    assert str(simplify.snap_numbers(WRITTEN[expected], 1e-6)) == expected


@settings(max_examples=12, deadline=None)
@given(st.sampled_from([[2, 2, 1], [2, [1, 1], 1], [1, 2, 1, 1]]), st.integers(0, 10**6))
def test_snapped_formula_is_the_model_within_the_tolerance(width, seed):
    """Numbers of a random network are hardly recognised: what moves them about must not change the function."""
    model = symbolic_network(width, 2, seed, ("x", "x^2", "exp", "sin", "abs", "gaussian", "tanh"))
    x = uniform(20, width[0], seed=seed)
    expected = model(x)
    found = values(*model.symbolic_formula(snap=1e-9), x)
    scale = 1 + expected.abs().amax(0)
    assert bool(((found - expected).abs() <= 1e-5 * scale).all()), (found - expected).abs().amax(0) / scale


# Simplification


def test_simplify_runs():
    model = KAN([2, 1, 1], dtype=torch.float64)
    for i in (0, 1):
        model.fix_symbolic(0, i, 0, "arctanh", fit_params_bool=False, verbose=False)
    model.fix_symbolic(1, 0, 0, "tanh", fit_params_bool=False, verbose=False)
    (formula,), (x, y) = model.symbolic_formula(simplify=True)
    assert formula == (x + y) / (x * y + 1)


def test_simplify_ends_in_time_also_in_a_thread():
    expr = sympy.Add(*(sympy.sin(X * n + Y) ** 3 * sympy.cos(n * Y - X) ** 2 / (1 + n * X**2) for n in range(1, 12)))
    found = []

    def work():
        with pytest.warns(RuntimeWarning, match="0.3 seconds were not enough"):
            found.append(simplify.shortest_form(expr, 0.3))

    started = time.monotonic()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert time.monotonic() - started < 30
    at = {X: 0.3, Y: -0.7}
    assert abs(float(found[0].subs(at)) - float(expr.subs(at))) < 1e-9


def test_simplified_for_real_variables():
    assert simplify.shortest_form(sympy.sqrt(X**2), 5.0) == sympy.Abs(X)
