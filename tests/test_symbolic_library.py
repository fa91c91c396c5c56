"""The library of symbolic functions: values, forms, singularities, pickling, additions."""

import copy
import math
import pickle
import re

import pytest
import sympy
import torch

from fastkan.network.layers import library
from fastkan.network.layers.library import SYMBOLIC_LIB, SymbolicFunction, add_symbolic, get_symbolic, select_symbolic

NAMES = tuple(SYMBOLIC_LIB)
# name: complexity, as pykan 0.2.8 has them
COMPLEXITIES = {
    "x": 1, "x^2": 2, "x^3": 3, "x^4": 3, "x^5": 3, "1/x": 2, "1/x^2": 2, "1/x^3": 3, "1/x^4": 4, "1/x^5": 5,
    "sqrt": 2, "x^0.5": 2, "x^1.5": 4, "1/sqrt(x)": 2, "1/x^0.5": 2, "exp": 2, "log": 2, "abs": 3, "sin": 2, "cos": 2,
    "tan": 3, "tanh": 3, "sgn": 3, "arcsin": 4, "arccos": 4, "arctan": 4, "arctanh": 4, "0": 0, "gaussian": 3,
}  # fmt: skip
POINTS = (-2.5, -1.0, -0.7, -0.31, 0.0, 0.2, 0.55, 0.99, 1.0, 1.4, 3.3)


def test_names_and_complexities():
    assert {name: f.complexity for name, f in SYMBOLIC_LIB.items()} == COMPLEXITIES
    assert all(f.name == name for name, f in SYMBOLIC_LIB.items())


@pytest.mark.parametrize("name", NAMES)
def test_sympy_form_matches_the_function(name):
    function, x = SYMBOLIC_LIB[name], sympy.Symbol("x", real=True)
    form = sympy.sympify(function.sympy_fn(x))
    values = function(torch.tensor(POINTS, dtype=torch.float64)).tolist()
    seen = 0
    for point, value in zip(POINTS, values, strict=True):
        exact = form.subs(x, sympy.Rational(str(point)))
        if exact.is_real and exact.is_finite:
            # 32 roundings: x^5 and its like lose a few units in the last place, tan and 1/x^5 amplify those of x
            assert value == pytest.approx(float(exact), rel=32 * 2.3e-16, abs=1e-15)
            seen += 1
        else:
            assert not math.isfinite(value)
    assert seen >= 5


@pytest.mark.parametrize("name", NAMES)
def test_values_match_pykan(name):
    utils = pytest.importorskip("kan.utils", reason="pykan is not installed")
    fun, form, complexity, singular = utils.SYMBOLIC_LIB[name]
    ours = SYMBOLIC_LIB[name]
    x = torch.cat((torch.tensor(POINTS), torch.linspace(-4, 4, 201)))
    torch.testing.assert_close(ours(x), fun(x), rtol=0, atol=0, equal_nan=True)
    assert ours.complexity == complexity
    z = sympy.Symbol("z")
    assert sympy.sympify(ours.sympy_fn(z)) == sympy.sympify(form(z))
    away = x[(x.abs() > 0.1) & (x.abs() < 0.95)] if name in ("sqrt", "x^0.5", "arctanh") else x
    y_th = torch.tensor(7.0)
    theirs = singular(away.double(), y_th.double())
    theirs = theirs[-1] if isinstance(theirs, tuple) else theirs  # pykan takes [1], which is another thing for two
    torch.testing.assert_close(ours.singular_torch_fn(away.double(), 7.0), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_singularity_avoiding_form(name):
    """Finite with finite gradients anywhere; the function itself where that is small; no jump at the threshold."""
    function, y_th = SYMBOLIC_LIB[name], 10.0
    x = torch.cat((torch.linspace(-4, 4, 40001, dtype=torch.float64), torch.tensor([0.0, 1.0, -1.0, 1e-9, -1e-9])))
    x.requires_grad_()
    y = function.singular_torch_fn(x, y_th)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert y.isfinite().all()
    kink = (x == 0) & torch.tensor(name == "abs")
    assert (slope.isfinite() | kink).all()
    plain = function(x)
    with torch.no_grad():
        alike = plain.isfinite() & (plain.abs() < 0.9 * y_th)
        if name in ("sqrt", "x^0.5"):
            alike &= x > 0.01
        torch.testing.assert_close(y[alike], plain[alike], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("sgn", "arctanh")])
