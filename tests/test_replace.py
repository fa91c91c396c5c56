"""replace_linear: which layers are replaced, which are left, and the resulting models."""

import copy

import pytest
import torch
from torch import nn

from fastkan import KANLinear
from fastkan.nn import replace_linear


def model() -> nn.Module:
    body = nn.ModuleDict({"up": nn.Linear(4, 8, bias=False), "down": nn.Linear(8, 4)})
    return nn.ModuleDict({"first": nn.Linear(3, 4), "body": body, "norm": nn.LayerNorm(4), "head": nn.Linear(4, 2)})


def replaced(module: nn.Module) -> list[str]:
    return [name for name, m in module.named_modules() if isinstance(m, KANLinear)]


@pytest.mark.parametrize(
    "include, exclude, expected",
    [
        ("*", (), ["first", "body.up", "body.down", "head"]),
        ("body.*", (), ["body.up", "body.down"]),
        ("*", ["head", "*.up"], ["first", "body.down"]),
        (("first", "h?ad"), (), ["first", "head"]),
        ("*", "b*", ["first", "head"]),
    ],
)
def test_names(include, exclude, expected):
    m = model()
    kept = {name: child for name, child in m.named_modules() if isinstance(child, nn.Linear) and name not in expected}
    assert replace_linear(m, include, exclude) is m
    assert replaced(m) == expected
    assert all(m.get_submodule(name) is child for name, child in kept.items())


def test_options_dtype_and_mode_of_replaced_layers():
    m = model().double().eval()
    m["first"].train()
    replace_linear(m, grid_size=7, spline_order=2, grid_range=(0, 1), outside="clamp")
    up, down = m["body"]["up"], m["body"]["down"]
    assert (up.in_features, up.out_features, up.grid_size, up.spline_order, up.outside) == (4, 8, 7, 2, "clamp")
    assert up.grid_range == (0, 1) and up.coef.dtype == torch.float64
    assert up.bias is None and down.bias is not None
    assert not up.training and m["first"].training
    assert all(p.requires_grad for p in m.parameters())
    meta = replace_linear(nn.Sequential(nn.Linear(2, 2, device="meta", dtype=torch.bfloat16)))
    assert meta[0].coef.is_meta and meta[0].coef.dtype == torch.bfloat16


def test_options_win():
    assert replace_linear(nn.Sequential(nn.Linear(2, 2)), bias=False)[0].bias is None


def test_a_shared_module_stays_shared():
    shared = nn.Linear(3, 3)
    m = nn.Sequential(shared, nn.ReLU(), shared, nn.Sequential(shared, nn.Linear(3, 3)))
    replace_linear(m)
    assert m[0] is m[2] is m[3][0] and isinstance(m[0], KANLinear) and m[3][1] is not m[0]
    m = nn.Sequential(shared, shared)
    replace_linear(m, exclude="1")
    assert isinstance(m[0], KANLinear) and m[1] is shared


def test_modules_that_share_their_parameters_become_one(recwarn):
    m = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    m[2].weight, m[2].bias = m[0].weight, m[0].bias
    replace_linear(m)
    assert m[0] is m[2] is not m[1] and not recwarn.list


def test_untied_weight_warns():
    """To an embedding, to a layer that stays, to a layer with another bias."""
    m = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    m["head"].weight = m["embedding"].weight
    with pytest.warns(UserWarning, match=r"no longer tied: head.weight with embedding.weight; exclude"):
        replace_linear(m)

    def pair() -> nn.Module:
        made = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        made[1].weight = made[0].weight
        return made

    with pytest.warns(UserWarning, match=r"no longer tied: 1.weight with 0.weight; exclude"):
        replace_linear(pair(), "1")
    with pytest.warns(UserWarning, match=r"no longer tied: 0.weight with 1.weight; 1.weight with 0.weight; exclude"):
        replace_linear(pair())


def test_the_model_is_itself_linear():
    layer = replace_linear(nn.Linear(3, 2), grid_size=4)
    assert isinstance(layer, KANLinear) and layer.grid_size == 4


def test_subclasses_are_left():
    m = nn.ModuleDict(
        {
            "attention": nn.MultiheadAttention(4, 2),
            "lazy": nn.LazyLinear(3),
            "parametrized": nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
            "plain": nn.Linear(3, 3),
        }
    )
    replace_linear(m)
    assert replaced(m) == ["plain"]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_transformer_encoder(training, masked, grad):
    """In eval() torch reads the weights of its linear layers, which are gone."""
    block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    plain = nn.TransformerEncoder(block, 2, enable_nested_tensor=True).train(training)
    m = copy.deepcopy(plain)
    replace_linear(m, init="linear", outside="linear")
    mask = torch.tensor([[False, False, True], [False, False, False]]) if masked else None
    x = torch.randn(2, 3, 8)
    with torch.set_grad_enabled(grad):
        y, expected = m(x, src_key_padding_mask=mask), plain(x, src_key_padding_mask=mask)
    seen = torch.ones(2, 3, dtype=torch.bool) if mask is None else ~mask
    assert torch.allclose(y[seen], expected[seen], atol=1e-5)
    assert len(replaced(m)) == 4


@pytest.mark.parametrize("degree", range(1, 6))
@pytest.mark.parametrize("scale", [True, False])
def test_linear_start(degree, scale):
    linear = nn.Linear(3, 2).double()
    options = {"outside": "linear", "spline_order": degree, "enable_standalone_scale_spline": scale}
    kan = replace_linear(linear, init="linear", grid_range=(-0.5, 1.5), **options)
    x = 4 * torch.randn(50, 3, dtype=torch.float64)
    assert torch.allclose(kan(x), linear(x), atol=1e-12)
    inside = replace_linear(linear, init="linear", spline_order=degree)
    x = 2 * torch.rand(50, 3, dtype=torch.float64) - 1
    assert torch.allclose(inside(x), linear(x), atol=1e-12)


def test_it_trains():
    torch.manual_seed(0)
    m = replace_linear(nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 1)))
    x = 2 * torch.rand(256, 2) - 1
    y = torch.sin(3 * x[:, :1]) * x[:, 1:]
    optimizer = torch.optim.Adam(m.parameters(), 0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (m(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"include": "tail*"}, ValueError, "no nn.Linear; the model's are: 'first', 'body.up', 'body.down', 'head'"),
        ({"exclude": "*"}, ValueError, r"include=\('\*',\), exclude=\('\*',\) match no nn.Linear"),
        ({"include": [1]}, TypeError, r"include=\(1,\): expected one or more patterns"),
        ({"init": "zero"}, ValueError, "init='zero': expected one of 'random', 'linear'"),
        ({"init": "linear", "spline_order": 0}, ValueError, "init='linear' with spline_order=0: expected at least 1"),
        ({"grid_size": 0}, ValueError, "grid_size=0: expected an integer, at least 1"),
        ({"grid": 3}, TypeError, "unexpected keyword argument 'grid'"),
    ],
)
def test_errors_change_nothing(arguments, error, message):
    m = model()
    with pytest.raises(error, match=message):
        replace_linear(m, **arguments)
    assert not replaced(m)


def test_a_model_without_linear_layers():
    with pytest.raises(ValueError, match="the model's are: none"):
        replace_linear(nn.Sequential(nn.ReLU()))
