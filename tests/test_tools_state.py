"""Every tool of PyTorch's world that copies, writes, averages or trains a model, on every kind of model.

Afterwards a model computes what its present tensors say; see also test_state.py.
"""

import copy
import io
import pickle
import tempfile

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim import swa_utils

from fastkan import KAN, KANLinear
from support import definition
from support.model_kinds import (
    CLOSE,
    MODELS,
    build,
    check,
    check_copy,
    check_with_gradients,
    data,
    layers,
    loss,
    perturb,
    train_steps,
    trained,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # most of these tools are deprecated, or prototypes


@pytest.fixture(params=MODELS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def model(kind) -> nn.Module:
    return build(kind)


@pytest.fixture
def x() -> torch.Tensor:
    return data()


# Copies and files


def test_copies(model, x):
    model(x)
    for other in copy.deepcopy(model), copy.copy(model), pickle.loads(pickle.dumps(model)), torch_saved(model):
        check_copy(other, model, x)
        assert type(other) is type(model)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = perturb(copy.deepcopy(model), 3)
    other.load_state_dict(torch.load(file, weights_only=True))
    check_copy(other, model, x)


def torch_saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_safetensors(model, x):
    files = pytest.importorskip("safetensors.torch")
    other = perturb(copy.deepcopy(model), 3)
    other.load_state_dict(files.load(files.save({k: t.contiguous() for k, t in model.state_dict().items()})))
    check_copy(other, model, x)
    perturb(other, 4)
    with tempfile.TemporaryDirectory() as folder:
        files.save_model(model, f"{folder}/model.safetensors")
        files.load_model(other, f"{folder}/model.safetensors")
    check_copy(other, model, x)


def test_transformers_models(model, x, kind):
    transformers = pytest.importorskip("transformers")

    class Config(transformers.PretrainedConfig):
        model_type = "fastkan-test"

    class Model(transformers.PreTrainedModel):
        config_class = Config

        def __init__(self, config):
            super().__init__(config)
            self.kan = MODELS[kind]()
            self.post_init()

        def forward(self, x):
            return self.kan(x)

    held = Model(Config())
    held.kan = model
    for dtype in torch.float64, torch.bfloat16:
        with tempfile.TemporaryDirectory() as folder:
            held.save_pretrained(folder)
            loaded = Model.from_pretrained(folder, dtype=dtype).kan
        assert all(torch.equal(a.grid, b.grid) for a, b in zip(layers(loaded), layers(model), strict=True))
        if dtype == torch.float64:
            check_copy(loaded, model, x)
        scale = float(definition.value(model, x).abs().max())
        check(loaded.double(), model, x, rtol=0, atol=0.02 * scale)


def test_quantize_dynamic(model, x):

    made = torch.ao.quantization.quantize_dynamic(model, {nn.Linear, nn.LSTM}, dtype=torch.qint8)
    check_copy(made, model, x)


def test_swap_module_params_on_conversion(model, x):
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        other = copy.deepcopy(model)
        other.float().double()
        other.load_state_dict(model.state_dict())
        check_copy(other, model, x)
        assert all(layer.grid.dtype == torch.float64 for layer in layers(other.half()))
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def test_shared_memory(model, x):
    check_with_gradients(model.share_memory(), model, x)


def test_requires_grad_off(model, x):
    model.requires_grad_(False)
    check(model, model, x)
    assert not model(x).requires_grad
    assert not trained(model)


# Averages


def test_averaged_with_buffers(model, x):
    model = perturb(model, 1)
    options = (
        {}, {"avg_fn": swa_utils.get_ema_avg_fn(0.9)}, {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.9)},
        {"multi_avg_fn": swa_utils.get_swa_multi_avg_fn()},
    )  # fmt: skip
    for option in options:
        average = swa_utils.AveragedModel(model, use_buffers=True, **option)
        states = []
        for seed in range(3):
            perturb(model, seed)
            average.update_parameters(model)
            states.append({name: t.clone() for name, t in model.state_dict().items()})
        check(average, average.module, x)
        columns = states[0].get("input_id")
        if columns is not None:
            assert torch.equal(average.module.state_dict()["input_id"], columns), option
        other = perturb(copy.deepcopy(model), 9)
        other.load_state_dict(average.module.state_dict())
        check(other, average.module, x)


def test_averaged_on_grids_that_stay(model, x):
    average = swa_utils.AveragedModel(model)
    ema = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
    states = []
    for _ in range(3):
        train_steps(model, x)
        average.update_parameters(model)
        ema.update_parameters(model)
        check(average, average.module, x)
        check(ema, ema.module, x)
        states.append([p.detach().clone() for p in model.parameters()])
    for p, of in zip(average.module.parameters(), zip(*states, strict=True), strict=True):
        torch.testing.assert_close(p, sum(of) / 3, **CLOSE)
    swa_utils.update_bn([x], average)


def smooth(model):
    """The model with functions that splines of any of its grids can follow: sin(i + o + x) on all edges."""
    for layer in layers(model):
        x = torch.linspace(-3, 3, 60, dtype=torch.float64)[:, None].expand(-1, layer.in_features)
        layer.set_grid(
            KANLinear(1, 1, grid_size=12, grid_range=(-3, 3)).grid[0],
            torch.zeros(layer.in_features, 15, layer.out_features),
        )
        edges = torch.arange(layer.in_features)[:, None] + torch.arange(layer.out_features)
        layer.spline_weight.data = layer.curve2coeff(x, (x[..., None] + edges).sin())
    return model


def test_averaged_on_grids_that_move(model, x):
    """An average of functions, though torch averages coefficients and copies grids."""
    generator = torch.Generator().manual_seed(0)
    smooth(model)
    first = layers(model)[0]
    inside = torch.linspace(-1, 1, 50, dtype=torch.float64)[:, None].expand(-1, first.in_features)
    average = swa_utils.AveragedModel(model)
    ema = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.5))
    mean, moving = 0.0, 0.0
    for n in range(4):
        with torch.no_grad():
            for layer in layers(model):
                layer.coef.mul_(0.5)
        for layer in layers(model):
            rows = torch.randn(300, layer.in_features, generator=generator, dtype=torch.float64).clamp(-1.2, 1.2)
            rows[:2, :] = torch.tensor([[-1.5 - 0.1 * n], [1.5]])
            layer.extend_grid(15) if n == 2 else layer.update_grid(rows)
        average.update_parameters(model)
        ema.update_parameters(model)
        y = definition.linear(first, inside)
        mean, moving = (n * mean + y) / (n + 1), 0.5 * (moving + y) if n else y
        for found, expected in ((average, mean), (ema, moving)):
            y = definition.linear(layers(found.module)[0], inside)
            torch.testing.assert_close(y, expected, rtol=0, atol=0.01 * float(expected.abs().max()))
            check(found, found.module, x)


