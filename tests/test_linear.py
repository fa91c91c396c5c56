"""KANLinear: values, initialization, devices and dtypes, saving and loading, and efficient-kan's names."""

import copy
import io
import math
import pickle
import re

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from torch import nn
from torch.nn.utils import parametrize, prune

import fastkan
from fastkan import KANLinear
from fastkan.functional import kan_linear
from support.peers import KANLinear as EfficientKAN

N, I, O, G, K = 11, 3, 4, 5, 3  # noqa: E741


def inputs(*shape: int, dtype=torch.float32) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype) * 2 - 1


def layer(*args, seed: int = 0, **options) -> KANLinear:
    return KANLinear(*(args or (I, O)), generator=torch.Generator().manual_seed(seed), **options)


def same_state(a: nn.Module, b: dict) -> bool:
    state = a.state_dict()
    return state.keys() == b.keys() and all(torch.equal(state[k], b[k]) for k in b)


# Values


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("base", ["silu", "identity", "zero"])
def test_is_kan_linear(base, bias, scale):
    kan = layer(base_activation=base, bias=bias, enable_standalone_scale_spline=scale, outside="linear")
    if bias:
        nn.init.normal_(kan.bias)
    if scale:
        nn.init.normal_(kan.spline_scale)
    x = 2 * inputs(N, I)
    y = kan_linear(
        x, kan.coef, kan.grid, kan.base_weight, kan.bias, scale=kan.spline_scale, degree=K, base=base, outside="linear",
        uniform=True,
    )  # fmt: skip
    assert torch.equal(kan(x), y)


@pytest.mark.parametrize("activation", [nn.GELU, nn.GELU(), torch.tanh, lambda x: x * x])
def test_any_base(activation):
    kan = layer(base_activation=activation, bias=True)
    function = activation() if isinstance(activation, type) else activation
    x = inputs(N, I).requires_grad_()
    y = kan_linear(x, kan.coef, kan.grid, kan.base_weight, kan.bias, degree=K, base=function, uniform=True)
    assert torch.equal(kan(x), y)
    kan(x).sum().backward()
    assert kan.base_weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "activation, name",
    [(nn.SiLU, "silu"), (nn.SiLU(), "silu"), (nn.functional.silu, "silu"), (nn.Identity, "identity"), (None, "zero")],
)
def test_fused_bases(activation, name):
    kan, named = layer(base_activation=activation), layer(base_activation=name)
    x = inputs(N, I)
    assert kan._fused and kan._spec == named._spec
    assert torch.equal(kan(x), named(x))
    assert (kan.base_weight is None) == (name == "zero")


@pytest.mark.parametrize("shape", [(I,), (1, I), (0, I), (2, 3, I), (2, 0, 5, I)])
def test_leading_dimensions(shape):
    kan = layer(bias=True)
    x = inputs(*shape).requires_grad_()
    y = kan(x)
    assert y.shape == (*shape[:-1], O)
    assert torch.allclose(y.reshape(-1, O), kan(x.reshape(-1, I)))
    y.sum().backward()
    assert x.grad.shape == x.shape


def test_non_contiguous_input():
    kan = layer()
    x = inputs(I, 2, N).permute(2, 1, 0)
    assert torch.equal(kan(x), kan(x.contiguous()))


@pytest.mark.parametrize("degree", range(6))
def test_float64_is_exact(degree):
    """Against scipy on the very knots that were asked for, although the layer was made in float32."""
    size = 200
    kan = layer(2, 3, size, degree, base_activation=None, grid_range=(-0.7, 1.3)).double()
    nn.init.normal_(kan.coef)
    h = 2.0 / size
    knots = -0.7 + h * np.arange(-degree, size + degree + 1)
    x = -0.7 + (inputs(500, 2, dtype=torch.float64) + 1)
    # away from knots, where rounding decides the interval of a step function
    x = torch.where(((x + 0.7) / h % 1 - 0.5).abs() < 0.49, x, x + 0.05 * h).clamp(-0.7 + 0.02 * h, 1.3 - 0.02 * h)
    truth = sum(BSpline(knots, kan.coef[i].detach().numpy(), degree)(x[:, i].numpy()) for i in range(2))
    assert np.abs(kan(x).detach().numpy() - truth).max() <= 1e-13 * np.abs(truth).max()


