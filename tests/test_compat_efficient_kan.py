"""Models and state dicts of efficient-kan, converted both ways, against efficient-kan's formula."""

import copy

import pytest
import torch
from torch import nn

import fastkan
from fastkan.compat.efficient_kan import (
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