# torch.nn.utils


def test_prune_utilities(model, x):
    for layer in layers(model):
        prune.random_unstructured(layer, "coef", 0.2)
        prune.l1_unstructured(layer, "coef", 0.2)
        prune.ln_structured(layer, "coef", 0.3, n=2, dim=0)
        prune.custom_from_mask(layer, "base_weight", torch.rand(layer.base_weight.shape) > 0.3)
    check(model, model, x)
    train_steps(model, x)
    check(model, model, x)
    for layer in layers(model):
        prune.remove(layer, "coef")
        prune.remove(layer, "base_weight")
        assert isinstance(layer.coef, nn.Parameter) and (layer.coef == 0).any()
    check(model, model, x)
    check_copy(copy.deepcopy(model), model, x)
    prune.global_unstructured([(layer, "coef") for layer in layers(model)], prune.L1Unstructured, amount=0.3)
    with torch.no_grad():  # whose results can be copied
        check(model, model, x)
        check(copy.deepcopy(model), model, x)
        check(pickle.loads(pickle.dumps(model)), model, x)
    assert prune.is_pruned(model)


def test_parametrized(model, x):
    kinds = (
        lambda layer: parametrizations.weight_norm(layer, "coef"),
        lambda layer: parametrizations.spectral_norm(layer, "base_weight"),
        lambda layer: parametrizations.orthogonal(layer, "base_weight"),
        lambda layer: parametrizations.orthogonal(layer, "coef"),
    )
    for register in kinds:
        each = copy.deepcopy(model)
        each.eval()
        for layer in layers(each):
            register(layer)
        check(each, each, x)
        train_steps(each, x)
        check(each, each, x)
        with parametrize.cached():
            check(each, each, x)
            check(each, each, x)
        check(copy.deepcopy(each), each, x)
        for layer in layers(each):
            for name in list(layer.parametrizations):
                parametrize.remove_parametrizations(layer, name)
        check(each, each, x)
        train_steps(each, x)
        check(each, each, x)


