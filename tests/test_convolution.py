"""Convolutions: the definition, which is unfold and KANLinear; derivatives, memory, layouts, grids, states, errors."""

import copy
import io
import itertools
import math
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from fastkan import KANLinear, use_backend
from fastkan.convolution import maps, pixels
from fastkan.functional import kan_linear
from fastkan.nn import (
    KANConv1d,
    KANConv2d,
    KANConv3d,
    KANConvTranspose1d,
    KANConvTranspose2d,
    KANConvTranspose3d,
    convolution,
)

CONV = {1: KANConv1d, 2: KANConv2d, 3: KANConv3d}
TRANSPOSED = {1: KANConvTranspose1d, 2: KANConvTranspose2d, 3: KANConvTranspose3d}
N, I, O = 2, 4, 6  # noqa: E741
SIZES = (7, 6, 5)


def made(kind: type, *args, seed: int = 0, **options):
    """A convolution with a bias that is not 0, in float64."""
    options = {"dtype": torch.float64, "generator": torch.Generator().manual_seed(seed), **options}
    layer = kind(*args, **options)
    if layer.bias is not None:
        nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(seed + 1))
    return layer


def images(dims: int, channels: int = I, dtype=torch.float64, count: int = N) -> Tensor:
    """Most of them on the grid range, some beside it."""
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, channels, *SIZES[:dims], generator=generator, dtype=dtype) * 3 - 1.5


def of_group(layer, group: int) -> tuple[Tensor, Tensor | None, Tensor]:
    """KANLinear's coef [T I, F, O], base_weight [T I, O] and grid [T I, M], of a group's channels at every place."""
    edges, share = layer.edges, layer.in_channels // layer.groups
    coef, scale, weight, _ = edges.weights()
    coef = coef if scale is None else coef * scale[:, None]
    own, places = slice(group * share, (group + 1) * share), math.prod(layer.kernel_size)
    coef = coef[own].unflatten(2, (places, -1)).permute(2, 0, 1, 3).flatten(0, 1)
    weight = None if weight is None else weight[own].unflatten(1, (places, -1)).transpose(0, 1).flatten(0, 1)
    return coef, weight, edges.grid[own].repeat(places, 1)


def of_rows(layer, rows: Tensor, group: int) -> Tensor:
    coef, weight, grid = of_group(layer, group)
    return kan_linear(
        rows, coef, grid, weight, degree=layer.edges.spline_order, outside=layer.edges.outside, backend="reference",
        base=layer.edges.base_name or layer.edges.base_activation,
    )  # fmt: skip