def test_sixteen_bits():
    kan = layer(dtype=torch.bfloat16, bias=True)
    exact = copy.deepcopy(kan).double()
    x = inputs(N, I, dtype=torch.bfloat16)
    y = kan(x)
    assert y.dtype == torch.bfloat16 and kan.grid.dtype == torch.float64
    assert torch.allclose(y.double(), exact(x.double()), atol=2e-2)
    y.sum().backward()
    assert kan.coef.grad.dtype == torch.bfloat16
    assert layer().half()(x).dtype == torch.float16


def test_autocast():
    kan = layer(bias=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert kan(inputs(N, I)).dtype == torch.bfloat16


def test_parametrized_and_pruned():
    kan, x = layer(bias=True), inputs(N, I)
    expected = kan_linear(x, kan.coef.tanh(), kan.grid, kan.base_weight, kan.bias, degree=K, uniform=True)
    parametrize.register_parametrization(kan, "coef", nn.Tanh())
    assert torch.equal(kan(x), expected)
    kan = layer()
    prune.random_unstructured(kan, "base_weight", amount=1.0)
    assert torch.equal(kan(x), kan_linear(x, kan.coef, kan.grid, degree=K, uniform=True))


def test_functional_call():
    kan, other, x = layer(), layer(seed=1), inputs(N, I)
    assert torch.equal(torch.func.functional_call(kan, other.state_dict(), (x,)), other(x))


def test_compiles_as_one_graph():
    kan, x = layer(bias=True), inputs(N, I)
    assert torch.equal(torch.compile(kan, fullgraph=True, backend="eager")(x), kan(x))


# How it starts


def test_seed():
    assert same_state(layer(seed=3), layer(seed=3).state_dict())
    assert not torch.equal(layer(seed=3).coef, layer(seed=4).coef)
    torch.manual_seed(5)
    first = KANLinear(I, O)
    torch.manual_seed(5)
    assert same_state(KANLinear(I, O), first.state_dict())


def test_start():
    kan = layer(50, 60, 7, scale_noise=0.3, scale_spline=2.0, scale_base=0.5, bias=True)
    noise = 0.3 * 2.0 / (2 * 7)
    assert kan.coef.abs().max() <= noise
    assert kan.coef.std().item() == pytest.approx(noise / math.sqrt(3), rel=0.02)
    expected = nn.init.kaiming_uniform_(torch.empty(60, 50), a=math.sqrt(5) * 0.5)
    assert kan.base_weight.std().item() == pytest.approx(expected.std().item(), rel=0.1)
    assert kan.base_weight.abs().max().item() == pytest.approx(expected.abs().max().item(), rel=0.01)
    assert not kan.bias.any()
    scaled = layer(scale_spline=2.0, enable_standalone_scale_spline=True)
    assert (scaled.spline_scale == 2.0).all()


def test_large_start_is_repeatable_at_any_number_of_threads(threads):
    threads(2)
    two = layer(70, 300, 200)
    threads(1)
    one = layer(70, 300, 200)
    assert torch.equal(one.coef, two.coef)
    assert one.coef.std().item() == pytest.approx(0.1 / 400 / math.sqrt(3), rel=0.01)
    assert len(one.coef.flatten()[:: 1 << 22].unique()) == 2


def test_meta_device():
    kan = KANLinear(I, O, device="meta")
    assert kan.coef.is_meta and kan.grid.is_meta and kan.grid.dtype == torch.float64
    kan.half().to_empty(device="cpu").reset_parameters()
    assert kan.grid.dtype == torch.float64 and kan.uniform
    assert torch.equal(kan.grid, layer().grid)
    assert kan(inputs(N, I)).isfinite().all()


def test_reset_restores_the_grid():
    kan = layer()
    kan.update_grid(inputs(50, I) ** 3 + 2)
    assert not kan.uniform
    kan.reset_parameters(torch.Generator().manual_seed(0))
    assert same_state(kan, layer().state_dict()) and kan.uniform


# How it is cast, copied and saved


@pytest.mark.parametrize("cast", ["half", "bfloat16", "float", "double"])
def test_grid_stays_float64(cast):
    kan = layer(grid_range=(-0.1, 0.3))
    grid = kan.grid.clone()
    getattr(kan, cast)()
    assert kan.grid.dtype == torch.float64 and torch.equal(kan.grid, grid)
    assert kan.coef.dtype != torch.float64 or cast == "double"
    assert kan.to(torch.float16).double().float().grid.equal(grid)


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_copies(how):
    kan = layer(bias=True, outside="clamp", base_activation=nn.GELU)
    kan.update_grid(inputs(30, I) ** 3)
    kan(inputs(N, I)).sum().backward()
    if how == "deepcopy":
        twin = copy.deepcopy(kan)
    elif how == "pickle":
        twin = pickle.loads(pickle.dumps(kan))
    else:
        file = io.BytesIO()
        torch.save(kan, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    assert repr(twin) == repr(kan) and not twin.uniform
    assert torch.equal(twin(inputs(N, I)), kan(inputs(N, I)))


def test_state_dict_with_weights_only():
    kan = layer(bias=True, enable_standalone_scale_spline=True)
    kan.update_grid(inputs(30, I) ** 3)
    file = io.BytesIO()
    torch.save(kan.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    twin = layer(bias=True, enable_standalone_scale_spline=True, seed=9)
    twin.load_state_dict(state)
    assert same_state(twin, kan.state_dict()) and not twin.uniform
    assert torch.equal(twin(inputs(N, I)), kan(inputs(N, I)))


@pytest.mark.parametrize("assign", [False, True])
def test_load_of_another_grid_size(assign):
    kan = layer(I, O, 12)
    state = kan.state_dict()
    model = nn.Sequential(nn.Identity(), layer(I, O, seed=7))
    model[1].coef.requires_grad_(False)
    model.load_state_dict({f"1.{k}": v for k, v in state.items()}, assign=assign)
    assert model[1].grid_size == 12 and not model[1].coef.requires_grad
    assert torch.equal(model(inputs(N, I)), kan(inputs(N, I)))
    assert list(kan.state_dict()) == list(state)


@pytest.mark.parametrize("other", [(I, O + 1), (I + 1, O), (I, O, G, 2)])
def test_load_of_another_shape(other):
    kan = layer()
    before = {k: v.shape for k, v in kan.state_dict().items()}
    with pytest.raises(RuntimeError, match=r"size mismatch for coef(.|\n)*Only grid_size may differ"):
        kan.load_state_dict(layer(*other).state_dict())
    assert {k: v.shape for k, v in kan.state_dict().items()} == before


def test_load_is_strict():
    state = layer(bias=True).state_dict()
    with pytest.raises(RuntimeError, match='Unexpected key.*"bias"'):
        layer().load_state_dict(state)
    with pytest.raises(RuntimeError, match='Missing key.*"coef"'):
        layer().load_state_dict({"grid": state["grid"]})
    assert layer().load_state_dict(state, strict=False).unexpected_keys == ["bias"]


def test_outside_may_be_set():
    kan = layer()
    kan.outside = "clamp"
    x = 5 * inputs(N, I)
    assert torch.equal(kan(x), layer(outside="clamp")(x))
    with pytest.raises(ValueError, match="outside='wrap': expected one of 'zero', 'linear', 'clamp'"):
        kan.outside = "wrap"


def test_extra_repr():
    assert repr(layer(base_activation=None)) == (
        "KANLinear(in_features=3, out_features=4, grid_size=5, spline_order=3, grid_range=(-1.0, 1.0), bias=False, "
        "outside='zero', uniform=True, base_activation='zero')"
    )
    text = repr(layer(enable_standalone_scale_spline=True, backend="reference"))
    assert "enable_standalone_scale_spline=True, backend='reference'" in text and "SiLU()" in text


def test_backend(calls):
    layer(backend="reference")(inputs(N, I))
    assert calls["reference"]["kan_out"] == 1 and not calls["native"]


# efficient-kan


def efficient_kan(size: int, low: float, high: float, scaler: bool) -> EfficientKAN:
    """Its layer with random parameters."""
    peer = EfficientKAN(I, O, size, K, grid_range=(low, high), enable_standalone_scale_spline=scaler)
    for p in peer.parameters():
        nn.init.normal_(p)
    return peer


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("ours, theirs", [(False, True), (True, True), (True, False), (False, False)])
@pytest.mark.parametrize("low, high, size", [(-1, 1, 5), (0.1, 0.7, 5), (-1, 1, 60)])
def test_efficient_kan_state_dict(low, high, size, ours, theirs, double):
    torch.manual_seed(0)
    peer = efficient_kan(size, low, high, theirs)
    if double:
        peer.double()
    kan = layer(I, O, enable_standalone_scale_spline=ours)
    kan.load_state_dict(peer.state_dict())
    assert kan.grid_size == size and kan.uniform
    x = (low + high) / 2 + inputs(100, I) * (high - low) / 2
    truth = peer.double()(x.double())
    assert (kan(x) - truth).abs().max() <= 1e-5 * size * truth.abs().max()
    assert (kan.double()(x.double()) - truth).abs().max() <= 1e-6 * size * truth.abs().max()


def test_efficient_kan_knots_become_exact():
    kan = layer(I, O, grid_range=(-0.3, 0.9))
    kan.load_state_dict(efficient_kan(G, -0.3, 0.9, False).state_dict())
    assert torch.equal(kan.grid, layer(I, O, grid_range=(-0.3, 0.9)).grid)


def test_efficient_kan_uneven_knots_stay():
    peer = efficient_kan(G, -1, 1, False)
    peer.grid[:, K + 2] += 0.01
    kan = layer()
    kan.load_state_dict(peer.state_dict())
    assert torch.equal(kan.grid, peer.grid.double()) and not kan.uniform
    x = inputs(N, I, dtype=torch.float64)
    assert torch.allclose(kan.double()(x), peer.double()(x), atol=1e-12)


def test_efficient_kan_names():
    kan = layer(enable_standalone_scale_spline=True)
    nn.init.normal_(kan.spline_scale)
    assert kan.spline_weight.shape == (O, I, G + K) and kan.spline_weight.data_ptr() == kan.coef.data_ptr()
    assert torch.equal(kan.spline_scaler, kan.spline_scale.T)
    assert torch.equal(kan.scaled_spline_weight, kan.spline_weight * kan.spline_scaler[..., None])
    plain = layer()
    assert plain.spline_scaler is None and torch.equal(plain.scaled_spline_weight, plain.spline_weight)
    x = inputs(N, I)
    phi = kan.b_splines(x)
    assert phi.shape == (N, I, G + K) and phi.dtype == x.dtype
    assert torch.allclose(phi.sum(-1), torch.ones(N, I))
    y = nn.functional.silu(x) @ kan.base_weight + torch.einsum("nif,oif->no", phi, kan.scaled_spline_weight)
    assert torch.allclose(kan(x), y, atol=1e-6)


def test_curve2coeff():
    kan = layer().double()
    x = inputs(60, I, dtype=torch.float64)
    y = torch.einsum("nif,ifo->nio", kan.b_splines(x), kan.coef)
    assert torch.allclose(kan.curve2coeff(x, y), kan.spline_weight, atol=1e-10)
    few = torch.tensor([[0.1, 0.1, 0.1], [0.1, 0.1, 0.1], [0.5, 0.1, -0.5]], dtype=torch.float64)
    values = torch.randn(1, I, O, dtype=torch.float64).repeat(3, 1, 1)
    coef = kan.curve2coeff(few, values)  # fewer and repeated points: still through all of them
    assert torch.allclose(torch.einsum("nif,oif->nio", kan.b_splines(few), coef), values)
    with pytest.raises(ValueError, match=r"shapes \[60, 3\], \[60, 4\]: expected \[N, I\] and \[N, I, O\]"):
        kan.curve2coeff(x, y[:, 0])


# Regularization, and x outside the grid


@pytest.mark.parametrize("base, scale", [("silu", False), ("silu", True), (None, False), (nn.GELU, True)])
def test_regularization(base, scale):
    kan = layer(base_activation=base, enable_standalone_scale_spline=scale).double()
    if scale:
        nn.init.normal_(kan.spline_scale)
    x = inputs(N, I, dtype=torch.float64)
    phi = torch.einsum("nif,oif->nio", kan.b_splines(x), kan.scaled_spline_weight)
    if base is not None:
        phi = phi + kan.base_activation(x)[..., None] * kan.base_weight
    mean = phi.abs().mean(0)
    p = mean / mean.sum()
    truth = 2 * mean.sum() - 3 * (p * p.log()).sum()
    found = kan.regularization(x.view(1, N, I), l1=2.0, entropy=3.0)
    assert torch.allclose(found, truth)
    assert torch.allclose(kan.edge_mean(x), mean)
    gradients = (torch.autograd.grad(loss, list(kan.parameters())) for loss in (found, truth))
    for got, expected in zip(*gradients, strict=True):
        assert torch.allclose(got, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("kind", ["activations", "weights"])
def test_regularization_of_nothing(kind, dtype):
    """0 log 0 is 0, and the gradient is finite."""
    kan = layer(dtype=dtype)
    nn.init.zeros_(kan.coef)
    nn.init.zeros_(kan.base_weight)
    loss = kan.regularization(inputs(N, I)) if kind == "activations" else kan.regularization_loss()
    loss.backward()
    assert loss == 0 and kan.coef.grad.isfinite().all()


def test_regularization_loss_matches_efficient_kan():
    kan = layer()
    mean = kan.spline_weight.abs().mean(-1)
    p = mean / mean.sum()
    truth = 2 * mean.sum() - 3 * (p * p.log()).sum()
    assert torch.allclose(kan.regularization_loss(2.0, 3.0), truth)
    kan.coef.data[0] = 0
    assert kan.regularization_loss().isfinite()


def test_outside_share():
    kan = layer(grid_range=(0, 1))
    x = torch.tensor([[0.0, -0.1, math.nan], [1.0, 0.5, math.inf], [0.5, 2.0, 0.5], [0.1, 3.0, 0.5]])
    assert torch.equal(kan.outside_share(x), torch.tensor([0.0, 0.75, 0.5]))
    assert torch.equal(kan.outside_share(x.view(2, 2, I)), torch.tensor([0.0, 0.75, 0.5]))
    assert kan.outside_share(x[:0]).isnan().all()


# Errors


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"in_features": 0}, ValueError, "in_features=0: expected an integer, at least 1"),
        ({"out_features": 2.0}, TypeError, "out_features=2.0: expected an integer, at least 1"),
        ({"grid_size": 0}, ValueError, "grid_size=0: expected an integer, at least 1"),
        ({"grid_size": True}, TypeError, "grid_size=True: expected an integer, at least 1"),
        ({"spline_order": 6}, ValueError, "spline_order=6: expected an integer from 0 to 5"),
        ({"spline_order": -1}, ValueError, "spline_order=-1: expected an integer from 0 to 5"),
        ({"scale_noise": math.nan}, ValueError, "scale_noise=nan: expected a finite number"),
        ({"scale_base": "1"}, TypeError, "scale_base='1': expected a finite number"),
        ({"grid_eps": 1.5}, ValueError, "grid_eps=1.5: expected a finite number, at least 0.0 and at most 1.0"),
        ({"grid_range": (1, -1)}, ValueError, r"grid_range=\(1, -1\): expected two numbers, ascending"),
        ({"grid_range": (0, math.inf)}, ValueError, r"grid_range\[1\]=inf: expected a finite number"),
        ({"grid_range": 1}, TypeError, "grid_range=1: expected two numbers, ascending"),
        ({"base_activation": "gelu"}, ValueError, "base_activation='gelu': expected one of 'silu', 'identity', 'zero'"),
        ({"base_activation": 3}, TypeError, "base_activation=3: expected a name, a function"),
        ({"outside": "wrap"}, ValueError, "outside='wrap': expected one of 'zero', 'linear', 'clamp'"),
        ({"backend": "cuda"}, ValueError, "backend='cuda': expected None or one of 'native', 'triton', 'dense'"),
        ({"dtype": torch.int32}, TypeError, "dtype=torch.int32: expected float32"),
    ],
)
def test_constructor_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        KANLinear(**{"in_features": I, "out_features": O, **arguments})


@pytest.mark.parametrize("method", ["__call__", "b_splines", "outside_share", "edge_mean", "regularization"])
def test_input_errors(method):
    with pytest.raises(ValueError, match=r"x has shape \[11, 4\]: expected \[\.\.\., 3\]"):
        getattr(layer(), method)(inputs(N, 4))


def test_exports():
    assert fastkan.KANLinear is fastkan.nn.KANLinear


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([1.0, 2.0], "x is a list: expected a tensor"),
        (torch.ones(3, 2, dtype=torch.int64), "x.dtype is torch.int64: expected float32, float64, bfloat16 or float16"),
    ],
)
def test_input_of_another_type_is_an_error(x, message):
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        KANLinear(2, 3)(x)
