"""accelerate and restore: models of efficient-kan, fast-kan and pykan against their own forward, in float64."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastkan
from fastkan import functional
from fastkan.backends import native
from fastkan.compat.accelerated import Accelerated
from support import peers
from support.accelerate import CLOSE, assert_same, float64, results  # noqa: F401
from support.backends import skip_if_missing
from support.pykan import real_kan

EFFICIENT = [
    {}, {"enable_standalone_scale_spline": False}, {"base_activation": nn.Tanh}, {"base_activation": nn.Identity},
    {"spline_order": 2, "grid_size": 9, "grid_range": (-0.3, 2.7)},
]  # fmt: skip


def kinds(model: nn.Module) -> list[type]:
    return [type(m) for m in model.modules()]


def efficient(**options) -> tuple[nn.Module, torch.Tensor]:
    return peers.KAN([3, 5, 2], **options), 1.5 * torch.randn(33, 3)


def fast(**options) -> tuple[nn.Module, torch.Tensor]:
    return peers.FastKAN([3, 5, 2], **options), 2 * torch.randn(33, 3)


@pytest.mark.parametrize("options", EFFICIENT, ids=str)
def test_efficient_kan(options):
    model, x = efficient(**options)
    expected, before, state = results(model, x), kinds(model), dict(model.named_parameters())
    assert fastkan.accelerate(model) is model
    assert isinstance(model.layers[0], peers.KANLinear) and isinstance(model.layers[0], Accelerated)
    assert_same(model, x, expected)
    assert all(p is state[name] for name, p in model.named_parameters())
    assert fastkan.restore(model) is model
    assert kinds(model) == before and not [n for n in vars(model.layers[0]) if "fastkan" in n]
    for found, value in zip(results(model, x), expected, strict=True):
        assert torch.equal(found, value)


@pytest.mark.parametrize(
    "options", [{}, {"use_base_update": False}, {"base_activation": F.gelu, "num_grids": 5}, {"num_grids": 90}], ids=str
)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_fast_kan(options, backend):
    skip_if_missing(backend)
    model, x = fast(**options)
    expected = results(model, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastkan.accelerate(model, backend=None if backend == "native" else backend)  # it is the automatic choice
    assert isinstance(model.layers[1], Accelerated)
    assert_same(model, x, expected)
    raw = model.layers[0](x, use_layernorm=False)
    fastkan.restore(model)
    torch.testing.assert_close(model.layers[0](x, use_layernorm=False), raw, **CLOSE)


def calls(monkeypatch) -> list:
    made, apply = [], functional.apply
    monkeypatch.setattr(functional, "apply", lambda *args: made.append(1) or apply(*args))
    return made


def test_the_kernels_are_called(monkeypatch):
    model, x = efficient()
    fastkan.accelerate(model)
    made = calls(monkeypatch)
    model(x)
    assert len(made) == 2


def test_float32_agrees_to_float32_rounding():
    torch.set_default_dtype(torch.float32)
    model, x = efficient(grid_size=20)
    exact = copy.deepcopy(model).double()(x.double())
    peers_error = (model(x) - exact).abs().max()
    fastkan.accelerate(model)
    assert (model(x) - exact).abs().max() <= 2 * peers_error + 1e-6


def test_an_optimizer_made_before_goes_on():
    """Two steps before, two steps accelerated, two steps after: as six steps of the original."""
    model, x = efficient()
    other = copy.deepcopy(model)
    optimizers = [torch.optim.Adam(m.parameters(), 0.05) for m in (model, other)]
    for step in range(6):
        {2: fastkan.accelerate, 4: fastkan.restore}.get(step, lambda m: m)(model)
        for m, optimizer in zip((model, other), optimizers, strict=True):
            optimizer.zero_grad()
            (m(x) - x[:, :2]).square().mean().backward()
            optimizer.step()
    for found, value in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, value, rtol=1e-8, atol=1e-8)  # Adam divides by small numbers


def test_hooks_and_state_dicts():
    model, x = efficient()
    seen = []
    model.layers[0].register_forward_hook(lambda *_: seen.append(1))
    state = copy.deepcopy(model.state_dict())
    fastkan.accelerate(model)
    assert list(model.state_dict()) == list(state)
    other = fastkan.accelerate(efficient()[0])
    other.load_state_dict(state)
    torch.testing.assert_close(other(x), model(x), rtol=0, atol=0)
    assert seen == [1]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_are_accelerated_and_their_own(copied):
    model, x = efficient()
    expected = fastkan.accelerate(model)(x)
    other = copied(model)
    assert isinstance(other.layers[0], Accelerated)
    with torch.no_grad():
        model.layers[0].spline_weight.zero_()
    torch.testing.assert_close(other(x), expected, rtol=0, atol=0)
    fastkan.restore(other)
    assert type(other.layers[0]) is peers.KANLinear and isinstance(model.layers[0], Accelerated)


def test_torch_save():
    model, x = efficient()
    file = io.BytesIO()
    torch.save(fastkan.accelerate(model), file)
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=False)(x), model(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda grid: grid.mul_(1.3),
        lambda grid: grid.data.mul_(1.3),  # no version tells of it
        lambda grid: setattr(grid, "data", grid.data * 1.3),
        lambda grid: grid[:, 4].add_(0.05),
        lambda grid: grid[:, 4].copy_(grid[:, 5] + 0.01),  # no ascending knots: the layer's own forward
    ],
)
def test_changed_grid_is_read_again(change):
    model, x = efficient()
    fastkan.accelerate(model)(x)
    for layer in model.layers:
        change(layer.grid)
    found = results(model, x)
    assert_same(fastkan.restore(model), x, found)


def test_moving_to_float32_and_back():
    model, x = efficient()
    fastkan.accelerate(model)(x)
    model.float()(x.float())
    found = model.double()(x)
    torch.testing.assert_close(fastkan.restore(model)(x), found, **CLOSE)


def test_leading_dimensions_vmap_second_derivatives_and_compile():
    model, x = efficient()
    deep = x.view(11, 3, 3)
    expected = model(deep)
    fastkan.accelerate(model)
    torch.testing.assert_close(model(deep), expected, **CLOSE)
    torch.testing.assert_close(torch.vmap(model)(deep), expected, **CLOSE)
    assert torch.autograd.gradcheck(model, (x[:3].requires_grad_(),))
    assert torch.autograd.gradgradcheck(lambda x: model(x).sin(), (x[:3].detach().requires_grad_(),))
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(deep), expected, **CLOSE)


def test_stacked_models_under_vmap():
    models = [efficient()[0] for _ in range(2)]
    x = torch.randn(4, 3)
    expected = torch.stack([m(x) for m in models])
    for m in models:
        fastkan.accelerate(m)
    parameters, buffers = torch.func.stack_module_state(models)

    def call(p, b):
        return torch.func.functional_call(models[0], (p, b), (x,))

    torch.testing.assert_close(torch.vmap(call)(parameters, buffers), expected, **CLOSE)


class Halved(peers.KANLinear):
    def forward(self, x):
        return super().forward(x) / 2


class Renamed(peers.KANLinear):
    """A subclass with the forward of the library: another name does not matter."""


class WithNames(peers.KANLinear):
    """Methods of a subclass are not hidden, even with the names of ours."""

    def sample(self):
        return "sample"

    def knots(self):
        return "knots"


def test_methods_of_a_subclass_stay():
    layer = fastkan.accelerate(WithNames(3, 2))
    assert isinstance(layer, Accelerated) and (layer.sample(), layer.knots()) == ("sample", "knots")
    hidden = {n for c in type(layer).__mro__[1:4] for n in vars(c)} - {"forward", "__reduce_ex__"}
    assert all(n.startswith(("fastkan_", "__")) for n in hidden)


def lookalike() -> nn.Module:
    """Of the right name, attributes and shapes, with another formula."""
    own = type("KANLinear", (peers.KANLinear,), {"forward": lambda self, x: peers.KANLinear.forward(self, x) * 0.5})
    return own(3, 2)


def test_unsupported_models_are_left_unchanged_and_named():
    patched, parametrized = peers.KANLinear(3, 2), peers.KANLinear(3, 2)
    patched.forward = patched.forward
    nn.utils.parametrizations.weight_norm(parametrized, "spline_weight")
    other_shape = peers.KANLinear(3, 2)
    other_shape.base_weight = nn.Parameter(torch.zeros(3, 2))
    model = nn.ModuleDict(
        {
            "good": peers.KANLinear(3, 2), "renamed": Renamed(3, 2), "halved": Halved(3, 2), "patched": patched,
            "parametrized": parametrized, "shape": other_shape, "lookalike": lookalike(),
            "bare": type("KANLinear", (nn.Linear,), {"forward": lambda self, x: x})(3, 2),
            "ours": fastkan.KANLinear(3, 2), "linear": nn.Linear(3, 2),
        }
    )  # fmt: skip
    before = kinds(model)
    with pytest.warns(UserWarning) as caught:
        fastkan.accelerate(model)
    message = str(caught[0].message)
    for name, reason in {
        "halved": "Halved has a forward of its own",
        "patched": "its forward was replaced",
        "parametrized": "it is parametrized",
        "shape": r"base_weight has shape [3, 2]: expected [2, 3]",
        "lookalike": "its forward gives other values",
        "bare": "it has no grid_size",
    }.items():
        assert f"{name} (" in message and reason in message, (name, message)
    assert "ours (" not in message and "linear (" not in message
    assert [n for n, m in model.named_modules() if isinstance(m, Accelerated)] == ["good", "renamed"]
    assert kinds(fastkan.restore(model)) == before


def test_a_frozen_layer_without_weights_of_its_own_yet_is_compared_too():
    own = lookalike()
    for layer, left in ((own, True), (peers.KANLinear(3, 2), False)):
        for value in layer.requires_grad_(False).parameters():
            value.zero_()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fastkan.accelerate(layer)
        assert bool(caught) is left


def test_knots_that_are_trained_keep_their_gradient():
    model, x = efficient()
    for layer in model.layers:
        grid = layer.grid
        del layer.grid
        layer.grid = nn.Parameter(grid)
    expected = results(model, x)
    assert_same(fastkan.accelerate(model), x, expected)


def test_errors(monkeypatch):
    model, _ = efficient()
    with pytest.raises(ValueError, match="Linear without a layer of another library: expected one of KANLinear"):
        fastkan.accelerate(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="backend='fast': expected None or one of"):
        fastkan.accelerate(model, backend="fast")
    monkeypatch.setattr(native, "missing", lambda device_type, dtypes, family=0: "no Gaussians" if family else None)
    with pytest.raises(fastkan.BackendError, match="no Gaussians"):
        fastkan.accelerate(nn.ModuleList([model, fast()[0]]), backend="native")
    assert not any(isinstance(m, Accelerated) for m in model.modules())
    fastkan.accelerate(model)
    with pytest.raises(ValueError, match="expected"):
        model(torch.zeros(4, 7))
    assert fastkan.restore(nn.Linear(2, 2)) is not None


def test_layer_as_model_and_accelerated_twice():
    layer, x = peers.KANLinear(3, 2), torch.randn(9, 3)
    expected = layer(x)
    assert fastkan.accelerate(fastkan.accelerate(layer), backend="reference") is layer
    assert layer.fastkan_backend == "reference"
    torch.testing.assert_close(layer(x), expected, **CLOSE)
    fastkan.restore(layer)
    assert type(layer) is peers.KANLinear


def test_random_state_and_weights_are_unchanged():
    model, _ = efficient()
    state = copy.deepcopy(model.state_dict())
    random = torch.random.get_rng_state()
    fastkan.accelerate(model)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.fixture
def pykan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with real_kan() as kan:
        yield kan


def multkan(kan, **options) -> tuple[nn.Module, torch.Tensor]:
    model = kan.KAN(width=[2, [3, 1], 1], grid=4, k=3, seed=3, auto_save=False, **options)
    return model.double(), 0.7 * torch.randn(40, 2)


@pytest.mark.parametrize(
    "options", [{}, {"base_fun": "identity"}, {"sparse_init": True, "sp_trainable": False}], ids=str
)
@pytest.mark.parametrize("speed", [True, False])
def test_pykan(pykan, monkeypatch, options, speed):
    model, x = multkan(pykan, **options)
    model = model.speed() if speed else model
    expected, before = results(model, x), kinds(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastkan.accelerate(model)
    made = calls(monkeypatch)
    assert_same(model, x, expected)
    assert len(made) == 2
    assert len(model.spline_postacts) == (0 if speed else 2)
    assert kinds(fastkan.restore(model)) == before


def test_pykan_with_symbolic_edges_and_the_zero_gradients_of_those_that_are_not(pykan):
    model, x = multkan(pykan)
    model.save_act = False
    model.fix_symbolic(0, 1, 2, "sin", fit_params_bool=False, log_history=False, verbose=False)
    model.symbolic_fun[0].affine.requires_grad_(True)
    model.symbolic_fun[1].affine.requires_grad_(True)
    expected = results(model, x)
    assert_same(fastkan.accelerate(model), x, expected)
    model(x).sum().backward()
    assert torch.equal(model.symbolic_fun[1].affine.grad, torch.zeros_like(model.symbolic_fun[1].affine))


KEPT = ("acts", "acts_premult", "spline_preacts", "spline_postacts", "spline_postsplines", "acts_scale",
        "acts_scale_spline", "edge_actscale", "subnode_actscale")  # fmt: skip
METRICS = ("edge_forward_spline_n", "edge_forward_sum", "edge_forward_spline_u", "edge_backward", "node_backward")


def with_an_edge(model: nn.Module, kind: str) -> nn.Module:
    if kind == "symbolic":
        model.fix_symbolic(0, 1, 2, "sin", fit_params_bool=False, log_history=False, verbose=False)
    elif kind == "off":
        model.act_fun[0].mask.data[1, 2] = 0.0
    elif kind == "not symbolic":
        model.symbolic_enabled = False
    return model


@pytest.mark.parametrize("kind", ["", "symbolic", "off", "not symbolic"])
@pytest.mark.parametrize("metric", METRICS)
def test_pykans_attributes_and_penalties(pykan, metric, kind):
    found = []
    for accelerated in (False, True):
        torch.manual_seed(0)
        model, x = multkan(pykan)
        with_an_edge(model, kind)
        if accelerated:
            fastkan.accelerate(model)
        y = model(x)
        if "backward" in metric:
            model.attribute() if metric[0] == "e" else model.node_attribute()
        objective = y.sum() + model.get_reg(metric, 1.0, 2.0, 0.1, 0.1)
        trained = [p for p in model.parameters() if p.requires_grad]
        grads = torch.autograd.grad(objective, trained, allow_unused=True)
        with torch.no_grad():
            for p in trained:  # cached for the earlier parameters
                p.mul_(1.5)
        found.append([objective, *(g for g in grads if g is not None)])
        found[-1] += [torch.as_tensor(t) * 1.0 for name in KEPT for t in getattr(model, name)]
    assert len(found[0]) == len(found[1])
    for theirs, mine in zip(*found, strict=True):
        assert mine.isfinite().all()
        torch.testing.assert_close(mine, theirs, **CLOSE)


def own_calls(monkeypatch, pykan) -> list:
    """One entry for every forward of pykan's own, which makes the values on every edge."""
    made, forward = [], pykan.KANLayer.forward
    monkeypatch.setattr(pykan.KANLayer, "forward", lambda *args: made.append(1) or forward(*args))
    return made