def definition(layer, x: Tensor) -> Tensor:
    """Unfold, then KANLinear's formula by the reference."""
    dims, groups = layer.dims, layer.groups
    padding = layer.padding
    if padding == "same":
        both = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        beside = [(b // 2, b - b // 2) for b in both]
    else:
        beside = [(0, 0)] * dims if padding == "valid" else [(p, p) for p in padding]
    mode = {"zeros": "constant"}.get(layer.padding_mode, layer.padding_mode)
    x = F.pad(x, [p for pair in reversed(beside) for p in pair], mode=mode)
    for d, (k, s, dilation) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        x = x.unfold(2 + d, dilation * (k - 1) + 1, s)[..., ::dilation]  # N I out... k...
    x = x.flatten(2 + dims).movedim(1, -1)  # N out... T I
    share = layer.in_channels // groups
    parts = [of_rows(layer, x[..., g * share : (g + 1) * share].flatten(-2), g) for g in range(groups)]
    y = torch.cat(parts, -1).movedim(-1, 1)
    return y if layer.bias is None else y + layer.bias.view(-1, *[1] * dims)


def transposed_definition(layer, x: Tensor) -> Tensor:
    """Every pixel adds its functions where the kernel puts them."""
    dims, groups, share = layer.dims, layer.groups, layer.in_channels // layer.groups
    places = list(itertools.product(*map(range, layer.kernel_size)))
    own = zip(x.shape[2:], layer.stride, layer.dilation, layer.kernel_size, layer.output_padding, strict=True)
    sizes = [(n - 1) * s + d * (k - 1) + 1 + more for n, s, d, k, more in own]
    y = x.new_zeros(len(x), layer.out_channels, *sizes)
    for g in range(groups):
        coef, weight, grid = of_group(layer, g)
        outputs = slice(g * coef.shape[2], (g + 1) * coef.shape[2])
        rows = x[:, g * share : (g + 1) * share].movedim(1, -1)
        for n, place in enumerate(places):
            part = slice(n * share, (n + 1) * share)
            values = kan_linear(
                rows, coef[part], grid[part], None if weight is None else weight[part], backend="reference",
                degree=layer.edges.spline_order, outside=layer.edges.outside,
            )  # fmt: skip
            at = [
                slice(t * d, t * d + (size - 1) * s + 1, s)
                for t, d, s, size in zip(place, layer.dilation, layer.stride, x.shape[2:], strict=True)
            ]
            y[(slice(None), outputs, *at)] += values.movedim(-1, 1)
    crop = [slice(p, size - p) for p, size in zip(layer.padding, sizes, strict=True)]
    y = y[(..., *crop)]
    return y if layer.bias is None else y + layer.bias.view(-1, *[1] * dims)


def assert_same(actual: Tensor, expected: Tensor, terms: int) -> None:
    """Up to rounding in a sum of that many terms of the size of the largest result."""
    bound = 4 * terms * torch.finfo(expected.dtype).eps * max(1.0, float(expected.detach().abs().max()))
    torch.testing.assert_close(actual, expected, rtol=0, atol=bound)


def assert_matches(layer, x: Tensor, formula) -> None:
    """Values and gradients by x and all parameters are those of the formula."""
    x = x.requires_grad_()
    y, expected = layer(x), formula(layer, x)
    terms = layer.in_channels * math.prod(layer.kernel_size) * layer.edges.coef.shape[1]
    assert_same(y, expected, terms)
    u = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
    wanted = [x, *layer.parameters()]
    for got, want in zip(*(torch.autograd.grad(f, wanted, u) for f in (y, expected)), strict=True):
        assert_same(got, want, terms * y[0, 0].numel() * len(x))


@pytest.fixture(params=["maps", "pixels"])
def way(request, monkeypatch):
    """Either way to compute it, wherever it can, in blocks of a few rows."""
    monkeypatch.setattr(maps, "CPU_BLOCK", 600)
    monkeypatch.setattr(pixels, "CPU_BLOCK", 600)
    monkeypatch.setattr(convolution, "BORDER_FROM", 1)
    monkeypatch.setattr(pixels, "FUNCTIONS_FROM", 0.0 if request.param == "pixels" else math.inf)
    monkeypatch.setattr(pixels, "CHANNELS_FROM", 0)
    return request.param


OPTIONS = [
    {}, {"padding": 1}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": 2}, {"groups": 2, "padding": 1},
    {"groups": I, "padding": 2, "bias": False}, {"padding": "same"}, {"padding": 1, "padding_mode": "reflect"},
    {"padding": 2, "padding_mode": "replicate", "stride": 3}, {"padding": 1, "padding_mode": "circular", "groups": 2},
    {"padding": 3, "outside": "linear"}, {"padding": 1, "base_activation": None}, {"padding": 1, "spline_order": 1},
    {"padding": 1, "base_activation": nn.GELU, "groups": 2}, {"padding": 1, "enable_standalone_scale_spline": True},
]  # fmt: skip


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_is_unfold_and_kan_linear(options, moved, way):
    """moved: with knots of its own for every channel."""
    outputs = 2 * I if options.get("groups") == I else O
    layer = made(KANConv2d, I, outputs, (3, 2), **options)
    if moved:
        layer.update_grid(images(2))
    assert_matches(layer, images(2), definition)


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize(
    "options", [{}, {"padding": 1, "groups": 2}, {"padding": 2, "dilation": 2, "stride": 2}], ids=str
)
def test_series_and_volumes(dims, options, way):
    assert_matches(made(CONV[dims], I, O, 3, **options), images(dims), definition)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "padding": 1, "output_padding": 1}, {"groups": 2, "dilation": 2}, {"stride": 3, "bias": False}],
    ids=str,
)
def test_transposed(dims, options, monkeypatch):
    monkeypatch.setattr(maps, "CPU_BLOCK", 600)
    layer = made(TRANSPOSED[dims], I, O, 3, **options)
    assert_matches(layer, images(dims), transposed_definition)


