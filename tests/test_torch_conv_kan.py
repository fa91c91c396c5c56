"""torch-conv-kan's layers and networks by name, made of fastkan's (support/torch_conv_kan.py): what its own tests ask
of them, and more: shapes, finite values and gradients, penalties, and equal values where the formula is the same."""

import sys

import pytest
import torch
from torch import nn

from fastkan.spec import FAMILIES
from support import family_peers, torch_conv_kan
from support.torch_conv_kan import LAYERS, NETWORKS, family_layer, network

ARGUMENTS = {"ChebyKANLayer": (3,), "KACN": {"degree": 3}, "ReLUKAN": {"g": 5, "k": 3}}


def layer_of(name: str, i: int = 4, o: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return LAYERS[name](i, 5, 3, o) if name == "ReLUKANLayer" else LAYERS[name](i, o, *ARGUMENTS.get(name, ()))


def check(model: nn.Module, inputs: int, outputs: int) -> None:
    """The shape, finite values far outside too, and a finite gradient that reaches every parameter."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(40, inputs, generator=generator).requires_grad_()
    y = model(x)
    assert y.shape == (40, outputs)
    (y * torch.randn(y.shape, generator=generator)).sum().backward()
    for name, p in {"x": x, **dict(model.named_parameters())}.items():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), name
    assert model(torch.full((2, inputs), 1e4)).isfinite().all()


@pytest.mark.sweep
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    check(layer_of(name), 4, 6)


@pytest.mark.sweep
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    torch.manual_seed(0)
    check(NETWORKS[name]([4, 8, 6], **ARGUMENTS.get(name, {})), 4, 6)


@pytest.mark.sweep
@pytest.mark.parametrize("family", FAMILIES[1:])
def test_families(family):
    torch.manual_seed(0)
    check(network(family_layer(family))([4, 8, 6], degree=4, dropout=0.1, l1_decay=0.1), 4, 6)


def test_dropout_and_penalties():
    """Dropout before every layer, or every one but the first; the gradient of the penalty on layers but the last."""
    for first, expected in ((True, [True, False, True, False]), (False, [False, True, False])):
        model = NETWORKS["KALN"]([4, 8, 6], dropout=0.5, first_dropout=first)
        assert [isinstance(layer, nn.Dropout) for layer in model] == expected
    torch.manual_seed(0)
    plain = NETWORKS["KAN"]([4, 8, 6])
    torch.manual_seed(0)
    model, x = NETWORKS["KAN"]([4, 8, 6], l1_decay=0.1), torch.rand(5, 4)
    for each in (plain, model):
        each(x).square().sum().backward()
    pairs = list(zip(model[0].parameters(), plain[0].parameters(), strict=True))
    assert all(torch.allclose(p.grad, q.grad + 0.1 * q.sign()) for p, q in pairs)
    last = zip(model[1].parameters(), plain[1].parameters(), strict=True)
    assert all(torch.equal(p.grad, q.grad) for p, q in last)


def test_equal_formulas_have_equal_values():
    """With torch-conv-kan's formulas and the same weights, in float64."""
    x = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.set_default_dtype(torch.float64)
    try:
        spline, chebyshev, jacobi = (layer_of(name) for name in ("KANLayer", "ChebyKANLayer", "JacobiKANLayer"))
        peers = (
            family_peers.ConvKANLayer(4, 6),
            family_peers.ChebyKANLayer(4, 6, 3),
            family_peers.JacobiKANLayer(4, 6, 3),
        )
        with torch.no_grad():
            peers[0].spline_weight.copy_(spline[0].spline_weight)
            peers[0].base_weight.copy_(spline[0].base_weight.T)
            peers[0].grid = spline[0].grid
            peers[1].cheby_coeffs.copy_(chebyshev[1].coef.transpose(1, 2))
            peers[2].jacobi_coeffs.copy_(jacobi[0].coef.transpose(1, 2))
            peers[2].base_weights.copy_(jacobi[0].base_weight.T)
        for layer, peer in zip((spline, chebyshev, jacobi), peers, strict=True):
            torch.testing.assert_close(layer(x), peer(x), rtol=1e-9, atol=1e-9)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_plugin_makes_the_module_of_its_tests(monkeypatch):
    monkeypatch.setitem(sys.modules, "kans", None)
    torch_conv_kan.pytest_configure()
    import kans

    assert kans.WavKAN is NETWORKS["WavKAN"] and kans.GRAMLayer is LAYERS["GRAMLayer"]
