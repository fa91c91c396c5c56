"""A layer computes the formula of its present tensors, whatever wrote them and however it is called."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.utils import parametrize, prune
from torch.optim.swa_utils import AveragedModel

from fastkan import KAN, FastKAN, KANLinear
from fastkan.nn import KANSequential
from fastkan.snapshot import Snapshot, readable
from support import definition

MAKERS = {
    "KANLinear": lambda: KANLinear(3, 4, bias=True),
    "KANLinear, scaled": lambda: KANLinear(3, 4, enable_standalone_scale_spline=True, base_activation=nn.Tanh),
    "KANSequential": lambda: KANSequential(KANLinear(3, 4), KANLinear(4, 2)),
    "KAN": lambda: KAN([3, 4, 2]),
    "KAN, products": lambda: KAN([3, [2, 1], 2]),
}


def moved(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with other numbers everywhere, knots that are not equidistant and some edges off."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, KANLinear):
            module.update_grid(torch.randn(300, module.in_features, generator=generator))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
        for name, mask in model.named_buffers():
            if name.endswith("act_fun.0.edge_mask"):
                mask[0, 0], mask[1, 1] = 0.0, 0.5
    return model


def data(seed: int = 1) -> torch.Tensor:
    return torch.randn(50, 3, generator=torch.Generator().manual_seed(seed))


def check(model: nn.Module, x: torch.Tensor | None = None, call=None) -> None:
    x = data() if x is None else x
    y = (model if call is None else call)(x)
    right = definition.value(model, x).detach()
    torch.testing.assert_close(y.detach().double(), right, rtol=2e-5, atol=2e-5 * float(right.abs().max()))


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


@pytest.fixture(params=MAKERS, name="make")
def _make(request):
    return MAKERS[request.param]


def by_data(t, source):
    t.data = source.clone()


def by_numpy(t, source):
    t.detach().numpy()[...] = source.detach().numpy()


WRITES = {
    "copy_": lambda t, source: t.copy_(source),
    "data": by_data,
    "data.copy_": lambda t, source: t.data.copy_(source),
    "numpy": by_numpy,
    "lerp_": lambda t, source: t.lerp_(source.to(t.dtype), 1.0) if t.is_floating_point() else None,
    "set_": lambda t, source: t.set_(source.detach().clone()),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("called", [False, True], ids=["before", "after a call"])
def test_whatever_writes_the_tensors(make, write, called):
    model, source = make(), moved(make())
    if called:
        model(data())
        model(data()).sum().backward()
    with torch.no_grad():
        theirs = tensors(source)
        for name, t in tensors(model).items():
            WRITES[write](t, theirs[name])
    check(model)
    torch.testing.assert_close(model(data()), source(data()))


def test_buffers_that_are_replaced(make):
    model, source = make(), moved(make())
    model.load_state_dict(source.state_dict())
    for module in model.modules():
        if isinstance(module, KANLinear):
            module.reset_parameters()
    model(data())
    for a, b in zip(model.modules(), source.modules(), strict=True):
        if isinstance(a, KANLinear):
            a.grid = b.grid.float()
            assert a.grid.dtype == torch.float64
    check(model)
    for a, b in zip(model.modules(), source.modules(), strict=True):
        for name, t in b._buffers.items():
            a._buffers[name] = t.float() if t.is_floating_point() else t  # as loaders of checkpoints do
        for name, t in b._parameters.items():
            a._parameters[name] = t
    check(model)


def test_averages(make):
    model = moved(make(), 1)
    average, copied = AveragedModel(model, use_buffers=True), copy.deepcopy(model)
    for seed in range(3):
        moved(model, seed)
        average.update_parameters(model)
        with torch.no_grad():
            for mine, theirs in zip(copied.state_dict().values(), model.state_dict().values(), strict=True):
                mine.lerp_(theirs.to(mine.dtype), 0.2) if mine.is_floating_point() else None
        check(average.module, call=average)
        check(copied)


def test_functional_call_and_stacked_models(make):
    models = [make(), moved(make(), 1), moved(make(), 2)]
    x = data()
    parameters, buffers = stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")
    for base in (skeleton, models[0]):
        y = vmap(lambda p, b: functional_call(base, (p, b), (x,)))(parameters, buffers)  # noqa: B023
        for found, model in zip(y, models, strict=True):
            torch.testing.assert_close(found, model(x))
    torch.testing.assert_close(functional_call(models[0], tensors(models[1]), (x,)), models[1](x))
    check(models[0])


def test_inference_mode(make):
    source = moved(make())
    with torch.inference_mode():
        models = [make(), copy.deepcopy(source)]
        models[0](data())
        models[0].load_state_dict(source.state_dict())
        for model in models:
            check(model)
            for module in model.modules():
                if isinstance(module, KANLinear):
                    module.update_grid(torch.rand(100, module.in_features))
            check(model)
            check(copy.deepcopy(model).double(), data().double())
    with torch.no_grad():
        check(models[0])


def test_meta_and_fake_tensors(make):
    with torch.device("meta"):
        model = make()
    assert model(torch.empty(5, 3, device="meta")).shape == (5, make()(data()).shape[1])
    model.to_empty(device="cpu")
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    check(model)
    model = make().to("meta")
    model.load_state_dict(moved(make()).state_dict(), assign=True)
    check(model)
    with FakeTensorMode():
        fake = make()
        fake(torch.randn(5, 3)).sum().backward()
        assert all(p.grad.shape == p.shape for p in fake.parameters() if p.grad is not None)


def test_a_network_from_meta_starts_as_its_seed_says():
    with torch.device("meta"):
        model = KAN([2, 3, 1], seed=5, sparse_init=True)
    model.to_empty(device="cpu").reset_parameters()
    for mine, theirs in zip(
        model.state_dict().values(), KAN([2, 3, 1], seed=5, sparse_init=True).state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs)
    model.fit((data()[:, :2], data()[:, :1]), steps=2, progress=False)
    model.fix_symbolic(0, 0, 0, "sin", fit_params_bool=False, verbose=False)
    model.reset_parameters(6)
    assert torch.equal(model(data()[:, :2]), KAN([2, 3, 1], seed=6, sparse_init=True)(data()[:, :2]))


def test_compiled_before_the_write(make):
    torch._dynamo.reset()
    model, source = make(), moved(make())
    compiled = torch.compile(model, backend="aot_eager")
    compiled(data())
    with torch.no_grad():
        for (_, t), (_, other) in zip(tensors(model).items(), tensors(source).items(), strict=True):
            t.data.copy_(other)
    check(model, call=compiled)
    torch._dynamo.reset()


def test_snapshots():
    t = torch.rand(4)
    seen = Snapshot(t)
    assert seen.holds(t) and seen.holds(t.clone()) and not seen.holds(t.double()) and not seen.holds(t[:3])
    t.data[0] += 1
    assert not seen.holds(t)
    nan = torch.tensor([torch.nan])
    assert not Snapshot(nan).holds(nan)
    assert readable(t) and not readable(t.to("meta"))
    with FakeTensorMode():
        assert not readable(t)
    assert vmap(lambda v: v.new_tensor(readable(v)))(t).tolist() == [0.0] * 4


def test_written_columns():
    """Through the buffer instead of the property: averages, broadcasts, loaders, functional_call."""
    x, columns = data(), torch.tensor([2.0, 0.0, 1.0], dtype=torch.float64)
    for model in (KAN([3, 4, 2]), KAN([3, [2, 1], 2])):
        expected = model(x[:, [2, 0, 1]])
        torch.testing.assert_close(functional_call(model, {"input_id": columns}, (x,)), expected)
        plain = model(x)
        dict(model.named_buffers())["input_id"].data.copy_(columns)
        torch.testing.assert_close(model(x), expected)
        check(model)
        torch.testing.assert_close(torch.func.vmap(model)(x), expected)
        dict(model.named_buffers())["input_id"].numpy()[:] = [0, 1, 2]
        torch.testing.assert_close(model(x), plain)


# Errors that name the method to call


@pytest.mark.parametrize("make_layer", [lambda: KANLinear(3, 4), lambda: KAN([3, 4, 2])])
def test_unsupported_changes(make_layer):
    model = make_layer()
    layer = model if isinstance(model, KANLinear) else model.act_fun[0].linear
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ValueError, match=r"grid is \[3, 5\].*\[3, 1[02]\].*set_grid"):
        layer.grid = torch.zeros(3, 5)
    with pytest.raises(ValueError, match="grid is NoneType"):
        layer.grid = None
    for name in ("grid_size", "spline_order", "uniform"):
        with pytest.raises(AttributeError):
            setattr(layer, name, 3)
    assert all(torch.equal(t, before[name]) for name, t in layer.state_dict().items())
    layer.grid.copy_(layer.grid.flip(1))
    with pytest.raises(RuntimeError, match="grid does not ascend in row 0"):
        model(data())


# Parametrizations


class Half(nn.Module):
    def forward(self, weight):
        return weight / 2

    def right_inverse(self, weight):
        return 2 * weight


class Positive(nn.Module):
    def forward(self, weight):
        return weight.abs()


def inner(model: nn.Module) -> KANLinear:
    return next(module for module in model.modules() if isinstance(module, KANLinear))


PARTS = {
    "half": lambda layer, name: parametrize.register_parametrization(layer, name, Half()),
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "pruned": lambda layer, name: prune.l1_unstructured(layer, name, amount=0.5),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", ["coef", "base_weight"])
def test_parametrized_weights(make, part, name):
    model = moved(make())
    PARTS[part](inner(model), name)
    check(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        model(data()).square().mean().backward()
        source = [p for n, p in inner(model).named_parameters() if name in n]
        assert source and all(p.grad is not None and p.grad.any() for p in source)
        optimizer.step()
    model(data())
    check(model)


@pytest.mark.parametrize("part", PARTS)
def test_grids_of_parametrized_layers_keep_the_function(make, part):
    model = moved(make())
    PARTS[part](inner(model), "coef")
    x = torch.rand(200, 3, generator=torch.Generator().manual_seed(3)) * 0.5
    model(x)
    layer, y = inner(model), model(x).detach()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layer.update_grid(x)
    assert any("pruned" in str(w.message) for w in caught) == (part == "pruned")
    torch.testing.assert_close(model(x), y, rtol=0, atol=0.02 * float(y.abs().max()))
    check(model)
    with pytest.raises(RuntimeError, match="coef is computed from other parameters.*remove"):
        layer.extend_grid(11)
    check(model)


@pytest.mark.parametrize("part", ["half", "weight_norm"])
def test_parametrization_arguments_stay_unchanged(part):
    """Its own parameters have memory of their own, in the order that optimizers flatten."""
    layer = KAN([3, 4, 2]).act_fun[0]
    PARTS[part](layer.linear, "spline_scale")
    PARTS[part](layer.linear, "coef")
    scale = torch.rand(4, 3).T
    layer.scale_sp = scale
    layer.linear.update_grid(data())
    scale.zero_()
    assert layer.scale_sp.all()
    layer.scale_sp = torch.tensor(0.5)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=2)

    def closure():
        optimizer.zero_grad()
        loss = layer(data()).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert all(p.is_contiguous() for p in layer.parameters())


def test_a_grid_that_a_parametrization_cannot_follow_stays():
    for part in (Positive(), nn.Identity()):
        layer = moved(KANLinear(3, 4))
        parametrize.register_parametrization(layer, "coef", part, unsafe=True)
        before, y = layer.grid.clone(), layer(data())
        if isinstance(part, Positive):
            with pytest.raises(RuntimeError, match="coef is computed"):
                layer.update_grid(data())
            assert torch.equal(layer.grid, before) and torch.equal(layer(data()), y)
            check(layer)


@pytest.mark.parametrize("part", PARTS)
def test_training_of_parametrized_networks(part):
    x = data()
    for options in ({"opt": "LBFGS", "lamb": 1e-3}, {"opt": "LM"}, {"opt": "Adam", "lr": 0.01}):
        model = KAN([3, 4, 1], dtype=torch.float64)
        PARTS[part](model.act_fun[0].linear, "coef")
        layer = model.act_fun[0].linear
        before = {name: p.detach().clone() for name, p in layer.named_parameters() if "coef" in name}
        result = model.fit((x.double(), x[:, :1].double().sin()), steps=4, progress=False, update_grid=False, **options)
        assert result["train_loss"][-1] < result["train_loss"][0]
        assert any(not torch.equal(t, dict(layer.named_parameters())[name]) for name, t in before.items())
        check(model, x.double())


# Names of pykan and efficient-kan


def views():
    network, layer = KAN([3, 4, 2]), KANLinear(3, 4, enable_standalone_scale_spline=True)
    return {
        "coef": (network, network.act_fun[0], "coef", network.act_fun[0].linear.coef, (0, 2, 1)),
        "spline_weight": (layer, layer, "spline_weight", layer.coef, (2, 0, 1)),
        "spline_scaler": (layer, layer, "spline_scaler", layer.spline_scale, (1, 0)),
    }


@pytest.mark.parametrize("name", views())
def test_a_view_is_its_parameter(name):
    model, owner, attribute, parameter, order = views()[name]
    x = data()

    def view():
        return getattr(owner, attribute)

    assert isinstance(view(), nn.Parameter) and view().is_leaf and view().requires_grad
    assert torch.equal(view(), parameter.permute(order)) and view().data_ptr() == parameter.data_ptr()
    value = torch.randn(view().shape)
    view().data = value
    assert torch.equal(parameter.permute(order), value)
    check(model)
    setattr(owner, attribute, nn.Parameter(2 * value))
    assert torch.equal(parameter.permute(order), 2 * value)
    view().data[0] = 1.0
    assert (parameter.permute(order)[0] == 1).all()
    with pytest.raises(ValueError, match="shape"):
        view().data = value[..., :1].repeat_interleave(value.shape[-1] + 1, -1)

    seen = []
    handle = view().register_hook(lambda grad: seen.append(grad.shape))
    model(x).square().sum().backward()
    handle.remove()
    assert seen == [value.shape]
    assert torch.equal(view().grad, parameter.grad.permute(order)) and view().grad.any()
    nn.utils.clip_grad_norm_([view()], 1e-3)
    assert parameter.grad.norm() < 1.1e-3
    view().grad = None
    assert parameter.grad is None

    before = parameter.detach().clone()
    optimizer = torch.optim.Adam([{"params": [view()], "lr": 0.1}])
    model(x).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    assert (parameter - before).abs().min() > 0.09 and parameter.grad is None
    check(model)

    view().requires_grad_(False)
    assert not parameter.requires_grad
    view().requires_grad = True
    assert parameter.requires_grad
    with torch.no_grad():
        nn.init.constant_(view(), 0.5)
    assert (parameter == 0.5).all()
    clone = copy.deepcopy(view())
    assert type(clone) is torch.Tensor and clone.data_ptr() != parameter.data_ptr()
    (view() ** 2).sum().backward()
    assert torch.equal(parameter.grad, 2 * parameter)


def test_views_of_what_is_computed_can_be_read():
    layer = KANLinear(3, 4)
    parametrize.register_parametrization(layer, "coef", Half())
    assert torch.equal(layer.spline_weight, layer.coef.permute(2, 0, 1))
    with pytest.raises(RuntimeError, match="computed from other parameters"):
        layer.spline_weight.data = torch.zeros(4, 3, 8)
    with pytest.raises(RuntimeError, match="computed from other parameters"):
        layer.spline_weight.requires_grad_(False)


def test_a_frozen_parameter_stays_frozen_while_its_edges_are_off():
    model = KAN([3, 4, 2])
    layer = model.act_fun[1]
    layer.mask.data.zero_()
    model(data())
    layer.scale_base.requires_grad_(False)
    layer.coef.requires_grad = False
    layer.mask.data.fill_(1.0)
    model(data()).sum().backward()
    assert layer.coef.grad is None and layer.scale_base.grad is None and layer.scale_sp.grad is not None


@pytest.mark.parametrize("kind", [nn.Tanh, torch.sin, nn.Identity(), nn.PReLU(), "identity", None])
def test_the_base_function_may_be_set(kind):
    layer = KANLinear(3, 4)
    layer(data())
    layer.base_activation = kind
    if kind is None:
        assert torch.equal(layer(data()), KANLinear.forward(layer, data())) and layer.base_activation is None
    check(layer)
    model = KAN([3, 4, 2])
    model(data())
    if kind is not None:
        model.act_fun[0].base_fun = kind
        check(model)
        model.base_fun = kind
        check(model)
        model.refine(5)(data())
    with pytest.raises(ValueError, match="made without a base function"):
        KANLinear(3, 4, base_activation=None).base_activation = "silu"
    with pytest.raises(ValueError, match="base_activation='relu'"):
        layer.base_activation = "relu"


# Hooks


def test_hooks_inside_a_network_are_called():
    model, x, calls = KAN([3, 4, 2]), data(), []
    model.act_fun[1].mask[0, 0] = 0.0
    y = model(x)
    layer = model.act_fun[1].linear
    handles = [
        layer.register_forward_pre_hook(lambda module, args: calls.append("before")),
        layer.register_forward_hook(lambda module, args, out: calls.append(tuple(out.shape))),
        layer.register_full_backward_hook(lambda module, *grads: calls.append("back")),
    ]
    torch.testing.assert_close(model(x), y)
    model(x).sum().backward()
    assert calls == ["before", (50, 2)] * 2 + ["back"]
    for handle in handles:
        handle.remove()
    layer.register_forward_hook(lambda module, args, out: 2 * out)
    torch.testing.assert_close(model(x), 2 * y)
    silu = model.act_fun[0].linear.base_activation
    silu.register_forward_hook(lambda module, args, out: 0 * out)
    quiet = copy.deepcopy(model)
    quiet.act_fun[0].linear.base_weight.data.zero_()
    torch.testing.assert_close(model(x), quiet(x))


def test_centres_of_gaussians_that_are_written():
    model, x = FastKAN([3, 4, 2]), data()
    model(x)
    layer = model.layers[0]
    layer.rbf.grid.data *= 0.5
    layer.rbf.denominator = 0.3
    wide = layer.spline_linear(layer.rbf(layer.layernorm(x)).flatten(-2)) + layer.base_linear(layer.base_activation(x))
    torch.testing.assert_close(layer(x), wide, rtol=1e-4, atol=1e-4)
