"""Layers whose functions have parameters of their own: formulas, gradients, saturation, errors."""

import math

import pytest
import torch
from torch.nn import functional as F

from fastkan.nn import RationalKANLayer, ReLUKANLayer, WavKANLayer
from fastkan.nn.own_parameters import STARTS, rational
from support.problems import DOUBLE

LAYERS = {
    "mexican_hat": lambda: WavKANLayer(4, 3), "morlet": lambda: WavKANLayer(4, 3, "morlet"),
    "dog": lambda: WavKANLayer(4, 3, "dog"), "relu": lambda: ReLUKANLayer(4, 3),
    "rational": lambda: RationalKANLayer(4, 3, groups=2), "rational silu": lambda: RationalKANLayer(4, 3, 1, "silu"),
}  # fmt: skip


def drawn(name: str):
    """The layer in float64, with its own parameters at random."""
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return layer


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_by_x_and_all_parameters(name):
    layer = drawn(name)
    x = torch.randn(5, 4, dtype=DOUBLE, requires_grad=True)
    names, values = zip(*layer.named_parameters(), strict=True)

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(run, (x, *values)) and torch.autograd.gradgradcheck(run, (x, *values))
    wide = x.detach().view(5, 1, 4)
    torch.testing.assert_close(layer(wide)[:, 0], layer(x))


@pytest.mark.parametrize("name", LAYERS)
def test_everything_is_finite_at_saturation(name):
    layer = LAYERS[name]()
    for big in (12.0, 1e4, 1e30, math.inf):
        x = torch.tensor([[big, -big, big, -big]], requires_grad=True)
        y = layer(x)
        grads = torch.autograd.grad(y.sum(), [x, *(p for p in layer.parameters() if p.requires_grad)])
        assert y.isfinite().all() and all(g.isfinite().all() for g in grads)
    assert layer(torch.full((1, 4), math.nan)).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", LAYERS)
def test_inputs_of_any_dtype(name, dtype):
    """The result has the parameters' dtype; 1e6, to which inputs are clamped, is not finite in float16."""
    layer, x = drawn(name), 3 * torch.randn(8, 4, dtype=DOUBLE)
    expected = layer(x)
    layer = layer.to(dtype)
    for given in (x.half(), x.bfloat16(), x.float(), x):
        y = layer(given)
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), expected, rtol=0.1, atol=0.1)  # 8 bits and sums


@pytest.mark.parametrize("name", LAYERS)
def test_made_on_meta(name):
    with torch.device("meta"):
        layer = LAYERS[name]()
    assert all(p.is_meta for p in layer.parameters())
    layer.load_state_dict(LAYERS[name]().state_dict(), assign=True)
    assert layer(torch.zeros(2, 4)).isfinite().all()


def test_wavelets_of_every_edge():
    layer = drawn("mexican_hat")
    x = torch.randn(7, 4, dtype=DOUBLE)
    t = (x[:, :, None] - layer.translation) / layer.scale
    psi = 2 / (math.sqrt(3) * math.pi**0.25) * (1 - t**2) * torch.exp(-(t**2) / 2)
    expected = (layer.weight * psi + layer.base_weight * F.silu(x)[..., None]).sum(1)
    torch.testing.assert_close(layer(x), expected)


def test_relu_kan_s_functions_are_one_in_their_middle():
    layer = ReLUKANLayer(1, 8, grid_size=5, k=3).double()
    with torch.no_grad():
        layer.coef.copy_(torch.eye(8)[None])
    middle = (layer.low + layer.high).detach()[0] / 2
    torch.testing.assert_close(layer(middle[:, None]).diagonal(), torch.ones(8, dtype=DOUBLE), rtol=1e-6, atol=0)
    assert not ReLUKANLayer(2, 2, train_ends=False).low.requires_grad


def test_rational_functions_of_groups():
    layer = drawn("rational")
    x = torch.randn(9, 4, dtype=DOUBLE)
    a = layer.numerator
    top = sum(a[p] * x**p for p in range(6))
    b = layer.denominator.repeat_interleave(2, 0)  # I 4
    bottom = 1 + sum(b[:, p] * x ** (p + 1) for p in range(4)).abs()
    torch.testing.assert_close(layer(x), layer.linear(top / bottom))


@pytest.mark.parametrize("start", STARTS)
def test_rational_layers_start_as_a_function_and_keep_the_variance(start):
    torch.manual_seed(0)
    layer = RationalKANLayer(256, 256, start=start).double()
    x = torch.linspace(-4, 4, 99, dtype=DOUBLE)[:, None]
    function = x if start == "identity" else F.silu(x)
    found = rational(x, layer.numerator, layer.denominator[0])
    torch.testing.assert_close(found, function, rtol=0, atol=0.0 if start == "identity" else 0.003)
    x = torch.randn(400, 256, dtype=DOUBLE)
    # The variance of a sum of 256 products with random weights has the relative error sqrt(2 / 256) or less.
    assert abs(layer(x).square().mean().item() - 1) < 4 * math.sqrt(2 / 256)


def test_errors():
    with pytest.raises(ValueError, match="wavelet='haar': expected one of 'mexican_hat'"):
        WavKANLayer(2, 2, "haar")
    with pytest.raises(ValueError, match="groups=8: expected a divisor of in_features=6"):
        RationalKANLayer(6, 2)
    with pytest.raises(ValueError, match="start='tanh': expected one of 'identity', 'silu'"):
        RationalKANLayer(8, 2, start="tanh")
    with pytest.raises(ValueError, match="grid_size=0: expected an integer, at least 1"):
        ReLUKANLayer(2, 2, 0)
    with pytest.raises(ValueError, match="expected .*3.*, the number of in_features last"):
        WavKANLayer(3, 2)(torch.rand(4, 2))
