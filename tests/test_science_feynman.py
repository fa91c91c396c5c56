"""The 120 equations: expressions and functions agree, are finite, and equal pykan's where pykan is right."""

import math

import pytest
import torch

from fastkan.science import create_dataset, feynman_names, get_feynman_dataset
from fastkan.science.feynman_table import ALIASES

sympy = pytest.importorskip("sympy", reason="SymPy is not installed")

# What pykan 0.2.8 has otherwise: number -> which of symbols, expr and f, see each below.
WRONG = {13: {"symbols"}, 20: {"f"}, 32: {"expr", "f"}, 61: {"symbols"}, 113: {"expr"}, 114: {"f"}}
# Names of pykan's that are not the lectures'; two equations are called I.18.4, and the name gives the second.
RENAMED = {
    4: "I.8.4",
    22: "I.18.4",
    23: "I.18.16",
    60: "I.10.9",
    101: "Rutherforld scattering",
    102: "Friedman equation",
}


def points(ranges, rows: int = 100) -> torch.Tensor:
    low, high = torch.tensor(ranges, dtype=torch.float64).T
    return (
        torch.rand(rows, len(low), generator=torch.Generator().manual_seed(0), dtype=torch.float64) * (high - low) + low
    )


def evaluated(symbols, expr, x: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(sympy.lambdify(symbols, expr, "numpy")(*x.T.numpy()))[:, None]


@pytest.mark.parametrize("number", range(1, 121))
def test_expression_and_function_agree(number):
    symbols, expr, f, ranges = get_feynman_dataset(number)
    x = points(ranges)
    y = f(x)
    assert y.shape == (100, 1) and y.isfinite().all() and y.std() > 0
    torch.testing.assert_close(y, evaluated(symbols, expr, x), rtol=1e-12, atol=1e-15)
    assert expr.free_symbols == set(symbols) and len(ranges) == len(symbols)
    assert not expr.atoms(sympy.Float)
    assert f(x.float()).dtype == torch.float32
    assert f(x[0]).shape == (1,)


@pytest.mark.parametrize("number", range(1, 121))
def test_as_pykan(number):
    theirs = pytest.importorskip("kan.feynman", reason="pykan is not installed", exc_type=ImportError)
    symbols, expr, f, ranges = get_feynman_dataset(number)
    their_symbols, their_expr, their_f, their_ranges = theirs.get_feynman_dataset(number)
    x = points(ranges)
    y, differ = f(x), set()
    if [str(s) for s in symbols] != [str(s) for s in their_symbols]:
        differ.add("symbols")
    if not torch.allclose(evaluated(their_symbols, their_expr, x), y, rtol=1e-9, atol=0):
        differ.add("expr")
    try:
        if not torch.allclose(their_f(x), y, rtol=1e-5, atol=1e-6):  # its pi is a float32
            differ.add("f")
    except IndexError:
        differ.add("f")
    assert differ == WRONG.get(number, set())
    flat = their_ranges if isinstance(their_ranges[0], list) else [their_ranges] * len(symbols)
    assert ranges == [pytest.approx([float(v) for v in pair], rel=1e-6) for pair in flat]


@pytest.mark.parametrize("number", range(1, 121))
def test_names(number):
    name = feynman_names()[number - 1]
    assert get_feynman_dataset(name)[1] == get_feynman_dataset(number)[1]
    theirs = pytest.importorskip("kan.feynman", reason="pykan is not installed", exc_type=ImportError)
    if number not in RENAMED and number != 21:
        assert str(theirs.get_feynman_dataset(name)[1]) == str(theirs.get_feynman_dataset(number)[1])


def test_other_names():
    assert len(set(feynman_names())) == 120 and set(ALIASES.values()) <= set(feynman_names())
    for number, name in RENAMED.items():
        if name != "I.18.4":
            assert get_feynman_dataset(name)[1] == get_feynman_dataset(number)[1]
    assert str(get_feynman_dataset("test")[1]) == "(x + y)*sin(exp(2*y))"
    assert str(get_feynman_dataset("I.18.4")[1]) == "(m1*r1 + m2*r2)/(m1 + m2)"


def test_errors_in_pykans_equations():
    """Each against what it has to be."""
    f = get_feynman_dataset("I.16.6")[2]  # velocities add up to c at most; pykan's f multiplies them
    torch.testing.assert_close(f(torch.tensor([[0.3, 0.0, 1.0], [0.5, 1.0, 1.0]])), torch.tensor([[0.3], [1.0]]))
    f = get_feynman_dataset("I.32.5")[2]  # Larmor's formula in SI units; pykan's has no 6 pi
    assert f(torch.ones(1, 4)).item() == pytest.approx(1 / (6 * math.pi))
    _, expr, f, _ = get_feynman_dataset("Goldstein 12.80")  # a cubic perturbation; pykan's expr has y / x
    assert sympy.degree(expr, sympy.Symbol("x")) == 3
    f = get_feynman_dataset("Jackson 2.11")[2]  # a sphere of radius d at potential V; pykan's f indexes by a tensor
    assert f(torch.tensor([[2.0, 1.0, 4.0, 3.0, 0.0]])).item() == 0.0


def test_finite_where_a_ratio_is_0_by_0():
    f = get_feynman_dataset("III.9.52")[2]
    assert f(torch.tensor([[1.0, 1, 1, 1, 2, 2], [1, 1, 0, 1, 2, 3]])).flatten().tolist() == [1.0, 0.0]


def test_as_a_dataset():
    symbols, _, f, ranges = get_feynman_dataset("I.6.20b")
    data = create_dataset(f, len(symbols), ranges=ranges, train_num=50, dtype=torch.float64)
    assert data["train_input"].shape == (50, 3) and torch.equal(f(data["train_input"]), data["train_label"])


@pytest.mark.parametrize(
    ("error", "match", "name"),
    [
        (KeyError, "name='I.6.21': expected one of feynman_names.*did you mean 'I", "I.6.21"),
        (KeyError, "name='zzz': expected one of feynman_names\\(\\) or a number from 1 to 120", "zzz"),
        (IndexError, "name=121: expected a number from 1 to 120", 121),
        (IndexError, "name=0: expected a number from 1 to 120", 0),
        (TypeError, "name=1.5: expected a string or an integer", 1.5),
    ],
)
def test_errors(error, match, name):
    with pytest.raises(error, match=match):
        get_feynman_dataset(name)


def test_errors_of_functions():
    f = get_feynman_dataset("I.14.3")[2]
    with pytest.raises(ValueError, match=r"x has shape \[5, 2\]: expected a tensor \[..., 3\], columns m, g, z"):
        f(torch.ones(5, 2))
    with pytest.raises(ValueError, match="x has type list"):
        f([1.0])
