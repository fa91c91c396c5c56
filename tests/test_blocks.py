"""Blocks of KAN layers: embeddings of features, feed-forward, attention; each against its formula."""

import copy
import math

import pytest
import torch
from torch import nn

from fastkan import KANLinear, use_backend
from fastkan.functional import kan_linear
from fastkan.nn import KANAttention, KANEmbedding, KANFeedForward

N, I, D = 7, 3, 4  # noqa: E741


def rows(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3 - 1.5


# KANEmbedding


def embedded(layer: KANEmbedding, x: torch.Tensor) -> torch.Tensor:
    """A KANLinear of one input for every feature."""
    edges = layer.edges
    parts = []
    for i in range(layer.in_features):
        scale = None if edges.spline_scale is None else edges.spline_scale[i : i + 1]
        weight = None if edges.base_weight is None else edges.base_weight[i : i + 1]
        parts.append(
            kan_linear(
                x[..., i : i + 1], edges.coef[i : i + 1], edges.grid[i : i + 1], weight, scale=scale, degree=3,
                base=edges.base_name or edges.base_activation, backend="reference",
            )
        )  # fmt: skip
    y = torch.stack(parts, -2)
    return y if layer.bias is None else y + layer.bias


@pytest.mark.parametrize("backend", [None, "dense", "reference"])
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False, "base_activation": None},
        {"base_activation": nn.GELU},
        {"enable_standalone_scale_spline": True},
    ],
    ids=str,
)
def test_embedding(options, moved, backend):
    layer, x = KANEmbedding(I, D, dtype=torch.float64, **options), rows(N, 2, I)
    if moved:
        layer.update_grid(x)
    x.requires_grad_()
    with use_backend(backend):
        y = layer(x)
        u = torch.randn_like(y)
        wanted = [x, *layer.parameters()]
        got = torch.autograd.grad(y, wanted, u)
    expected = embedded(layer, x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-13)
    for a, b in zip(got, torch.autograd.grad(expected, wanted, u), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", [None, "dense"])
def test_derivatives_of_an_embedding(backend):
    layer = KANEmbedding(2, 2, dtype=torch.float64)
    layer.update_grid(rows(20, 2))
    names = list(dict(layer.named_parameters()))

    def f(x, *parameters):
        with use_backend(backend):
            return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    args = rows(3, 2).requires_grad_(), *layer.parameters()
    assert torch.autograd.gradgradcheck(f, args)
    x = rows(3, 2)
    value, tangent = torch.func.jvp(layer, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(value, layer(x), rtol=0, atol=1e-14)
    slope = (layer(x + 1e-6) - layer(x - 1e-6)) / 2e-6
    torch.testing.assert_close(tangent, slope, rtol=0, atol=1e-7)  # the third derivative times 1e-12, and rounding


def test_missing_values():
    layer, x = KANEmbedding(I, D, missing=True), rows(N, I).float()
    full = layer(x)
    x[2, 1] = torch.nan
    y = layer(x)
    assert torch.equal(y[2, 1], layer.missing[1]) and torch.equal(y[3:], full[3:])
    y.sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters()) and layer.missing.grad[1].any()
    layer.update_grid(x)
    assert not layer.outside_share(x).any()
    assert KANEmbedding(I, D)(x).isnan().any()


def test_initial_embeddings_do_not_depend_on_the_number_of_features():
    few, many = KANEmbedding(1, 2000), KANEmbedding(100, 2000)
    for name in ("coef", "base_weight"):
        a, b = (getattr(layer.edges, name).std() for layer in (few, many))
        torch.testing.assert_close(a, b, rtol=0.1, atol=0)


# KANFeedForward


@pytest.mark.parametrize("options", [{}, {"norm": True}, {"gated": True, "out_features": 5}], ids=str)
def test_feed_forward(options):
    layer, x = KANFeedForward(I, 6, dtype=torch.float64, **options), rows(N, 2, I)
    normal = layer.norm(x) if options.get("norm") else x
    hidden = layer.up(normal)
    if options.get("gated"):
        hidden = hidden * (normal @ layer.gate.weight.T + layer.gate.bias)
    assert torch.equal(layer(x), layer.down(hidden))
    assert layer(x).shape == (N, 2, options.get("out_features", I))
    assert layer.up.outside == "linear" and layer.up.grid_range == (-2, 2)


def test_dropout_is_of_training_only():
    layer, x = KANFeedForward(I, 6, dropout=0.5), rows(N, I).float()
    torch.manual_seed(0)
    assert (layer(x) == 0).any() and not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_a_feed_forward_takes_the_place_of_a_linear_one():
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    twin = copy.deepcopy(block)
    twin._ff_block = KANFeedForward(8, 6, dropout=0.1)
    x = torch.randn(2, 5, 8)
    assert twin(x).shape == block(x).shape


# KANAttention


@pytest.mark.parametrize("gating", [False, True])
def test_attention(gating):
    """torch's MultiheadAttention's formula, with the layers in place of matrices."""
    heads, size = 2, 5
    layer = KANAttention(4, heads, 3, 6, size, gating=gating, dtype=torch.float64)
    q, k, v = rows(2, N, 4), rows(2, 9, 3), rows(2, 9, 6)
    mask = rows(N, 9) > -1
    parts = []
    for h in range(heads):
        own = slice(h * size, (h + 1) * size)
        scores = layer.query(q)[..., own] @ layer.key(k)[..., own].mT / math.sqrt(size)
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        parts.append(weights @ layer.value(v)[..., own])
    y = torch.cat(parts, -1)
    y = layer.output(torch.sigmoid(layer.gate(q)) * y if gating else y)
    torch.testing.assert_close(layer(q, k, v, mask), y, rtol=0, atol=1e-12)


def test_attention_to_itself():
    layer, x = KANAttention(8, 2, dropout=0.5), rows(3, N, 8).float()
    layer.eval()
    assert torch.equal(layer(x), layer(x, x, x))
    causal = layer(x, is_causal=True)
    torch.testing.assert_close(causal[:, :3], layer(x[:, :3], is_causal=True))
    layer.train()
    assert not torch.equal(layer(x), layer(x))


# All of them


@pytest.mark.parametrize(
    "made", [lambda: KANEmbedding(I, D), lambda: KANFeedForward(I, gated=True), lambda: KANAttention(I, 1, gating=True)]
)
def test_dtypes_compilers_and_states(made):
    layer, x = made(), rows(2, N, I).float()
    y = layer(x)
    twin = made()
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(twin(x), y)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(compiled, y, rtol=0, atol=1e-5)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("n")},)).module()
    torch.testing.assert_close(program(x.repeat(3, 1, 1)), y.repeat(3, *[1] * (y.dim() - 1)), rtol=0, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(layer(x).float(), y, rtol=0, atol=0.1)
    layer.double()
    torch.testing.assert_close(layer(x.double()).float(), y, rtol=0, atol=1e-5)
    assert all(isinstance(m, KANLinear) is False or m.grid.dtype == torch.float64 for m in layer.modules())


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: KANEmbedding(0, 4), "in_features=0: expected an integer, at least 1"),
        (lambda: KANEmbedding(3, 4)(torch.zeros(2, 4)), r"x has shape \[2, 4\]: expected \[..., 3\]"),
        (lambda: KANFeedForward(3, 0), "hidden_features=0: expected an integer, at least 1"),
        (lambda: KANFeedForward(3, dropout=2), "dropout=2: expected a finite number, at least 0.0 and at most 1.0"),
        (lambda: KANAttention(5, 2), "num_heads=2: expected a divisor of q_dim=5, or a head_dim"),
        (lambda: KANAttention(4, 2, dropout=-1), "dropout=-1: expected"),
    ],
)
def test_wrong_arguments(made, message):
    with pytest.raises((TypeError, ValueError), match=message):
        made()
