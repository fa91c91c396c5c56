"""kan_linear and edge_mean: formula, shapes, dtypes, autocast, accuracy."""

import pytest
import torch
from torch.nn.functional import silu

from fastkan.basis.bspline import uniform_knots
from fastkan.functional import edge_mean, kan_linear
from fastkan.testing import Problem

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def dense_features(x: torch.Tensor, grid: torch.Tensor, degree: int) -> torch.Tensor:
    """[N, I, F] by the dense Cox-de Boor recursion of efficient-kan, in the dtype of x: x [N, I], grid [I, M]."""
    x = x[..., None]
    bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
    for k in range(1, degree + 1):
        bases = (x - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)]) * bases[..., :-1] + (
            grid[:, k + 1 :] - x
        ) / (grid[:, k + 1 :] - grid[:, 1:-k]) * bases[..., 1:]
    return bases


def dense(p: Problem) -> torch.Tensor:
    edges = torch.einsum("nif,ifo->no", dense_features(p.x, p.grid.to(p.x.dtype), p.spec.degree), p.coef)
    return silu(p.x) @ p.base_weight + edges


def inside(rows: int, inputs: int, outputs: int, grid_size: int, dtype=torch.float64, **kwargs) -> Problem:
    p = Problem.random(rows, inputs, outputs, grid_size, dtype=dtype, **kwargs)
    return Problem(**{**vars(p), "x": (torch.rand(rows, inputs, dtype=torch.float64) * 1.8 - 0.9).to(dtype)})


def test_the_formula(backend):
    p = inside(20, 4, 3, 5, knots="uneven", per_input=True)
    y = kan_linear(p.x, p.coef, p.grid, p.base_weight, p.bias, degree=3, backend=backend)
    torch.testing.assert_close(y, dense(p) + p.bias, **CLOSE)


def test_scale_multiplies_the_spline_of_each_edge(backend):
    p = inside(20, 4, 3, 5)
    y = kan_linear(p.x, p.coef, p.grid, p.base_weight, scale=p.terms[0], degree=3, backend=backend)
    scaled = Problem(**{**vars(p), "coef": p.coef * p.terms[0][:, None]})
    torch.testing.assert_close(y, dense(scaled), **CLOSE)


def test_a_user_function_is_a_base(backend):
    p = inside(20, 4, 3, 5)
    for base, name in ((silu, "silu"), (lambda x: x, "identity"), (torch.zeros_like, "zero")):
        ours = kan_linear(p.x, p.coef, p.grid, p.base_weight, p.bias, degree=3, base=name, backend=backend)
        users = kan_linear(p.x, p.coef, p.grid, p.base_weight, p.bias, degree=3, base=base, backend=backend)
        torch.testing.assert_close(users, ours, **CLOSE)
    alone = kan_linear(p.x, p.coef, p.grid, degree=3, base="zero", backend=backend)
    torch.testing.assert_close(kan_linear(p.x, p.coef, p.grid, degree=3, base=torch.sin, backend=backend), alone)


def test_a_user_function_is_differentiated(backend):
    p = inside(6, 2, 3, 5)
    tensors = [t.requires_grad_() for t in (p.x, p.coef, p.base_weight)]

    def run(x, coef, base_weight):
        return kan_linear(x, coef, p.grid, base_weight, degree=3, base=torch.tanh, backend=backend)

    assert torch.autograd.gradcheck(run, tensors)
    assert torch.autograd.gradgradcheck(run, tensors, fast_mode=True)


@pytest.mark.parametrize("lead", [(), (1,), (6,), (2, 3), (2, 1, 3), (0,), (2, 0), (0, 2, 3)], ids=str)
def test_any_leading_dimensions(backend, lead):
    p = inside(6, 4, 3, 5)
    count = int(torch.tensor(lead).prod()) if lead else 1
    x = p.x[:count].reshape(*lead, 4).clone().requires_grad_()
    y = kan_linear(x, p.coef, p.grid, p.base_weight, p.bias, degree=3, backend=backend)
    assert y.shape == (*lead, 3)
    rows = kan_linear(p.x[:count], p.coef, p.grid, p.base_weight, p.bias, degree=3, backend=backend)
    assert torch.equal(y.reshape(count, 3), rows)
    y.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("lead", [(5,), (2, 3), (0,)], ids=str)
