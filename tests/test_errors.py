"""Argument validation: every message names the argument, its value and the expected values."""

import ast
import re
from pathlib import Path

import pytest
import torch

from fastkan import functional, spec
from fastkan.functional import edge_mean, kan_linear
from fastkan.select import choose, use_backend
from fastkan.spec import Spec
from fastkan.testing import Problem, random_grid

P = Problem.random(6, 3, 2, 5, dtype=torch.float32)
RIGHT = {
    "x": P.x, "coef": P.coef, "grid": P.grid, "base_weight": P.base_weight, "bias": P.bias, "scale": P.terms[0],
    "degree": 3,
}  # fmt: skip
FLOATS = "expected float32, float64, bfloat16 or float16"

ASCENDING = "grid does not ascend: expected sorted finite knots and a grid range that is not empty"
UNEVEN = "uniform=True: expected equidistant knots in grid, or uniform=False"

# wrong arguments -> type and full message of the error
WRONG = [
    ({"degree": 6}, ValueError, "degree=6: expected 0 to 5"),
    ({"degree": -1}, ValueError, "degree=-1: expected 0 to 5"),
    ({"degree": 3.0}, TypeError, "degree=3.0: expected an int from 0 to 5"),
    ({"degree": True}, TypeError, "degree=True: expected an int from 0 to 5"),
    ({"degree": "3"}, TypeError, "degree='3': expected an int from 0 to 5"),
    ({"base": "relu"}, ValueError, "base='relu': expected one of 'zero', 'identity', 'silu'"),
    ({"base": None}, TypeError, "base=None: expected a name or a callable"),
    ({"outside": "mirror"}, ValueError, "outside='mirror': expected one of 'zero', 'linear', 'clamp'"),
    ({"family": "cosine"}, ValueError, "family='cosine': expected one of " + ", ".join(map(repr, spec.FAMILIES))),
    ({"family": "rbf", "outside": "clamp"}, ValueError, "outside='clamp': expected 'zero' with family='rbf'"),
    ({"family": "rbf", "degree": 2}, ValueError, "degree=2: expected 0 with family='rbf'"),
    (
        {"family": "rbf", "degree": 0, "uniform": False}, ValueError,
        "uniform=False: expected True with family='rbf', whose knots are equidistant",
    ),
    ({"backend": "cuda"}, ValueError, "backend='cuda': expected one of 'native', 'triton', 'dense', 'reference'"),
    ({"x": [1.0]}, TypeError, "x is a list: expected a tensor"),
    ({"x": None}, TypeError, "x is a NoneType: expected a tensor"),
    ({"coef": 1.0}, TypeError, "coef is a float: expected a tensor"),
    ({"grid": None}, TypeError, "grid is a NoneType: expected a tensor"),
    ({"base_weight": 1}, TypeError, "base_weight is a int: expected a tensor"),
    ({"bias": True}, TypeError, "bias is a bool: expected a tensor"),
    ({"scale": 2.0}, TypeError, "scale is a float: expected a tensor"),
    ({"x": torch.ones(6, 3, dtype=torch.int64)}, TypeError, f"x.dtype is torch.int64: {FLOATS}"),
    (
        {"x": torch.ones(6, 3).to_sparse()}, TypeError,
        "x is a torch.sparse_coo tensor: expected a dense one, such as its values() or to_dense()",
    ),
    ({"coef": torch.ones(3, 8, 2).cfloat()}, TypeError, f"coef.dtype is torch.complex64: {FLOATS}"),
    ({"grid": torch.arange(12)}, TypeError, f"grid.dtype is torch.int64: {FLOATS}"),
    ({"bias": torch.ones(2).bool()}, TypeError, f"bias.dtype is torch.bool: {FLOATS}"),
    ({"coef": P.coef.to("meta")}, ValueError, "coef is on meta: expected x's device, cpu"),
    ({"grid": P.grid.to("meta")}, ValueError, "grid is on meta: expected x's device, cpu"),
    ({"bias": P.bias.to("meta")}, ValueError, "bias is on meta: expected x's device, cpu"),
    (
        {"coef": torch.ones(3, 2)}, ValueError,
        "coef has shape [3, 2]: expected [in_features, grid_size + degree, out_features]",
    ),
    ({"coef": torch.ones(3, 3, 2)}, ValueError, "coef has shape [3, 3, 2]: expected at least degree + 1 = 4 functions"),
    ({"x": torch.ones(6, 4)}, ValueError, "x has shape [6, 4]: expected [..., 3], the number of in_features last"),
    ({"x": torch.tensor(1.0)}, ValueError, "x has shape []: expected [..., 3], the number of in_features last"),
    ({"grid": torch.ones(13)}, ValueError, "grid has shape [13]: expected [12] or [3, 12], to go with coef"),
    ({"grid": torch.ones(1, 12)}, ValueError, "grid has shape [1, 12]: expected [12] or [3, 12], to go with coef"),
    (
        {"grid": P.grid.clone().requires_grad_()}, ValueError,
        "grid.requires_grad is True: the result is not differentiable by the grid; pass grid.detach()",
    ),
    ({"grid": P.grid.flip(-1)}, ValueError, ASCENDING),
    ({"grid": torch.zeros(12)}, ValueError, ASCENDING),
    ({"grid": P.grid * torch.nan}, ValueError, ASCENDING),
    ({"grid": P.grid**3, "uniform": True}, ValueError, UNEVEN),
    ({"base_weight": torch.ones(2, 3)}, ValueError, "base_weight has shape [2, 3]: expected [3, 2], to go with coef"),
    ({"bias": torch.ones(3)}, ValueError, "bias has shape [3]: expected [2], to go with coef"),
    ({"scale": torch.ones(2)}, ValueError, "scale has shape [2]: expected [3, 2], to go with coef"),
    (
        {"base_weight": torch.ones(3, 2).double()}, TypeError,
        "base_weight.dtype is torch.float64: expected coef's, torch.float32",
    ),
    ({"bias": torch.ones(2).half()}, TypeError, "bias.dtype is torch.float16: expected coef's, torch.float32"),
    ({"scale": torch.ones(3, 2).double()}, TypeError, "scale.dtype is torch.float64: expected coef's, torch.float32"),
]  # fmt: skip


