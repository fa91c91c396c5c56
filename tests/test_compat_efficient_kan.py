"""Models and state dicts of efficient-kan, converted both ways, against efficient-kan's formula."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

import fastkan
from fastkan.compat.efficient_kan import (
    KAN,
    from_efficient_kan,
    from_efficient_kan_state,
    to_efficient_kan,
    to_efficient_kan_state,
)
from support import peers


def theirs(**options) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), peers.KAN([3, 4, 2], **options)).eval()


def assert_same_state(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"enable_standalone_scale_spline": False},
        {"base_activation": nn.Tanh, "spline_order": 2, "grid_range": (0, 3)},
    ],
    ids=str,
)
def test_there_and_back_is_the_same_model(options):
    model = theirs(**options).double()
    x = torch.randn(50, 2, dtype=torch.float64)
    mine = from_efficient_kan(model, exact=True)
    assert isinstance(mine[1].layers[0], fastkan.KANLinear) and isinstance(mine[1], peers.KAN) and mine is not model
    torch.testing.assert_close(mine(x), model(x), rtol=1e-12, atol=1e-12)
    again = to_efficient_kan(mine, peers.KANLinear)
    assert type(again[1].layers[1]) is peers.KANLinear and not again[1].layers[1].training
    assert_same_state(again.state_dict(), model.state_dict())
    assert torch.equal(again(x), model(x))


def test_float32_knots_lose_their_rounding_unless_exact():
    model = theirs(grid_size=7)
    assert from_efficient_kan(model)[1].layers[0].uniform
    layer = from_efficient_kan(model, exact=True)[1].layers[0]
    assert torch.equal(layer.grid, model[1].layers[0].grid.double())
    x = torch.randn(50, 2)
    torch.testing.assert_close(from_efficient_kan(model)(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scaler", [True, False])
def test_state_dicts_there_and_back(scaler):
    model = theirs(enable_standalone_scale_spline=scaler)
    state = from_efficient_kan_state(model.state_dict(), exact=True)
    assert_same_state(to_efficient_kan_state(state), model.state_dict())
    mine = from_efficient_kan(model, exact=True)
    assert_same_state(state, dict(mine.state_dict()))
    layer = model[1].layers[0]
    alone = fastkan.KANLinear(3, 4, enable_standalone_scale_spline=scaler)
    alone.load_state_dict(from_efficient_kan_state(layer.state_dict()))
    x = torch.randn(9, 3)
    torch.testing.assert_close(alone(x), layer(x), rtol=1e-5, atol=1e-5)


def test_a_shared_layer_stays_shared_and_an_accelerated_one_converts():
    layer = peers.KANLinear(3, 3)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    mine = from_efficient_kan(fastkan.accelerate(model), backend="reference")
    assert mine[0] is mine[2] and mine[0].backend == "reference"
    assert type(from_efficient_kan(layer)) is fastkan.KANLinear


def test_errors():
    with pytest.raises(ValueError, match="without a layer to convert"):
        from_efficient_kan(fastkan.KANLinear(2, 2))
    for options, reason in (
        ({"bias": True}, "bias"),
        ({"outside": "linear"}, "outside"),
        ({"base_activation": None}, "base"),
    ):
        with pytest.raises(ValueError, match=reason):
            to_efficient_kan(fastkan.KANLinear(2, 2, **options), peers.KANLinear)
    model = copy.deepcopy(theirs())
    model[1].layers[0].spline_weight = nn.Parameter(torch.zeros(4, 3, 2))
    with pytest.raises(ValueError, match=r"at '1.layers.0' that cannot be converted: spline_weight has shape"):
        from_efficient_kan(model)


def test_its_network():
    torch.manual_seed(0)
    model = KAN([2, 3, 1], grid_size=8, spline_order=2, base_activation=nn.Identity, grid_range=[-2, 2])
    layer = model.layers[0]
    assert layer.spline_weight.shape == (3, 2, 10) and layer.spline_scaler.shape == (3, 2)
    assert layer.base_weight.shape == (2, 3) and len(model.layers) == 2 and model.grid_size == 8
    x = 3 * torch.rand(50, 2)
    before = model(x)
    assert before.shape == (50, 1)
    penalty = sum(layer.regularization_loss(2.0, 0.5) for layer in model.layers)
    torch.testing.assert_close(model.regularization_loss(2.0, 0.5), penalty)
    layer.set_grid(torch.linspace(-2, 4, 13))
    before = model(x)
    y = model(x, update_grid=True)
    torch.testing.assert_close(layer.grid[:, 2], x.double().amin(0) - 0.01)
    assert (y - before).square().mean() < 1e-2 * before.var()  # the function stays, but for the fit
    torch.testing.assert_close(model(x), y)


def test_its_network_reads_its_checkpoints():
    theirs_ = peers.KAN([3, 4, 2])
    model = KAN([3, 4, 2])
    model.load_state_dict(theirs_.state_dict())
    x = torch.randn(20, 3)
    torch.testing.assert_close(model(x), theirs_(x), rtol=1e-5, atol=1e-5)
    assert [p.numel() for p in model.parameters()] and sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in theirs_.parameters()
    )


def test_install_serves_its_import_name():
    """In a process of its own, since it changes what later imports give."""
    script = """
from fastkan.compat import efficient_kan as mine
mine.install(); mine.install()
import efficient_kan
from efficient_kan import KAN, KANLinear
from efficient_kan.kan import KAN as same
assert same is KAN is mine.KAN and mine.installed()
mine.uninstall()
assert not mine.installed()
try:
    import efficient_kan
except ImportError:
    pass
else:
    raise AssertionError
import sys, types
sys.modules["efficient_kan"] = types.ModuleType("efficient_kan")
try:
    mine.install()
except RuntimeError as error:
    assert "efficient_kan is imported already, from memory" in str(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_errors_of_its_network():
    for widths in ("23", [3], 4):
        with pytest.raises(TypeError, match="layers_hidden="):
            KAN(widths)
    with pytest.raises(ValueError, match="family='fourier': efficient-kan has only 'bspline'"):
        to_efficient_kan(fastkan.KANLinear(2, 2, family="fourier"), peers.KANLinear)