def test_old_weight_norm(model, x):

    for layer in layers(model):
        nn.utils.weight_norm(layer, "coef")
        nn.utils.spectral_norm(layer, "base_weight", n_power_iterations=20)
    model(x)  # power iterations
    model.eval()
    check(model, model, x)
    train_steps(model, x)
    check(model, model, x)
    for layer in layers(model):
        nn.utils.remove_weight_norm(layer, "coef")
        nn.utils.remove_spectral_norm(layer, "base_weight")
    check(model, model, x)
    train_steps(model, x)
    check(model, model, x)


def test_vectors_of_parameters(model, x):
    other = perturb(copy.deepcopy(model), 3)
    for mine, theirs in zip(model.buffers(), other.buffers(), strict=True):
        theirs.copy_(mine)
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()), other.parameters())
    check_copy(other, model, x)
    loss(model(x)).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    nn.utils.clip_grad_value_(model.parameters(), 0.01)
    assert max(float(p.grad.abs().max()) for p in trained(model).values() if p.grad is not None) <= 0.01
    train_steps(other, x)
    check(other, other, x)


# Training


def test_optimizers(model, x):
    plain = {
        "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop",
        "SGD",
    }  # fmt: skip
    choices = [(name, {}) for name in plain]
    choices += [(name, {"foreach": True}) for name in plain] + [(name, {"maximize": True}) for name in plain]
    choices += [(name, {"fused": True}) for name in ("Adagrad", "Adam", "AdamW", "SGD")]
    choices += [("Adam", {"amsgrad": True}), ("SGD", {"momentum": 0.9, "nesterov": True}), ("LBFGS", {})]
    choices += [("LBFGS", {"line_search_fn": "strong_wolfe"})]
    state = copy.deepcopy(model.state_dict())
    for name, options in choices:
        model.load_state_dict(state)
        model(x)
        optimizer = getattr(torch.optim, name)(trained(model).values(), lr=1e-3, **options)

        def closure(optimizer=optimizer):
            optimizer.zero_grad()
            value = model(x).square().mean()
            value.backward()
            return value

        before = float(model(x).square().mean())
        for _ in range(2):
            optimizer.step(closure)
        change = float(model(x).square().mean()) - before
        assert (change > 0) == ("maximize" in options), (name, options)
        check(model, model, x)
    with pytest.raises(ValueError, match="Muon only supports 2D parameters"):
        torch.optim.Muon(model.parameters())
    flat = [p for p in trained(model).values() if p.dim() == 2]
    optimizer = torch.optim.Muon(flat)
    loss(model(x)).backward()
    optimizer.step()
    check(model, model, x)


def test_views_held_before_a_change(model, x):
    """Tensors by efficient-kan's and pykan's names, held before the model changes."""
    layer = layers(model)[0]
    held = [layer.spline_weight]
    if isinstance(model, KAN):
        numeric = model.act_fun[0]
        held += [numeric.coef, numeric.scale_sp, numeric.scale_base]
    loss(model(x)).backward()
    for view in held:
        assert view.grad.shape == view.shape and view.grad.any()
    for view in held:
        view.data = view.data * 1.5
        check(model, model, x)
        view.data.mul_(0.5)
        check(model, model, x)
        view.grad = None
    assert layer.coef.grad is None
    optimizer = torch.optim.SGD([{"params": [held[0]], "lr": 0.1}, {"params": held[2:], "lr": 0.01}])
    before = layer.coef.clone()
    loss(model(x)).backward()
    optimizer.step()
    assert not torch.equal(before, layer.coef)
    check(model, model, x)
    for view in held:
        view.requires_grad_(False)
    model.zero_grad()
    loss(model(x)).backward()
    assert layer.coef.grad is None
    if isinstance(model, KAN):
        for mask in (model.act_fun[0].mask, model.act_fun[1].mask, model.symbolic_fun[0].mask):
            for value in 0.0, 0.5:
                mask.data[0, 1] = value
                check(model, model, x)
