"""Grids of a KAN: updates from data, refinement, and the unchanged function."""

import copy

import pytest
import torch

from fastkan import KAN
from support.models import CLOSE, MIXED, inputs, shaken


def model_of(**options) -> KAN:
    return shaken(KAN(**{**MIXED, **options}, dtype=torch.float64), symbolic=0.3, off=0.1)


def inside(model: KAN, rows: int = 50) -> torch.Tensor:
    """Data of which the model's grids hold every activation."""
    x = inputs(rows, model.in_features, scale=1.0)
    model.update_grid(x)
    return x


@pytest.mark.parametrize("new", [30, [6, 5, 8]])
def test_refinement_keeps_the_function(new):
    model = model_of(grid=[3, 5, 2])
    x = inside(model)
    y = model(x)
    fine = model.refine(new)
    assert fine.grid == new and model.grid == [3, 5, 2]
    torch.testing.assert_close(fine(x), y, rtol=1e-9, atol=1e-9 * y.abs().max().item())
    assert torch.equal(model(x), y)
    assert fine.symbolic_fun[0].funs_name == model.symbolic_fun[0].funs_name
    with torch.no_grad():
        fine.act_fun[0].linear.coef.zero_()
    assert torch.equal(model(x), y)


def test_refinement_to_any_size_is_close():
    model = KAN([2, 3, 1], grid=8, dtype=torch.float64)
    x = inputs(100, 2, scale=0.9)
    assert (model.refine(21)(x) - model(x)).abs().max() < 0.05 * model(x).std()


def test_impossible_refinement_is_an_error():
    with pytest.raises(ValueError, match="new_grid=0"):
        KAN([2, 1]).refine(0)
    with pytest.raises(ValueError, match="expected an integer, or 1 of them"):
        KAN([2, 1]).refine([3, 4])


def test_grids_follow_the_data():
    model = KAN([2, 3, 1], grid=5, dtype=torch.float64)
    x = torch.tensor([3.0, -2.0]).double() + 2 * inputs(200, 2, scale=1.0)
    y = model(x)
    model.update_grid_from_samples(x)
    model.get_act(x)
    for layer, acts in zip(model.act_fun, model.acts, strict=False):
        k = layer.k
        torch.testing.assert_close(layer.grid[:, k], acts.amin(0), **CLOSE)
        torch.testing.assert_close(layer.grid[:, -k - 1], acts.amax(0), **CLOSE)
    assert torch.isfinite(y).all() and torch.isfinite(model(x)).all()


def test_grid_update_hardly_changes_the_function():
    model = KAN([2, 3, 1], grid=20, dtype=torch.float64)
    x = inputs(500, 2, scale=0.95)
    model.update_grid(x)
    y = model(x)
    model.update_grid(x[:400])
    assert (model(x[:400]) - y[:400]).abs().max() < 1e-2 * y.std()


@pytest.mark.parametrize("column", ["constant", "binary", "few"])
def test_degenerate_data(column):
    model = KAN([2, 3, 1], grid=10)
    x = inputs(50, 2).float()
    x[:, 1] = {"constant": x[:, 1] * 0, "binary": (x[:, 1] > 0).float(), "few": x[:, 1].round()}[column]
    model.update_grid(x)
    assert model(x).isfinite().all()


def test_layers_without_numeric_edges_are_left_alone():
    model = KAN([2, 2, 1])
    model.act_fun[1].mask.zero_()
    model.symbolic_fun[1].set_edge(0, 0, "log")
    grid = model.act_fun[1].grid.clone()
    model.update_grid(inputs(20, 2).float())
    assert torch.equal(model.act_fun[1].grid, grid)


def test_bad_data():
    with pytest.raises(ValueError, match="NaN"):
        KAN([2, 1]).update_grid(torch.full((3, 2), torch.nan))
    with pytest.raises(ValueError, match="empty"):
        KAN([2, 1]).update_grid(torch.zeros(0, 2))


def test_becoming_another_model():
    other = model_of(grid=[3, 5, 2])
    x = inside(other)
    y = other(x)
    model = KAN(**{**MIXED, "grid": [6, 5, 8]}, dtype=torch.float64, seed=9)
    assert model.initialize_from_another_model(other, x) is model
    torch.testing.assert_close(model(x), y, rtol=1e-8, atol=1e-8 * y.abs().max().item())
    assert model.grid == [6, 5, 8]
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert torch.equal(other(x), y)
    with pytest.raises(ValueError, match=r"another.width is \[\[2, 0\], \[1, 0\]\]: expected that of the model"):
        model.initialize_from_another_model(KAN([2, 1]))


@pytest.mark.parametrize(("degree", "digits"), [(3, 1e-11), (2, 2e-4), (5, 2e-4), (1, 1e-3), (0, 0.2)])
@pytest.mark.parametrize("uniform", [True, False])
def test_becoming_a_model_of_another_degree(degree, digits, uniform):
    other = KAN([2, 3, 1], grid=6, k=3, dtype=torch.float64)
    x = inputs(200, 2, scale=0.99)
    if not uniform:
        other.update_grid(x.pow(3))
        x = x.pow(3)
    y = other(x)
    model = KAN([2, 3, 1], grid=60, k=degree, dtype=torch.float64, seed=9)
    model.initialize_from_another_model(other)
    assert (model.k, model.grid) == (degree, 60)
    assert (model(x) - y).abs().max() < digits * y.abs().max()
    assert model.act_fun[0].linear.uniform == uniform