def test_shapes_are_those_of_torch():
    for options in ({"stride": 2, "padding": 1}, {"dilation": (2, 1), "stride": (1, 3)}):
        x = images(2, dtype=torch.float32)
        assert KANConv2d(I, O, 3, **options)(x).shape == nn.Conv2d(I, O, 3, **options)(x).shape
        of_torch = nn.ConvTranspose2d(I, O, 3, **options)
        assert KANConvTranspose2d(I, O, 3, **options)(x).shape == of_torch(x).shape


@pytest.mark.parametrize("backend", ["reference", "dense"])
def test_other_backends(backend):
    layer = made(KANConv2d, I, O, 3, padding=1)
    layer.update_grid(images(2))
    with use_backend(backend):
        assert_matches(layer, images(2), definition)


# Derivatives


@pytest.mark.parametrize("kind", [KANConv2d, KANConvTranspose2d])
@pytest.mark.parametrize("moved", [False, True])
def test_derivatives_of_the_gradient(kind, moved, way):
    layer = made(kind, 2, 2, 2, padding=1, grid_size=3)
    x = images(2, 2)[:1, :, :3, :3]
    if moved:
        layer.update_grid(x)
    x = x.clone().requires_grad_()
    names = list(dict(layer.named_parameters()))

    def f(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(f, (x, *layer.parameters()))
    assert torch.autograd.gradgradcheck(f, (x, *layer.parameters()))


def test_transforms():
    layer = made(KANConv2d, I, O, 3, padding=1)
    x, dx = images(2), images(2).flip(0)
    value, tangent = torch.func.jvp(layer, (x,), (dx,))
    with torch.no_grad():
        step = 1e-6
        slope = (layer(x + step * dx) - layer(x - step * dx)) / (2 * step)
    assert_same(value, layer(x), 1000)
    torch.testing.assert_close(tangent, slope, rtol=0, atol=1e-7)  # the third derivative times step^2, and rounding
    each = torch.func.vmap(layer)(torch.stack([x, dx]))
    assert_same(each, torch.stack([layer(x), layer(dx)]), 1000)
    layers = [layer, made(KANConv2d, I, O, 3, padding=1, seed=5)]
    state = torch.func.stack_module_state(layers)
    ensemble = torch.func.vmap(lambda *state: torch.func.functional_call(layer, state, x))(*state)
    assert_same(ensemble, torch.stack([one(x) for one in layers]), 1000)


@pytest.mark.parametrize("kind", [KANConv1d, KANConv2d, KANConvTranspose2d])
def test_batched_gradients(kind, way):
    layer = made(kind, I, O, 2)
    wanted = [images(kind.dims).requires_grad_(), *layer.parameters()]
    y = layer(wanted[0])
    u = torch.randn(3, *y.shape, dtype=y.dtype)
    batched = torch.autograd.grad(y, wanted, u, is_grads_batched=True, retain_graph=True)
    each = zip(*(torch.autograd.grad(y, wanted, part, retain_graph=True) for part in u), strict=True)
    for got, want in zip(batched, each, strict=True):
        assert_same(got, torch.stack(want), 10000)


@pytest.mark.parametrize("needed", ["x", "parameters"])
def test_only_gradients_that_are_needed(needed, way):
    layer = made(KANConv2d, I, O, 3)
    x = images(2).requires_grad_(needed == "x")
    layer.requires_grad_(needed == "parameters")
    wanted = [x] if needed == "x" else list(layer.parameters())
    u = torch.randn_like(layer(x))
    for got, want in zip(*(torch.autograd.grad(f, wanted, u) for f in (layer(x), definition(layer, x))), strict=True):
        assert_same(got, want, 10000)


def test_parameters_of_a_base_function():
    layer = made(KANConv2d, I, O, 3, padding=1, base_activation=nn.PReLU(dtype=torch.float64))
    assert_matches(layer, images(2), definition)
    layer(images(2)).sum().backward()
    assert layer.edges.base_activation.weight.grad is not None


# Memory


def test_autograd_saves_x_and_the_parameters(way):
    layer = made(KANConv2d, I, O, 3)
    x, saved = images(2).requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        layer(x)
    own = {t.untyped_storage().data_ptr() for t in (x, layer.edges.grid, *layer.parameters())}
    assert {t.untyped_storage().data_ptr() for t in saved} <= own


class Largest(TorchDispatchMode):
    """The most elements of a tensor that an operator makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for t in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(t, Tensor):
                self.elements = max(self.elements, t.numel())
        return made


@pytest.mark.parametrize("size", [16, 64])
def test_blocks_bound_the_memory(size, monkeypatch, way):
    """No tensor is larger than a block, x or y: blocks of many images, and of rows of a large one."""
    count, block = 4096 // size**2, 9 * 9 * size * 6
    for module in (maps, pixels):
        monkeypatch.setattr(module, "CPU_BLOCK", block)
    layer = KANConv2d(3, 4, 3, padding=1)
    x = torch.randn(count, 3, size, size, requires_grad=True)
    with Largest() as largest:
        layer(x).sum().backward()
    assert largest.elements <= max(block, 5 * (size + 2) ** 2 * count) < x.numel() * 9 * 9 / 20


# Layouts, dtypes, sizes


def test_channels_last():
    layer, x = made(KANConv2d, I, O, 3, padding=1), images(2)
    y = layer(x.contiguous(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last) and layer(x).is_contiguous()
    assert_same(y, layer(x), 1000)


@pytest.mark.parametrize("kind", [KANConv1d, KANConv2d, KANConv3d, KANConvTranspose2d])
def test_without_a_batch_dimension(kind):
    layer = made(kind, I, O, 3, padding=1)
    x = images(kind.dims)
    assert torch.equal(layer(x[0]), layer(x[:1])[0])


@pytest.mark.parametrize("kind", [KANConv2d, KANConvTranspose2d])
def test_an_empty_batch(kind, way):
    layer = made(kind, I, O, 3)
    x = images(2)[:0].requires_grad_()
    y = layer(x)
    assert y.shape == (0, *layer(images(2)).shape[1:])
    y.sum().backward()
    assert x.grad.shape == x.shape and not any(p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_dtypes(dtype, way):
    """Functions and parameters have the dtype's rounding, of sums of terms no larger than 1."""
    exact = made(KANConv2d, I, O, 3, padding=1)
    layer, x = copy.deepcopy(exact).to(dtype), images(2, dtype=torch.float32).to(dtype)
    y = layer(x.requires_grad_())
    assert y.dtype == dtype and layer.edges.grid.dtype == torch.float64
    torch.testing.assert_close(y.double(), exact(x.double()), rtol=0, atol=40 * torch.finfo(dtype).eps)
    y.sum().backward()
    assert x.grad.dtype == dtype and x.grad.isfinite().all()


def test_autocast():
    layer, x = KANConv2d(I, O, 3, padding=1), images(2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=0, atol=40 * torch.finfo(torch.bfloat16).eps)
    y.float().sum().backward()
    assert layer.edges.coef.grad.dtype == torch.float32


def test_a_nan_is_visible_where_the_kernel_meets_it():
    layer, x = made(KANConv2d, I, O, 3, padding=1), images(2)
    x[0, 1, 3, 3] = torch.nan
    nan = layer(x).isnan()
    assert nan[0, :, 2:5, 2:5].all() and nan.sum() == 9 * O


@pytest.mark.parametrize("kind", [KANConv1d, KANConv2d, KANConvTranspose2d])
def test_compiled_exported_and_traced(kind):
    """Without a compiler for C++: the graph, run by PyTorch."""
    layer = made(kind, I, O, 3, padding=1)
    x = images(kind.dims)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    inner = x.clone().requires_grad_()
    grad = torch.autograd.grad(compiled(inner).square().sum(), [inner, *layer.parameters()])
    outer = x.clone().requires_grad_()
    for got, want in zip(
        grad, torch.autograd.grad(layer(outer).square().sum(), [outer, *layer.parameters()]), strict=True
    ):
        assert_same(got, want, 10000)
    more = torch.cat([x, x.flip(0), x])
    y = layer(more)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("images")},))
    assert_same(program.module()(more), y, 1000)
    assert_same(torch.jit.trace(layer, (x,), check_trace=False)(more), y, 1000)


