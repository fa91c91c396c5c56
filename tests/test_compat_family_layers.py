"""accelerate for ChebyKAN, torch-conv-kan, faster-kan and inkan: against their own formulas, in float64."""

import copy

import pytest
import torch
from torch import nn

import fastkan
from fastkan.compat.accelerated import Accelerated
from support import family_peers as peers
from support.accelerate import CLOSE, assert_same, float64, results  # noqa: F401

LAYERS = {
    "ChebyKAN": lambda: peers.ChebyKANLayer(3, 4, 5),
    "ChebyKAN of one function": lambda: peers.ChebyKANLayer(3, 4, 0),
    "Jacobi": lambda: peers.JacobiKANLayer(3, 4, 4),
    "torch-conv-kan": lambda: peers.ConvKANLayer(3, 4),
    "torch-conv-kan, quadratic": lambda: peers.ConvKANLayer(3, 4, 7, 2, nn.SiLU, (-2, 1)),
    "faster-kan": lambda: peers.FasterKANLayer(3, 4),
    "faster-kan, 5 functions": lambda: peers.FasterKANLayer(3, 4, 5, inv_denominator=0.8),
    "inkan": lambda: peers.InkanLayer(3, 4),
    "inkan, 9 intervals": lambda: peers.InkanLayer(3, 4, 9, base_activation=nn.Tanh, grid_range=(-2, 1)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients_are_equal(name, calls):
    layer = LAYERS[name]()
    if name.startswith("torch-conv-kan"):
        layer.grid = layer.grid.double()  # which is left in float32 there
    x = 1.5 * torch.randn(33, 3)
    expected = results(layer, x)
    original = type(layer)
    assert fastkan.accelerate(layer) is layer and isinstance(layer, Accelerated)
    for count in calls.values():
        count.clear()
    assert_same(layer, x, expected)
    assert calls["native"] or calls["dense"]
    again = copy.deepcopy(layer)
    assert_same(again, x, expected)
    assert type(fastkan.restore(layer)) is original


def test_chebykan_at_saturation_has_a_gradient():
    layer = peers.ChebyKANLayer(2, 3, 4).float()
    x = torch.tensor([[12.0, 0.3]], dtype=torch.float32, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.isnan().any()
    x.grad = None
    fastkan.accelerate(layer)(x).sum().backward()
    assert x.grad.isfinite().all() and x.grad[0, 0] == 0 and x.grad[0, 1] != 0


def test_leading_dimensions_are_theirs():
    layer = peers.ChebyKANLayer(3, 2, 4)
    x = torch.randn(4, 5, 3)
    expected = layer(x)
    torch.testing.assert_close(fastkan.accelerate(layer)(x), expected, **CLOSE)


def test_a_grid_that_is_trained_keeps_its_own_forward(calls):
    layer = peers.FasterKANLayer(3, 2)
    fastkan.accelerate(layer)
    layer.rbf.grid.requires_grad_()
    for count in calls.values():
        count.clear()
    layer(torch.randn(4, 3))
    assert not any(calls.values())


def test_the_warning_names_the_layer_s_own_class():
    class Bent(peers.ChebyKANLayer):
        def forward(self, x):
            return super().forward(x) + x.sum()

    model = nn.ModuleDict({
        "good": peers.ChebyKANLayer(3, 2, 4), "bent": Bent(3, 2, 4), "other": peers.JacobiKANLayer(3, 2, 4, a=0.5),
        "surface": peers.InkanLayer(2, 1, dim=2), "gram": peers.GRAMLayer(2, 2),
    })  # fmt: skip
    with pytest.warns(UserWarning) as caught:
        fastkan.accelerate(model)
    message = str(caught[0].message)
    for said in (
        "bent (Bent): Bent has a forward of its own",
        "other (JacobiKANLayer): its attributes are not those of JacobiKANLayer as torch-conv-kan's (a=0.5, b=1.0",
        "inkan's (dim=2, spline_order=3: expected 1 and 3)",
        "gram (GRAMLayer): its polynomials have trained coefficients",
    ):
        assert said in message, message
    assert [n for n, m in model.named_modules() if isinstance(m, Accelerated)] == ["good"]


def test_another_gradient_is_another_layer():
    """Values alone do not tell it."""

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            return y

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad

    class ChebyKANLayer(peers.ChebyKANLayer):
        def forward(self, x):
            return Own.apply(super().forward(x))

    with pytest.warns(UserWarning, match="its gradient gives other values"):
        fastkan.accelerate(ChebyKANLayer(3, 2, 4))
