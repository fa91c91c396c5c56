"""Grids updated from data or extended: the function is kept, whatever the data."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fastkan import KANLinear
from fastkan.basis.bspline import OUTSIDE, bspline_features, uniform_knots
from fastkan.nn import data_sample as samples
from fastkan.nn import refit as refits
from fastkan.nn.data_sample import Sample
from fastkan.nn.grid import adaptive_knots, is_uniform, resized_knots, snapped
from fastkan.nn.refit import refit

DOUBLE = torch.float64
CPU = torch.device("cpu")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def awkward(rows: int = 200) -> torch.Tensor:
    """One input each: constant, zero, binary, three values, half of it zeros, heavy tails, tiny, far away."""
    n, z = torch.arange(rows, dtype=DOUBLE), normal(rows)
    columns = [0 * n + 3, 0 * n, n % 2, n % 3, z.relu(), z**5, 1e-9 * z, 1e6 + z]
    return torch.stack(columns, 1)


def layer(inputs: int, size: int = 5, degree: int = 3, **options) -> KANLinear:
    kan = KANLinear(inputs, 4, size, degree, generator=torch.Generator().manual_seed(0), dtype=DOUBLE, **options)
    nn.init.normal_(kan.coef, generator=torch.Generator().manual_seed(1))
    return kan


def spline(x, coef, grid, degree, outside="zero"):
    return torch.einsum("nif,ifo->nio", bspline_features(x, grid, degree, outside), coef)


def inside(grid: torch.Tensor, degree: int, rows: int = 400) -> torch.Tensor:
    low, high = grid[:, degree], grid[:, grid.shape[1] - degree - 1]
    share = torch.rand(rows, 1, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    return low + (high - low) * share


def random_grid(inputs: int, size: int, degree: int) -> torch.Tensor:
    data = normal(inputs, size + 1, seed=size).sort(-1).values
    return adaptive_knots(data, data[:, 0], data[:, -1], degree, 0.1)


# Refinement


@pytest.mark.parametrize("knots", ["uniform", "uneven"])
@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("degree", range(6))
def test_extend_to_a_multiple_keeps_the_function(degree, outside, knots):
    for size in (1, 2, 5):
        for factor in (1, 2, 3):
            kan = layer(3, size, degree, outside=outside, grid_range=(-0.3, 2.0), base_activation=None)
            if knots == "uneven":
                kan.set_grid(random_grid(3, size, degree))
            x = inside(kan.grid, degree)
            before = kan(x)
            kan.extend_grid(factor * size)
            assert kan.grid_size == factor * size and kan.uniform == (knots == "uniform" or size == 1)
            assert kan.coef.shape[1] == factor * size + degree
            error = (kan(x) - before).abs().max() / before.abs().max()
            assert error < 1e-13, (size, factor)


@pytest.mark.parametrize("size, inputs", [(17, 3), (250, 1)])
def test_fine_grids_of_degree_five(size, inputs):
    grid = random_grid(inputs, size, 5)
    new = resized_knots(grid, 5, 2 * size)
    coef = normal(inputs, size + 5, 3)
    x = inside(grid, 5)
    truth = spline(x, coef, grid, 5)
    assert (spline(x, refit(coef, grid, new, 5, "zero"), new, 5) - truth).abs().max() < 1e-13 * truth.abs().max()


@pytest.mark.parametrize("size", [4, 7, 12])
def test_extend_to_another_size_is_least_squares(size):
    """The residual is orthogonal to every new function: checked by a fine midpoint rule."""
    old, new = uniform_knots([-1.0, 0.0], 1.0, 5, 3), uniform_knots([-1.0, 0.0], 1.0, size, 3)
    coef = normal(2, 8, 3)
    found = refit(coef, old, new, 3, "zero")
    x = torch.tensor([-1.0, 0.0]) + torch.tensor([2.0, 1.0]) * (torch.arange(20000, dtype=DOUBLE)[:, None] + 0.5) / 2e4
    phi = bspline_features(x, new, 3, "zero")
    residual = spline(x, found, new, 3) - spline(x, coef, old, 3)
    assert torch.einsum("nif,nio->ifo", phi, residual).abs().max() / len(x) < 1e-8


@pytest.mark.parametrize("degree", [1, 3, 5])
def test_a_thousand_intervals(degree):
    """The same knots give back the coefficients, finer ones the function, with data and without."""
    grid = random_grid(2, 1000, degree)
    coef, x = normal(2, 1000 + degree, 3), inside(grid, degree)
    data = x.T.sort(-1).values
    assert (refit(coef, grid, grid, degree, "zero", data) - coef).abs().max() < 1e-12
    fine, truth = resized_knots(grid, degree, 2000), spline(x, coef, grid, degree)
    for rows in (None, data):
        found = refit(coef, grid, fine, degree, "zero", rows)
        assert (spline(x, found, fine, degree) - truth).abs().max() < 1e-13 * truth.abs().max()


def test_the_result_is_the_same_each_time():
    x, coefs = awkward(), []
    for threads in (1, 2, 1):
        kan, before = layer(8, 40), torch.get_num_threads()
        torch.set_num_threads(threads)
        kan.update_grid(x)
        torch.set_num_threads(before)
        coefs.append(kan.coef)
    assert torch.equal(coefs[0], coefs[1]) and torch.equal(coefs[0], coefs[2])


def test_equal_and_different_rows_of_knots():
    """Solved once if all rows of knots are equal, else in blocks."""
    old, new = uniform_knots([-1.0] * 6, 1.0, 5, 3), uniform_knots([-1.0] * 6, 1.0, 7, 3)
    coef = normal(6, 8, 3)
    together = refit(coef, old, new, 3, "zero")
    old[0] -= 2
    new[0] -= 2
    assert torch.allclose(refit(coef, old, new, 3, "zero"), together, atol=1e-12)


def test_blocks_of_rows_and_inputs(monkeypatch):
    x, whole, parts = awkward(), layer(8), layer(8)
    whole.update_grid(x)
    monkeypatch.setattr(refits, "BLOCK", 2000)
    parts.update_grid(x)
    assert torch.equal(whole.grid, parts.grid)
    assert torch.allclose(whole.coef, parts.coef, rtol=1e-8)
    monkeypatch.setattr(refits, "BLOCK", 1)
    whole.extend_grid(7)
    assert whole.coef.isfinite().all()


@pytest.mark.parametrize("outside, reach", [("zero", 2.5), ("linear", 1.5), ("clamp", 1.5)])
def test_wider_grid_keeps_the_tail(outside, reach):
    """A wider grid whose knots hold the old ones keeps the tail; a kink at the end of the old range it approximates."""
    kan = layer(2, 4, 3, outside=outside)
    wide = uniform_knots([-3.0, -3.0], 3.0, 12, 3)
    coef = refit(kan.coef, kan.grid, wide, 3, outside)
    x = reach * (2 * torch.rand(300, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE) - 1)
    truth = spline(x, kan.coef, kan.grid, 3, outside)
    error = (spline(x, coef, wide, 3) - truth).abs().max() / truth.abs().max()
    assert error < (1e-13 if outside == "zero" else 0.2)


# Knots that follow data


@pytest.mark.parametrize("grid_eps", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("margin", [0.0, 0.01])
@pytest.mark.parametrize("degree", range(6))
@pytest.mark.parametrize("size", [1, 5, 60])
def test_awkward_data(size, degree, margin, grid_eps):
    x = awkward()
    kan = layer(8, size, degree, grid_eps=grid_eps)
    before = torch.einsum("nif,ifo->nio", kan.b_splines(x), kan.coef)
    kan.update_grid(x, margin)
    after = torch.einsum("nif,ifo->nio", kan.b_splines(x), kan.coef)
    steps = kan.grid.diff(dim=-1)
    assert (steps > 0).all() and kan.coef.isfinite().all() and not kan.outside_share(x).any()
    assert (steps >= 0.0099 * steps.amax(-1, keepdim=True) / size).all()
    error = (after - before).square().mean((0, 2)).sqrt()
    assert (error[[0, 1, 7]] < 1e-4).all(), "one value, or far outside"
    assert error[6] < 1e-5 or degree == 0, "a narrow range; a step function may step there"
    if size > 1:
        assert (error[[2, 3]] < 1e-3).all(), "two and three values"
    if grid_eps == 1.0:
        assert kan.uniform


def test_coefficients_stay_moderate():
    """Wide functions that barely reach into a narrow first interval would get huge ones."""
    kan = layer(8)
    kan.update_grid(awkward())
    assert kan.coef.abs().max() < 100


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_rows(rows):
    x = normal(rows, 3)
    kan = layer(3, outside="clamp")
    before = kan(x)
    kan.update_grid(x)
    assert torch.allclose(kan(x), before, atol=1e-3)


def test_knots_mix_uniform_and_quantiles_as_in_the_paper():
    x = normal(1001, 2)
    kan = layer(2, 10, grid_eps=0.3)
    kan.update_grid(x, margin=0.5)
    low, high = x.amin(0) - 0.5, x.amax(0) + 0.5
    ranks = x.sort(0).values[100:1000:100].T
    uniform = uniform_knots(low, high, 10, 3)
    assert torch.allclose(kan.grid[:, 4:-4], 0.3 * uniform[:, 4:-4] + 0.7 * ranks)
    assert torch.equal(kan.grid[:, 3], low) and torch.equal(kan.grid[:, -4], high)


def test_update_keeps_a_smooth_function():
    x = normal(2000, 2) / 3
    kan = layer(2, 20, outside="linear")
    target = torch.sin(2 * x)
    kan.coef.data.copy_(kan.curve2coeff(x, target[..., None].expand(-1, -1, 4)).permute(1, 2, 0))
    before = kan(x)
    kan.update_grid(x)
    assert (kan(x) - before).square().mean().sqrt() < 1e-3


def test_update_goes_on_after_training_in_float32():
    kan = KANLinear(8, 4)
    x = awkward().float()
    for _ in range(5):
        kan.update_grid(x)
    assert kan.coef.isfinite().all() and kan(x).isfinite().all()


# Batches


@pytest.mark.parametrize("sizes", [1, 7, 100, 5000])
def test_batches_are_the_tensor(sizes, monkeypatch):
    monkeypatch.setattr(samples, "SAMPLE_ROWS", 64)
    x = normal(300, 3)
    whole, parts = layer(3), layer(3)
    whole.update_grid(x)
    parts.update_grid(iter(x.split(sizes)))
    assert torch.equal(whole.grid, parts.grid) and torch.equal(whole.coef, parts.coef)


def test_data_loader():
    x = normal(100, 3)
    whole, loaded = layer(3), layer(3)
    whole.update_grid(x)
    loaded.update_grid(DataLoader(TensorDataset(x, torch.zeros(100)), batch_size=16))
    assert torch.equal(whole.coef, loaded.coef)
    listed = layer(3)
    listed.update_grid([x.view(4, 25, 3)])
    assert torch.equal(whole.coef, listed.coef)


def test_sample_is_bounded_spread_and_exact_in_range(monkeypatch):
    monkeypatch.setattr(samples, "SAMPLE_ROWS", 500)
    x = torch.arange(20000, dtype=DOUBLE)[:, None].repeat(1, 2)
    sample = Sample.of(x.split(777), 2, CPU)
    assert sample.rows.shape == (500, 2) and sample.seen == 20000
    assert sample.low.tolist() == [0, 0] and sample.high.tolist() == [19999, 19999]
    gaps = sample.rows[:, 0].diff()
    assert 0 < gaps.min() and gaps.max() < 3 * 20000 / 500
    assert (sample.quantiles(5)[0] - torch.linspace(0, 19999, 5)).abs().max() < 100
    for period in (2, 10, 64, 1000):
        counts = (sample.rows[:, 0] % period < period / 2).double().mean()
        assert (counts - 0.5).abs() < 0.02, period


# Failure changes nothing


BAD = {
    "NaN": (torch.tensor([[0.1, float("nan"), 0.0]]), ValueError, r"NaN or infinite entries in its inputs \[1\]"),
    "inf": ([torch.zeros(2, 3), torch.full((1, 3), torch.inf)], ValueError, "NaN or infinite"),
    "empty": (torch.zeros(0, 3), ValueError, "x is empty: expected at least one row"),
    "no batches": ([], ValueError, "x is empty"),
    "width": (torch.zeros(5, 4), ValueError, r"x has shape \[5, 4\]: expected \[\.\.\., 3\]"),
    "type": ([1.0], TypeError, "x gives a float: expected a tensor"),
}


@pytest.mark.parametrize("x, error, message", BAD.values(), ids=BAD)
def test_bad_data(x, error, message):
    assert_unchanged(lambda kan: kan.update_grid(x), error, message)


def test_bad_arguments():
    assert_unchanged(lambda kan: kan.extend_grid(0), ValueError, "new_size=0: expected an integer, at least 1")
    assert_unchanged(lambda kan: kan.extend_grid(2.5), TypeError, "new_size=2.5: expected an integer")
    x = torch.zeros(4, 3)
    assert_unchanged(lambda kan: kan.update_grid(x, -1), ValueError, "margin=-1: expected a finite number, at least 0")


def test_an_exception_midway(monkeypatch):
    def fail(*args):
        raise torch.linalg.LinAlgError("no")

    monkeypatch.setattr(torch.linalg, "cholesky_ex", fail)
    assert_unchanged(lambda kan: kan.update_grid(normal(9, 3)), torch.linalg.LinAlgError, "no")
    assert_unchanged(lambda kan: kan.extend_grid(9), torch.linalg.LinAlgError, "no")


def test_a_loader_that_fails():
    def batches():
        yield normal(9, 3)
        raise OSError("disk")

    assert_unchanged(lambda kan: kan.update_grid(batches()), OSError, "disk")


def test_a_result_that_is_not_finite():
    def spoil(kan):
        kan.half()
        kan.coef.data.fill_(6e4)
        kan.coef.data[0, 0] = -6e4

    message = "not finite in torch.float16: the layer is unchanged"
    assert_unchanged(lambda kan: kan.update_grid(3 * normal(9, 3)), RuntimeError, message, spoil)


@pytest.mark.parametrize(
    "grid, message",
    [
        (torch.zeros(12), "grid is not strictly increasing"),
        (torch.arange(12.0).sqrt() * torch.nan, "grid is not strictly increasing"),
        (torch.arange(7.0), "grid has 7 knots: expected at least 8"),
        (torch.arange(24.0).view(2, 12), r"grid has shape \[2, 12\]: expected \[knots\] or \[3, knots\]"),
        (torch.arange(13.0), r"coef has shape \[3, 8, 4\]: expected \[3, 9, 4\]"),
    ],
)
def test_bad_grids(grid, message):
    assert_unchanged(lambda kan: kan.set_grid(grid), ValueError, message)


def assert_unchanged(change, error, message, prepare=lambda kan: None):
    kan = layer(3)
    prepare(kan)
    state, parameters = copy.deepcopy(kan.state_dict()), list(kan.parameters())
    with pytest.raises(error, match=message):
        change(kan)
    assert all(torch.equal(value, state[key]) for key, value in kan.state_dict().items())
    assert all(a is b for a, b in zip(kan.parameters(), parameters, strict=True))
    assert kan.grid_size == 5 and kan.uniform


# Identity of parameters


def test_parameters_stay_where_shapes_do():
    kan = layer(3)
    kan.coef.requires_grad_(False)
    coef, grid = kan.coef, kan.grid
    kan.update_grid(normal(50, 3))
    kan.extend_grid(5)
    assert kan.coef is coef and kan.grid is grid and not coef.requires_grad
    kan.extend_grid(10)
    assert kan.coef is not coef and isinstance(kan.coef, nn.Parameter) and not kan.coef.requires_grad
    assert kan.base_weight.requires_grad


def test_no_graph_is_kept():
    kan = layer(3)
    x = normal(50, 3).requires_grad_()
    kan.update_grid(x)
    kan.extend_grid(10)
    assert kan.coef.is_leaf and kan.coef.requires_grad and not kan.grid.requires_grad


def test_set_grid_of_one_row():
    kan = layer(3)
    kan.set_grid(uniform_knots(0.0, 2.0, 5, 3))
    assert kan.grid.shape == (3, 12) and kan.grid.is_contiguous() and kan.uniform
    kan.set_grid(kan.grid**3 + 4 * kan.grid)
    assert not kan.uniform


# Knots of others


def test_snapped():
    exact = uniform_knots([-0.3, -0.3], 0.9, 7, 3)
    assert torch.equal(snapped(exact, -1.0, 1.0, 3), exact), "float64 knots are left alone"
    assert torch.equal(snapped(exact.float(), -0.3, 0.9, 3), exact)
    other = snapped(exact.float(), -1.0, 1.0, 3)
    assert is_uniform(other) and (other - exact).abs().max() < 1e-6
    uneven = exact.float()
    uneven[0, 5] += 1e-5
    assert torch.equal(snapped(uneven, -0.3, 0.9, 3), uneven.double())