def test_polynomials_are_the_same_in_a_higher_degree():
    other = KAN([2, 1], grid=1, k=2, base_fun="zero", dtype=torch.float64)
    x = inputs(50, 2, scale=1.0)
    model = KAN([2, 1], grid=7, k=4, base_fun="zero", dtype=torch.float64).initialize_from_another_model(other)
    torch.testing.assert_close(model(x), other(x), rtol=1e-12, atol=1e-13)


def test_a_failure_leaves_the_old_state():
    model = model_of()
    x = inputs(30, 3)
    y, state = model(x), copy.deepcopy(model.state_dict())
    broken = KAN(**MIXED, dtype=torch.float64)
    with torch.no_grad():
        broken.act_fun[-1].linear.coef.fill_(torch.nan)
    for other in (broken, KAN(**{**MIXED, "k": 4, "base_fun": "identity"}), KAN([3, 2])):
        with pytest.raises(ValueError, match="another"):
            model.initialize_from_another_model(other)
        assert torch.equal(model(x), y)
    model.symbolic_fun[0].set_edge(0, 0, "log", (0.0, -1.0, 1.0, 0.0))  # not a number, behind the first layer
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="NaN"):
        model.update_grid(x)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert set(state) == set(before)


def test_grids_of_another_model():
    other = KAN([2, 1], grid=4, grid_range=(-3, 5))
    model = KAN([2, 1], grid=8)
    base = copy.deepcopy(model.act_fun[0].scale_base)
    model.initialize_grid_from_another_model(other)
    assert model.act_fun[0].grid[0, 3] == -3 and model.grid == 8 and torch.equal(base, model.act_fun[0].scale_base)


def test_functions_of_edges_need_data_once(capsys):
    model = model_of()
    with pytest.raises(ValueError, match="expected data"):
        model.get_fun(0, 0, 0)
    model.get_act({"train_input": inputs(30, 3)})
    x, y = model.get_fun(0, 2, 1)
    assert x.shape == y.shape == (30,) and (x.diff() >= 0).all()
    assert model.get_range(0, 2, 1) == (x.min().item(), x.max().item(), y.min().item(), y.max().item())
    assert "x range" in capsys.readouterr().out
    with pytest.raises(IndexError, match="j=7: expected an integer from 0 to 6"):
        model.get_fun(0, 0, 7)


# Beside the data


def j0(x: torch.Tensor) -> torch.Tensor:
    return torch.special.bessel_j0(20 * x)


@pytest.mark.parametrize("opt", ["LBFGS", "LM"])
def test_error_just_beyond_the_data_grows_with_the_distance(opt):
    """fit's grids end where the data do: the error grows with the distance alone."""
    x = inputs(300, 1, scale=1.0)
    model = KAN([1, 1], grid=3, seed=0, dtype=torch.float64)
    for size in (3, 10, 30):
        model = model.refine(size)
        model.fit((x, j0(x)), opt=opt, steps=10, progress=False)
    low, high = x.min().item(), x.max().item()
    for beyond in (0.001, 0.01, 0.02):
        rows = torch.tensor([[low - beyond], [high + beyond]], dtype=torch.float64)
        assert (model(rows) - j0(rows)).abs().max() < 3e-3 + 400 * beyond**2, "half of the largest second derivative"


@pytest.mark.parametrize("width", [[2, 1], [2, 3, 1], [2, [2, 1], 1]])
def test_refinement_keeps_the_function_of_data_that_left_the_grids(width):
    model = KAN(width, grid=4, dtype=torch.float64)
    x = inputs(100, 2, scale=2.0)
    assert model.act_fun[0].linear.outside_share(x).min() > 0.2
    y = model(x)
    torch.testing.assert_close(model.refine(40)(x), y, rtol=1e-9, atol=1e-9)


def test_hidden_ranges_shrink_by_half():
    """Inputs are what they are; activations of a start mean nothing, and a range about them would hold them there."""
    model, x = KAN([2, 3, 1], grid=4, grid_range=(-8, 8), dtype=torch.float64), inputs(100, 2, scale=1.0)
    copied = model.copy()
    copied.update_grid(x, inwards=0.5)
    torch.testing.assert_close(copied.act_fun[0].grid[:, 3], x.amin(0), **CLOSE)
    hidden = copied.nodes(0, copied.sums(0, x))
    torch.testing.assert_close(copied.act_fun[1].grid[:, 3], (hidden.amin(0) - 8) / 2, **CLOSE)
    torch.testing.assert_close(copied.act_fun[1].grid[:, -4], (hidden.amax(0) + 8) / 2, **CLOSE)
    copied.update_grid(2 * x, inwards=0.5)
    torch.testing.assert_close(copied.act_fun[0].grid[:, -4], 2 * x.amax(0), **CLOSE)
    with pytest.raises(ValueError, match="inwards=1.5: expected a finite number, at least 0.0 and at most 1.0"):
        model.update_grid(x, inwards=1.5)


def test_levenberg_marquardt_finds_a_product_with_grid_updates():
    """2 x y by a node that multiplies: from a small start, whose range would hold it where it is."""
    x = inputs(500, 2, scale=1.0)
    for outside, options in (
        ("linear", {}),
        ("zero", {}),
        ("linear", {"grid_update_num": 3, "stop_grid_update_step": 4}),
    ):
        for seed in range(2):
            model = KAN([2, [0, 1], 1], grid=3, seed=seed, dtype=torch.float64, outside=outside)
            results = model.fit((x, 2 * x.prod(1, keepdim=True)), opt="LM", steps=30, progress=False, **options)
            assert results["train_loss"][-1] < 3e-3, (outside, options, seed)
