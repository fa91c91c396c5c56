"""fast-kan's classes against fast-kan's formulas: initialization, outputs, gradients, state dicts, conversion."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastkan
from fastkan.compat.fast_kan import from_fast_kan, to_fast_kan
from support import peers
from support.backends import skip_if_missing

CLOSE = {"rtol": 1e-11, "atol": 1e-11}
OPTIONS = [
    {}, {"grid_min": -1.0, "grid_max": 3.0, "num_grids": 5}, {"use_base_update": False}, {"base_activation": F.gelu},
]  # fmt: skip


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def pair(kind: str, *args, theirs: str | None = None, **options) -> tuple[nn.Module, nn.Module]:
    """The module here and in the restatement, each from the same seed."""
    made = []
    for module, name in ((fastkan, kind), (peers, theirs or kind)):
        torch.manual_seed(1)
        made.append(getattr(module, name)(*args, **options))
    return tuple(made)


def assert_same(mine: nn.Module, other: nn.Module, *inputs: torch.Tensor) -> None:
    grads = []
    for module in (mine, other):
        given = [x.clone().requires_grad_() for x in inputs]
        y = module(*given)
        parameters = [p for p in module.parameters() if p.requires_grad]
        grads.append([y, *torch.autograd.grad(y.sin().sum(), given + parameters)])
    for found, value in zip(*grads, strict=True):
        torch.testing.assert_close(found, value, **CLOSE)


@pytest.mark.parametrize("backend", [None, "native", "reference"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_same_start_output_gradients_and_state(options, backend):
    skip_if_missing(backend or "reference")
    mine, other = pair("FastKAN", [3, 6, 2], **options)
    for name, value in other.state_dict().items():
        assert torch.equal(mine.state_dict()[name], value), name
    assert list(mine.state_dict()) == list(other.state_dict())
    for layer in mine.layers:
        layer.fastkan_backend = backend
    assert_same(mine, other, 2 * torch.randn(21, 3))
    mine.load_state_dict(pair("FastKAN", [3, 6, 2], **options)[1].state_dict())


def test_layers_without_layernorm_and_leading_dimensions():
    for width, options in ((1, {"use_layernorm": False}), (3, {})):
        mine, other = pair("FastKANLayer", width, 4, **options)
        x = torch.randn(2, 5, width)
        assert_same(mine, other, x)
        torch.testing.assert_close(mine(x, use_layernorm=False), other(x, use_layernorm=False), **CLOSE)
        torch.testing.assert_close(mine(x.transpose(0, 1)), other(x).transpose(0, 1), **CLOSE)


@pytest.mark.parametrize("gating", [True, False])
def test_attention(gating):
    mine, other = pair("AttentionWithFastKANTransform", 5, 4, 6, 3, 2, gating, theirs="Attention")
    assert list(mine.state_dict()) == list(other.state_dict())
    q, k, v, bias = (torch.randn(2, *shape) for shape in ((7, 5), (9, 4), (9, 6), (7, 9)))
    assert_same(mine, other, q, k, v)
    assert_same(mine, other, q, k, v, bias)


def test_parts():
    mine, other = pair("RadialBasisFunction", -1.0, 2.0, 5, denominator=0.3)
    x = torch.randn(4, 3)
    assert torch.equal(mine(x), other(x)) and not mine.grid.requires_grad
    mine, other = pair("SplineLinear", 12, 3, init_scale=0.2)
    assert torch.equal(mine.weight, other.weight) and mine.bias is None


def test_a_curve_is_what_one_edge_computes():
    layer = fastkan.FastKANLayer(3, 2, use_base_update=False, use_layernorm=False)
    x, y = layer.plot_curve(1, 0, num_pts=50, num_extrapolate_bins=1)
    assert x[0] == layer.rbf.grid_min - layer.rbf.denominator
    alone = torch.full((50, 3), 1e9)  # the other Gaussians are 0 there
    alone[:, 1] = x
    torch.testing.assert_close(layer(alone)[:, 0], y, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_errors_are_at_most_twice_those_of_the_formula(native, dtype):
    mine, other = pair("FastKANLayer", 40, 50, use_layernorm=False)
    rows = torch.randn(200, 40).to(dtype)
    mine.fastkan_backend = "native"
    results = []
    for layer in (mine.to(dtype), other.to(dtype), copy.deepcopy(other).double()):
        x = rows.to(layer.spline_linear.weight.dtype).requires_grad_()
        y = layer(x)
        results.append([y, *torch.autograd.grad((y * y.detach().sin()).sum(), (x, layer.spline_linear.weight))])
    for found, plain, truth in zip(*results, strict=True):
        assert (found.double() - truth).norm() <= 2 * (plain.double() - truth).norm()


def test_other_gaussian_widths_run_on_plain_torch():
    mine, other = pair("FastKANLayer", 3, 2)
    for layer in (mine, other):
        layer.rbf.denominator *= 1.5
    mine.fastkan_backend = "reference"
    assert_same(mine, other, torch.randn(8, 3))


def test_there_and_back_is_the_same_model():
    model = nn.Sequential(peers.FastKAN([3, 4, 2], base_activation=F.gelu), nn.Linear(2, 2)).eval()
    x = torch.randn(8, 3)
    mine = from_fast_kan(model)
    assert isinstance(mine[0].layers[0], fastkan.FastKANLayer) and type(model[0].layers[0]) is peers.FastKANLayer
    torch.testing.assert_close(mine(x), model(x), **CLOSE)
    again = to_fast_kan(mine, peers.FastKANLayer)
    assert type(again[0].layers[0]) is peers.FastKANLayer and not again[0].layers[0].training
    assert torch.equal(again(x), model(x))


def test_a_model_saved_whole_by_fast_kan_is_read_as_one_of_fastkan():
    class Theirs(pickle.Unpickler):
        """A file of fast-kan names its module fastkan.fastkan."""

        def find_class(self, module, name):
            return super().find_class("fastkan.fastkan" if module == peers.__name__ else module, name)

    model, x = peers.FastKAN([3, 4, 2]), torch.randn(8, 3)
    mine = Theirs(io.BytesIO(pickle.dumps(model))).load()
    assert type(mine) is fastkan.FastKAN and type(mine.layers[0]) is fastkan.FastKANLayer
    assert_same(mine, model, x)


def test_errors():
    with pytest.raises(ValueError, match="input_dim=1 with use_layernorm=True: expected at least 2"):
        fastkan.FastKANLayer(1, 3)
    with pytest.raises(ValueError, match="num_grids=1: expected"):
        fastkan.RadialBasisFunction(num_grids=1)
    with pytest.raises(ValueError, match=r"x has shape \[4, 2\]: expected \[..., 3\]"):
        fastkan.FastKANLayer(3, 2)(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="without a layer to convert"):
        from_fast_kan(fastkan.FastKAN([3, 2]))