def test_no_inputs_give_the_bias_and_no_outputs_nothing(backend, lead):
    grid = uniform_knots(-1.0, 1.0, 5, 3)
    bias = torch.arange(4.0)
    coef = torch.ones(0, 8, 4, requires_grad=True)
    y = kan_linear(torch.ones(*lead, 0), coef, grid, torch.ones(0, 4), bias, degree=3, backend=backend)
    assert torch.equal(y, bias.expand(*lead, 4))
    y.sum().backward()
    assert coef.grad.shape == coef.shape
    x = torch.ones(*lead, 3, requires_grad=True)
    y = kan_linear(x, torch.ones(3, 8, 0), grid, torch.ones(3, 0), degree=3, backend=backend)
    assert y.shape == (*lead, 0)
    y.sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_a_shared_grid_is_that_grid_for_every_input(backend):
    p = inside(20, 4, 3, 5, knots="uneven")
    for grid in (p.grid[0], p.grid, p.grid.contiguous(), p.grid[0].float().double()):
        y = kan_linear(p.x, p.coef, grid, p.base_weight, degree=3, backend=backend)
        tolerance = 1e-5 if grid is not p.grid and not torch.equal(grid.expand(4, -1), p.grid) else 1e-12
        torch.testing.assert_close(y, dense(p), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("x_dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_result_has_the_dtype_of_coef_and_gradients_those_of_their_tensors(backend, dtype, x_dtype):
    p = Problem.random(5, 4, 3, 5, dtype=dtype, x_dtype=x_dtype)
    tensors = [t.requires_grad_() for t in (p.x, p.coef, p.base_weight, p.bias)]
    y = kan_linear(p.x, p.coef, p.grid, p.base_weight, p.bias, degree=3, backend=backend)
    assert y.dtype == dtype
    y.sum().backward()
    assert [t.grad.dtype for t in tensors] == [t.dtype for t in tensors]


def test_autocast_is_nn_linears_and_the_coordinate_stays_float32(backend):
    grid_size = 200
    p = inside(64, 8, 16, grid_size, torch.float32)
    tensors = [t.requires_grad_() for t in (p.x, p.coef, p.base_weight, p.bias)]
    linear = torch.nn.Linear(8, 16)
    with torch.autocast("cpu", torch.bfloat16):
        y = kan_linear(p.x, p.coef, p.grid, p.base_weight, p.bias, degree=3, backend=backend)
        assert y.dtype == linear(p.x).dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(t.grad.dtype == torch.float32 for t in tensors)
    rounded = [t.detach().bfloat16().double() for t in (p.coef, p.base_weight, p.bias)]
    exact = kan_linear(p.x.double(), rounded[0], p.grid, *rounded[1:], degree=3, backend=backend)
    # A coordinate in bfloat16 is off by whole intervals at G = 200: an error of the size of the result.
    torch.testing.assert_close(y.double(), exact, rtol=0.02, atol=0.05)


def test_autocast_leaves_float64_alone(backend):
    p = inside(5, 4, 3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        y = kan_linear(p.x, p.coef, p.grid, p.base_weight, degree=3, backend=backend)
    torch.testing.assert_close(y, dense(p), **CLOSE)


@pytest.mark.parametrize("outside", ["zero", "linear", "clamp"])
def test_a_row_with_a_nan_is_nan_and_no_other(backend, outside):
    p = inside(6, 4, 3, 5, torch.float32)
    p.x[2, 1] = torch.nan
    y = kan_linear(p.x, p.coef, p.grid, degree=3, base="zero", outside=outside, backend=backend)
    assert y[2].isnan().all()
    assert not y[[0, 1, 3, 4, 5]].isnan().any()


@pytest.mark.parametrize("uniform", [False, True])
def test_float32_is_as_accurate_as_efficient_kan(backend, uniform):
    p = inside(256, 16, 32, 200, torch.float32)
    exact = dense(p.to(torch.float64))
    ours = kan_linear(p.x, p.coef, p.grid, p.base_weight, degree=3, uniform=uniform, backend=backend)
    error, theirs = ((y.double() - exact).abs() for y in (ours, dense(p)))
    assert error.max() <= theirs.max()
    assert error.mean() <= theirs.mean()


def test_float64_is_exact_to_rounding_at_any_grid_size(backend):
    p = inside(50, 6, 7, 1000)
    y = kan_linear(p.x, p.coef, p.grid, p.base_weight, degree=3, uniform=True, backend=backend)
    torch.testing.assert_close(y, dense(p), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("lead", [(40,), (5, 8)], ids=str)
def test_edge_mean_is_the_mean_of_each_edge(backend, lead):
    p = inside(40, 4, 3, 5, knots="uneven")
    edges = torch.einsum("nif,ifo->nio", dense_features(p.x, p.grid, 3), p.coef)
    edges = edges + silu(p.x)[..., None] * p.base_weight
    found = edge_mean(p.x.view(*lead, 4), p.coef, p.grid, p.base_weight, degree=3, backend=backend)
    torch.testing.assert_close(found, edges.abs().mean(0), **CLOSE)


def test_edge_mean_of_no_rows_is_nan(backend):
    p = inside(0, 4, 3, 5)
    assert edge_mean(p.x, p.coef, p.grid, p.base_weight, degree=3, backend=backend).isnan().all()


def test_knots_at_both_ends_of_the_range_are_inside(backend):
    grid = uniform_knots(-1.0, 1.0, 5, 3)
    coef = torch.ones(1, 8, 1, dtype=torch.float64)
    x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    for outside in ("zero", "linear", "clamp"):
        y = kan_linear(x, coef, grid, degree=3, base="zero", outside=outside, backend=backend)
        torch.testing.assert_close(y, torch.ones_like(y), **CLOSE)