def changed(wrong: dict) -> str:
    return ", ".join(
        f"{k}={v if not isinstance(v, torch.Tensor) else f'{v.dtype}{list(v.shape)}'}" for k, v in wrong.items()
    )


@pytest.mark.parametrize(
    ("wrong", "error", "message"), WRONG, ids=[f"{k}-{changed(w[0])}" for k, w in enumerate(WRONG)]
)
def test_kan_linear_validates_arguments(wrong, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        kan_linear(**{**RIGHT, **wrong})


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [w for w in WRONG if not w[0].keys() & {"bias", "scale"} and w[0] != {"base": None}],
    ids=lambda value: changed(value) if isinstance(value, dict) else "",
)
def test_edge_mean_validates_arguments(wrong, error, message):
    right = {name: value for name, value in RIGHT.items() if name not in ("bias", "scale")}
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        edge_mean(**{**right, **wrong})


def test_edge_mean_takes_no_user_function():
    right = {name: value for name, value in RIGHT.items() if name not in ("bias", "scale")}
    with pytest.raises(ValueError, match=r"^base=<built-in .*: expected one of 'zero', 'identity', 'silu'$"):
        edge_mean(**right, base=torch.sin)


def test_valid_arguments_raise_nothing():
    assert kan_linear(**RIGHT).shape == (6, 2)


def test_a_spec_is_checked_where_it_is_made():
    with pytest.raises(ValueError, match=r"^degree=9: expected 0 to 5$"):
        Spec.of(9, "silu", "zero", False)


def test_requested_backend_is_validated():
    with pytest.raises(ValueError, match=r"^backend='x': expected one of 'native', 'triton', 'dense', 'reference'$"):
        choose("x", torch.device("cpu"), (), Spec.of(3, "silu", "zero", True))
    with pytest.raises(ValueError, match=r"^backend='x': expected one of 'native', 'triton', 'dense', 'reference'$"):
        use_backend("x").__enter__()


def test_random_knots_are_named():
    with pytest.raises(ValueError, match=r"^knots='odd': expected one of \('promised', 'even', 'uneven'\)$"):
        random_grid(1, 3, 2, 1.0, "odd", False, torch.Generator())


def test_every_validation_error_was_raised():
    """The lines that raised for WRONG are all the lines with a raise."""
    reached = set()
    for wrong, error, _ in WRONG:
        with pytest.raises(error) as caught:
            kan_linear(**{**RIGHT, **wrong})
        last = caught.traceback[-1]
        reached.add((last.path.name, last.lineno + 1))
    for module in (functional, spec):
        path = Path(module.__file__)
        nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Raise)]
        for node in nodes:
            assert any((path.name, line) in reached for line in range(node.lineno, node.end_lineno + 1)), ast.unparse(
                node
            )