def test_values_on_edges_are_made_when_they_are_read(pykan, monkeypatch):
    model, x = multkan(pykan)
    fastkan.accelerate(model)
    made = own_calls(monkeypatch, pykan)
    model(x)
    values = model.spline_postacts[0]
    assert values.shape == (40, 5, 2) and len(values) == 40 and values.dtype == torch.float64 and values.dim() == 3
    assert isinstance(values, torch.Tensor) and not made
    assert values[:, 1, 0].shape == (40,) and len(made) == 1
    assert torch.equal(values.sum(2), torch.from_numpy(values.numpy()).sum(2))
    torch.testing.assert_close(copy.deepcopy(model.spline_preacts[0]), x[:, None].expand(-1, 5, -1))
    assert len(made) == 1  # of one layer
    model(x[:1])
    assert model.edge_actscale[0].isnan().all()  # of one row, as in pykan


def test_base_functions_of_ones_own_run_pykans_forward(pykan, monkeypatch):
    model, x = multkan(pykan, base_fun=torch.tanh)
    expected = results(model, x)
    fastkan.accelerate(model)
    made = own_calls(monkeypatch, pykan)
    assert_same(model, x, expected)
    assert len(made) == 2


@pytest.mark.parametrize("options", [{"lamb": 0.0}, {"lamb": 0.01}, {"lamb": 0.01, "reg_metric": "edge_backward"}])
def test_pykan_fits_to_the_same_losses_and_its_tools_work(pykan, monkeypatch, options):
    losses = []
    for accelerated in (False, True):
        model, x = multkan(pykan)
        data = {"train_input": x, "train_label": x[:, :1] * x[:, 1:], "test_input": x, "test_label": x[:, :1] ** 2}
        if accelerated:
            fastkan.accelerate(model)
            made, own = calls(monkeypatch), own_calls(monkeypatch, pykan)
        fit = model.fit(data, opt="Adam", steps=12, lr=0.02, grid_update_num=3, log=100, **options)
        losses.append(torch.tensor([float(v) for name in ("train_loss", "reg") for v in fit[name]]))
        if accelerated:
            assert len(made) >= 2 * 12 and not own  # two layers, twelve steps
        model.attribute()
        assert model.edge_scores[0].shape == (5, 2)
    torch.testing.assert_close(*losses, rtol=1e-7, atol=1e-9)


def test_pykans_layer_on_its_own_returns_the_values_on_every_edge(pykan):
    layer = pykan.KANLayer(2, 3)
    with pytest.warns(UserWarning, match="the model .KANLayer.: it is not within an accelerated MultKAN"):
        fastkan.accelerate(layer)
    assert len(layer(torch.zeros(4, 2))) == 4 and type(layer) is pykan.KANLayer