# Grids, initial values, states


def test_initial_values_are_those_of_kan_linear():
    """Base weights within the bound of a layer of all inputs that the kernel spans."""
    for groups in (1, 4):
        layer = KANConv2d(32, 32, 3, groups=groups)
        like = KANLinear(9 * 32 // groups, 32)
        for name in ("coef", "base_weight"):
            own, other = getattr(layer.edges, name).abs().max(), getattr(like, name).abs().max()
            torch.testing.assert_close(own, other, rtol=0.02, atol=0)
        assert not layer.bias.any()


@pytest.mark.parametrize("kind", [KANConv2d, KANConvTranspose2d])
def test_grids_change_and_the_function_stays(kind):
    layer, x = made(kind, I, O, 3, padding=1), images(2).clamp(-0.98, 0.98)
    y = layer(x)
    layer.extend_grid(10)
    torch.testing.assert_close(layer(x), y, rtol=0, atol=1e-12)
    layer.update_grid([(part, None) for part in x.split(1)])
    assert not layer.outside_share(x).any() and layer.edges.grid.std(0).max() > 0.001
    whole = made(kind, I, O, 3, padding=1)
    whole.extend_grid(10)
    whole.update_grid(x)
    assert torch.equal(layer.edges.grid, whole.edges.grid)


def test_states(tmp_path):
    layer, x = made(KANConv2d, I, O, 3, padding=1), images(2)
    layer.update_grid(x)
    layer.extend_grid(8)
    other = made(KANConv2d, I, O, 3, padding=1, seed=5)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), layer(x))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))