def test_singularity_avoiding_form_is_continuous(name):
    """Along |x|, which 1/x and its like cross at 0 by a line; the threshold of arctanh is too close to 1 to step by."""
    x = torch.logspace(-6, math.log10(2), 100_000, dtype=torch.float64)
    for side in (x, -x):
        y = SYMBOLIC_LIB[name].singular_torch_fn(side, 10.0)
        # steps are 1.5e-4 |x| and slopes at most 101 (tan), 50/|x| (1/x^5), but for arcsin and arccos: sqrt(2 step)
        assert y.diff().abs().max() < 0.05


def test_singularity_avoiding_arctanh_is_continuous():
    edge = math.tanh(3.0)
    x = torch.tensor([edge - 1e-12, edge + 1e-12], dtype=torch.float64)
    y = SYMBOLIC_LIB["arctanh"].singular_torch_fn(torch.cat((x, -x)), 3.0)
    torch.testing.assert_close(y, torch.tensor([3.0, 3.0, -3.0, -3.0], dtype=torch.float64), rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_is_kept(dtype):
    x = torch.tensor([0.25, 0.5], dtype=dtype)
    for function in SYMBOLIC_LIB.values():
        assert function(x).dtype == function.singular_torch_fn(x, 10.0).dtype == dtype, function.name


@pytest.mark.parametrize("name", NAMES)
def test_pickles_by_name(name):
    function = SYMBOLIC_LIB[name]
    data = pickle.dumps(function)
    assert pickle.loads(data) is function
    assert copy.deepcopy(function) is copy.copy(function) is function
    assert len(data) < 120


def test_lookups():
    assert get_symbolic("sin") is get_symbolic(SYMBOLIC_LIB["sin"]) is SYMBOLIC_LIB["sin"]
    assert [f.name for f in select_symbolic()] == list(NAMES)
    assert [f.name for f in select_symbolic(["tan", "x"])] == ["tan", "x"]
    with pytest.raises(KeyError, match=r"name='sine': expected one of 'x', 'x\^2', .*'gaussian'"):
        get_symbolic("sine")
    with pytest.raises(TypeError, match="name=3: expected the name"):
        get_symbolic(3)
    with pytest.raises(TypeError, match="lib='sin': expected a list"):
        select_symbolic("sin")
    with pytest.raises(ValueError, match="at least one function"):
        select_symbolic([])


@pytest.mark.parametrize(
    "fun, form",
    [
        (torch.cosh, sympy.cosh),
        (torch.special.bessel_j0, lambda x: sympy.besselj(0, x)),
        (lambda x: x**2 + 1, lambda x: x**2 + 1),
        (lambda x: x / (1 + torch.exp(-x)), lambda x: x / (1 + sympy.exp(-x))),
        (lambda x: torch.sin(3 * x).square() * 2.0 - x.abs(), lambda x: 2 * sympy.sin(3 * x) ** 2 - sympy.Abs(x)),
        (torch.nn.functional.silu, lambda x: x / (1 + sympy.exp(-x))),
    ],
)
def test_added_functions_have_their_sympy_form(fun, form):
    added = add_symbolic("mine", fun, c=4)
    assert SYMBOLIC_LIB["mine"] is added and added.complexity == 4
    x = sympy.Symbol("x", real=True)
    assert sympy.simplify(added.sympy_fn(x) - form(x)) == 0
    z = torch.tensor([0.3, -2.0])
    assert torch.equal(added(z), fun(z)) and torch.equal(added.singular_torch_fn(z, 10.0), fun(z))
    assert pickle.loads(pickle.dumps(added)) is added


@pytest.mark.parametrize("fun", [lambda x: torch.where(x > 0, x, 2 * x), lambda x: x if x.sum() > 0 else -x])
def test_an_unknown_form_is_a_named_function(fun):
    x = sympy.Symbol("x")
    assert str(add_symbolic("my edge", fun).sympy_fn(2 * x)) == "my_edge(2*x)"


def test_added_singular_form_matches_pykan():
    added = add_symbolic("inv", lambda x: 1 / x, 2, lambda x, y_th: ((), torch.clamp(1 / x, -y_th, y_th)))
    assert added.singular_torch_fn(torch.tensor([0.01, 2.0]), 10.0).tolist() == [10.0, 0.5]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("", torch.sin), "name='': expected a name"),
        (("f", 3), "fun=3: expected a function"),
        (("f", torch.sin, -1), "c=-1: expected a finite complexity"),
        (("f", torch.sin, math.nan), "c=nan: expected a finite complexity"),
        (("f", torch.sin, 1, 5), "fun_singularity=5: expected a function"),
        (("f", torch.sum), "expected an elementwise function"),
    ],
)
def test_wrong_additions(arguments, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        add_symbolic(*arguments)
    assert "f" not in SYMBOLIC_LIB


def test_a_pickle_of_an_unknown_function_says_so():
    data = pickle.dumps(add_symbolic("mine", torch.cosh))
    del SYMBOLIC_LIB["mine"]
    with pytest.raises(KeyError, match="name='mine': expected one of .* or a function added by add_symbolic"):
        pickle.loads(data)


def test_is_frozen():
    with pytest.raises(AttributeError):
        SYMBOLIC_LIB["x"].name = "y"
    assert isinstance(SYMBOLIC_LIB["x"], SymbolicFunction) and library.__doc__


EDGES = {
    "sqrt": 0.0, "x^0.5": 0.0, "x^1.5": 0.0, "log": 0.0, "1/sqrt(x)": 0.0, "1/x^0.5": 0.0, "arcsin": 1.0,
    "arccos": -1.0, "arctanh": 1.0, "1/x": 0.0, "1/x^2": 0.0, "1/x^3": 0.0, "1/x^4": 0.0, "1/x^5": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", EDGES)
def test_gradients_at_the_edge_of_a_domain_are_finite(name, dtype):
    """In the forms without singularities too; a row there leaves the others' gradients as they are."""
    edge, inner = EDGES[name], torch.tensor([0.55, 0.62], dtype=dtype)
    for function in (SYMBOLIC_LIB[name], lambda x: SYMBOLIC_LIB[name].singular_torch_fn(x, 100.0)):
        x = torch.cat([torch.tensor([edge], dtype=dtype), inner]).requires_grad_()
        y = function(x)
        (slope,) = torch.autograd.grad(y[y.isfinite()].sum() + 0 * y[1], x, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), x)
        assert slope.isfinite().all() and curvature.isfinite().all()
        alone = inner.clone().requires_grad_()
        torch.testing.assert_close(slope[1:], torch.autograd.grad(function(alone).sum(), alone)[0])
        (_, tangent) = torch.func.jvp(function, (x.detach(),), (torch.ones_like(x),))
        torch.testing.assert_close(tangent, slope, rtol=16 * torch.finfo(dtype).eps, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", [n for n in EDGES if EDGES[n] == 0])
def test_gradients_are_finite_at_the_edge_of_a_domain_to_the_last_bit(name, dtype):
    span = math.log10(torch.finfo(dtype).max)
    x = torch.logspace(-span, 0, 500, dtype=torch.float64).to(dtype).requires_grad_()
    y = SYMBOLIC_LIB[name](x)
    (slope,) = torch.autograd.grad(y[y.isfinite()].sum(), x)
    assert slope.isfinite().all() and (slope[-40:] != 0).all()


def test_torchs_functions_are_the_librarys():
    assert (
        library.in_library(torch.sqrt) is SYMBOLIC_LIB["sqrt"] and library.in_library(torch.log) is SYMBOLIC_LIB["log"]
    )
    x = torch.zeros(1, requires_grad=True)
    assert torch.autograd.grad(add_symbolic("root", torch.sqrt)(x).sum(), x)[0] == 0
    assert SYMBOLIC_LIB["1/x"].torch_fn(torch.tensor([2, 4])).tolist() == [0.5, 0.25]
    assert SYMBOLIC_LIB["sqrt"](torch.tensor([-1e-30, 4.0])).isnan().tolist() == [True, False]