def test_penalties():
    layer, x = made(KANConv2d, I, O, 3), images(2)
    mean = layer.edge_mean(x)
    rows = x.movedim(1, -1).reshape(-1, I)
    one = kan_linear(rows[:, :1], layer.edges.coef[:1], layer.edges.grid[:1], layer.edges.base_weight[:1], degree=3)
    assert mean.shape == (I, 3, 3, O)
    torch.testing.assert_close(mean[0].flatten(), one.abs().mean(0))
    for penalty in (layer.regularization(x), layer.regularization_loss()):
        assert torch.autograd.grad(penalty, layer.edges.coef)[0].any()


def test_text():
    assert "stride=(2, 2), padding=(1, 1), groups=2, bias=True" in repr(
        KANConv2d(I, O, 3, stride=2, padding=1, groups=2)
    )


@pytest.mark.parametrize(
    ("kind", "args", "options", "message"),
    [
        (KANConv2d, (3, 4, 3), {"groups": 2}, "in_channels=3: expected a multiple of groups=2"),
        (KANConv2d, (4, 3, 3), {"groups": 2}, "out_channels=3: expected a multiple of groups=2"),
        (KANConv2d, (3, 4, 0), {}, "kernel_size=0: expected an integer, at least 1"),
        (KANConv2d, (3, 4, (3, 3, 3)), {}, r"kernel_size=\(3, 3, 3\): expected an integer or 2 of them"),
        (KANConv2d, (3, 4, 3), {"stride": 1.5}, "stride=1.5: expected an integer"),
        (KANConv2d, (3, 4, 3), {"padding": "full"}, "padding='full': expected integers, 'same' or 'valid'"),
        (KANConv2d, (3, 4, 3), {"padding": "same", "stride": 2}, "padding='same' with stride"),
        (KANConv2d, (3, 4, 3), {"padding_mode": "mirror"}, "padding_mode='mirror': expected one of 'zeros'"),
        (KANConv2d, (3, 4, 3), {"grid_size": 0}, "grid_size=0: expected an integer, at least 1"),
        (KANConvTranspose2d, (3, 4, 3), {"padding_mode": "reflect"}, "padding_mode='reflect': expected 'zeros'"),
        (KANConvTranspose2d, (3, 4, 3), {"output_padding": 1}, "output_padding=1: expected less than stride or"),
    ],
)
def test_wrong_arguments(kind, args, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        kind(*args, **options)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 5, 8, 8), r"x has shape \[2, 5, 8, 8\]: expected \[N, 4, H, W\] or \[4, H, W\]"),
        (torch.zeros(4, 8), r"x has shape \[4, 8\]: expected \[N, 4, H, W\]"),
        (torch.zeros(2, 4, 2, 8), r"x has shape \[2, 4, 2, 8\]: expected images at least as large as the kernel"),
        (torch.zeros(2, 4, 8, 8, dtype=torch.int64), "x.dtype is torch.int64: expected float32"),
        ([1.0], "x is a list: expected a tensor"),
    ],
)
def test_wrong_images(x, message):
    with pytest.raises((TypeError, ValueError), match=message):
        KANConv2d(4, 2, 3)(x)
