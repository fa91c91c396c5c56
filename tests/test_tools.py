"""Every tool of PyTorch's world on every kind of model: what comes out is what the model's present tensors say.

A row of the table is a function of a model and of data; it runs for each model below. What a model computes is held
against truth.value, and gradients against those of a plain backward pass. test_state.py holds what writes tensors,
test_jit.py, test_onnx.py, test_inductor.py and test_sharded.py their subjects in depth.
"""

import copy
import functools
import io
import pickle
import tempfile

import pytest
import torch
import truth
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, stack_module_state, vmap
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim import swa_utils

from fastkan import KAN, KANLinear
from fastkan.nn import KANSequential

CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def moved(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with knots that are not equidistant and other numbers everywhere."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, KANLinear):
            x = torch.randn(300, module.in_features, generator=generator, dtype=torch.float64)
            module.update_grid(x.to(module.coef.dtype))
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model


def pruned() -> KAN:
    """Without two inputs of five and a hidden node, and with some of the edges that are left off."""
    model = KAN([5, 4, 2])
    model = model.prune_input(active_inputs=[0, 3, 4]).prune_node(active_neurons_id=[[0, 1, 3]])
    with torch.no_grad():
        model.act_fun[0].mask[0, 1], model.act_fun[0].mask[1, 1], model.act_fun[1].mask[2, 0] = 0.0, 0.0, 0.5
    return model


def symbolic() -> KAN:
    """Some edges are formulas, some are splines, and one is nothing; a node multiplies."""
    model = KAN([5, [2, 1], 2])
    model.remove_edge(0, 1, 2)
    for edge, name in (((0, 0, 0), "sin"), ((0, 4, 1), "exp"), ((1, 0, 1), "x^2")):
        model.fix_symbolic(*edge, name, fit_params_bool=False, verbose=False)
    return model


MODELS = {
    "KANLinear": lambda: KANLinear(5, 2, bias=True),
    "KANSequential": lambda: KANSequential(KANLinear(5, 4), KANLinear(4, 2)),
    "KAN": lambda: KAN([5, 3, 2]),
    "pruned": pruned,
    "symbolic": symbolic,
}
TOOLS = {}


def tool(run):
    """A row of the table: run(model, x)."""
    TOOLS[run.__name__] = run
    return run


def data(rows: int = 12, seed: int = 1) -> torch.Tensor:
    """Mostly within the grids."""
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check(run, model: nn.Module, x: torch.Tensor | None = None, **tolerance) -> None:
    """run(x) is what model's tensors say."""
    x = data() if x is None else x
    torch.testing.assert_close(run(x).detach().double(), truth.value(model, x), **(tolerance or CLOSE))


def loss(y: torch.Tensor) -> torch.Tensor:
    return (y * torch.linspace(0.5, 2.0, y.numel(), dtype=y.dtype).view(y.shape)).sin().sum()


def used(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def gradients(model: nn.Module, x: torch.Tensor, run=None) -> dict[str, torch.Tensor]:
    """Of loss(model(x)) by every parameter, and by x under ""."""
    x = x.clone().requires_grad_()
    model(x)  # which decides what takes a gradient
    parameters = used(model)
    value = loss((model if run is None else run)(x))
    found = torch.autograd.grad(value, [x, *parameters.values()], allow_unused=True, materialize_grads=True)
    return dict(zip(["", *parameters], found, strict=True))


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], **tolerance) -> None:
    for name, want in expected.items():
        got = found.get(name)
        got = torch.zeros_like(want) if got is None else got
        torch.testing.assert_close(got, want, **(tolerance or CLOSE), msg=lambda text, name=name: f"{name}: {text}")


def both(run, model: nn.Module, x: torch.Tensor) -> None:
    """run(x) is what the model's tensors say, with the gradients of the model."""
    check(run, model, x)
    same(gradients(model, x, run), gradients(model, x))


def twins(made, model: nn.Module, x: torch.Tensor) -> None:
    """The same for a model with parameters of its own."""
    assert made is not model
    check(made, model, x)
    same(gradients(made, x), gradients(model, x))


# Ways to call a model


@tool
def eager(model, x):
    check(model, model, x)
    check(lambda x: model(x.view(3, 4, 5)).view(12, 2), model, x)
    found = gradients(model, x)
    for name, p in used(model).items():
        step = torch.randn(p.shape, generator=torch.Generator().manual_seed(0), dtype=p.dtype)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                p.add_(step, alpha=sign * 1e-6)
                ends.append(float(loss(truth.value(model, x))))
                p.add_(step, alpha=-sign * 1e-6)
        torch.testing.assert_close(float((found[name] * step).sum()), (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-6)


@tool
def no_grad_and_inference_mode(model, x):
    for mode in torch.no_grad, torch.inference_mode:
        with mode():
            check(model, model, x)
            check(copy.deepcopy(model), model, x)
    both(model, model, x)


@tool
def autocast(model, x):
    model = model.float()
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x.float())
        loss(y.float()).backward()
    right = truth.value(model, x)
    torch.testing.assert_close(y.double(), right, rtol=0.05, atol=0.05 * float(right.abs().max()))
    assert all(
        p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in used(model).values() if p.grad is not None
    )


@tool
def compile_with_aot_autograd(model, x):
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    both(compiled, model, x)
    moved(model, 5)
    both(compiled, model, x)


@tool
def compile_in_place(model, x):
    torch._dynamo.reset()
    model.compile(backend="eager")
    both(model, model, x)


@tool
def export(model, x):
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("rows")},))
    check(program.module(), model, data(7))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    check(torch.export.load(file).module(), model, x)


@tool
def make_fx(model, x):
    from torch.fx.experimental.proxy_tensor import make_fx as trace

    for mode in "real", "fake", "symbolic":
        check(trace(lambda x: model(x), tracing_mode=mode, _allow_non_fake_inputs=True)(x), model, data(12, 3))
    parameters = dict(model.named_parameters())
    step = grad(lambda p, x: loss(functional_call(model, p, (x,))))
    same(
        trace(step)(parameters, x)(parameters, data(12, 3)), {n: gradients(model, data(12, 3))[n] for n in used(model)}
    )


# torch.func


@tool
def func_functional_call(model, x):
    other = moved(copy.deepcopy(model), 7)
    state = dict(other.named_parameters()) | dict(other.named_buffers())
    check(lambda x: functional_call(model, state, (x,)), other, x)
    check(lambda x: functional_call(model, dict(other.state_dict()) | state, (x,)), other, x)
    check(model, model, x)
    found = grad(lambda p: loss(functional_call(model, (p, dict(other.named_buffers())), (x,))))(
        dict(other.named_parameters())
    )
    same(found, {name: g for name, g in gradients(other, x).items() if name})


@tool
def func_ensembles(model, x):
    models = [moved(copy.deepcopy(model), seed) for seed in range(3)]
    state = stack_module_state(models)
    y = vmap(lambda p, b: functional_call(model, (p, b), (x,)))(*state)
    for one, found in zip(models, y, strict=True):
        torch.testing.assert_close(found, truth.value(one, x), **CLOSE)


@tool
def func_per_sample_gradients(model, x):
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    found = vmap(grad(lambda p, row: loss(functional_call(model, p, (row,)))), (None, 0))(parameters, x)
    for n in range(3):
        same({name: g[n] for name, g in found.items()}, {k: g for k, g in gradients(model, x[n]).items() if k})


@tool
def func_derivatives(model, x):
    row = x[0]
    expected = torch.autograd.functional.jacobian(model, row)
    for transform in jacrev, jacfwd:
        torch.testing.assert_close(transform(model)(row), expected, **CLOSE)
    torch.testing.assert_close(vmap(jacrev(model))(x)[0], expected, **CLOSE)
    second = torch.autograd.functional.hessian(lambda row: loss(model(row)), row)
    torch.testing.assert_close(hessian(lambda row: loss(model(row)))(row), second, **CLOSE)
    t = data(1, 9)[0]
    y, dy = jvp(model, (row,), (t,))
    torch.testing.assert_close(dy, expected @ t, **CLOSE)
    y, linear = linearize(model, row)
    torch.testing.assert_close(y, model(row), **CLOSE)
    torch.testing.assert_close(linear(t), expected @ t, **CLOSE)
    step = 1e-5
    torch.testing.assert_close((model(row + step * t) - model(row - step * t)) / (2 * step), dy, rtol=1e-6, atol=1e-7)


@tool
def gradcheck(model, x):
    parameters = [p for p in used(model).values()]
    names = list(used(model))

    def run(x, *values):
        return functional_call(model, dict(zip(names, values, strict=True)), (x,)).sin()

    inputs = [t.detach().clone().requires_grad_() for t in (x[:3], *parameters)]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True, atol=1e-4)


# Tensors without values


@tool
def fake_tensors(model, x):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        state = {name: mode.from_tensor(t) for name, t in (*model.named_parameters(), *model.named_buffers())}
        assert functional_call(model, state, (mode.from_tensor(x),)).shape == (12, 2)
        gradient = grad(lambda state: functional_call(model, state, (mode.from_tensor(x),)).sum())(state)
        assert all(gradient[name].shape == p.shape for name, p in model.named_parameters())
    both(model, model, x)


@tool
def meta(model, x):
    state = copy.deepcopy(model.state_dict())
    empty = copy.deepcopy(model).to("meta")
    assert empty(x.to("meta")).shape == (12, 2)
    empty(x.to("meta")).sum().backward()
    empty.zero_grad()
    assigned = copy.deepcopy(empty)
    assigned.load_state_dict(state, assign=True)
    twins(assigned, model, x)
    loaded = copy.deepcopy(empty).to_empty(device="cpu")
    loaded.load_state_dict(state)
    twins(loaded, model, x)
    one_by_one = copy.deepcopy(empty)
    for name, t in state.items():
        *path, last = name.split(".")
        owner = functools.reduce(getattr, path, one_by_one)
        if last in owner._parameters:
            owner._parameters[last] = nn.Parameter(t, requires_grad=owner._parameters[last].requires_grad)
        elif last in owner._buffers:
            owner._buffers[last] = t
        else:
            assert last == "_extra_state"
    twins(one_by_one, model, x)
    empty.to_empty(device="cpu")
    if isinstance(model, KAN):
        if len(model.input_id) < 5:
            with pytest.raises(RuntimeError, match="which 3 of 5 columns of x are read was lost.*set input_id"):
                empty.reset_parameters()
            empty.input_id = model.input_id
        empty.reset_parameters()
    for layer in layers(empty):
        layer.reset_parameters()
    check(empty, empty, x)


# Copies and files


@tool
def copies(model, x):
    model(x)
    for made in copy.deepcopy(model), copy.copy(model), pickle.loads(pickle.dumps(model)), torch_saved(model):
        twins(made, model, x)
        assert type(made) is type(model)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = moved(copy.deepcopy(model), 3)
    other.load_state_dict(torch.load(file, weights_only=True))
    twins(other, model, x)


def torch_saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@tool
def safetensors(model, x):
    files = pytest.importorskip("safetensors.torch")
    other = moved(copy.deepcopy(model), 3)
    other.load_state_dict(files.load(files.save({k: t.contiguous() for k, t in model.state_dict().items()})))
    twins(other, model, x)
    moved(other, 4)
    with tempfile.TemporaryDirectory() as folder:
        files.save_model(model, f"{folder}/model.safetensors")
        files.load_model(other, f"{folder}/model.safetensors")
    twins(other, model, x)


# Averages


@tool
def averaged_with_buffers(model, x):
    model = moved(model, 1)
    options = (
        {}, {"avg_fn": swa_utils.get_ema_avg_fn(0.9)}, {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.9)},
        {"multi_avg_fn": swa_utils.get_swa_multi_avg_fn()},
    )  # fmt: skip
    for option in options:
        average = swa_utils.AveragedModel(model, use_buffers=True, **option)
        states = []
        for seed in range(3):
            moved(model, seed)
            average.update_parameters(model)
            states.append({name: t.clone() for name, t in model.state_dict().items()})
        check(average, average.module, x)
        columns = states[0].get("input_id")
        if columns is not None:
            assert torch.equal(average.module.state_dict()["input_id"], columns), option
        other = moved(copy.deepcopy(model), 9)
        other.load_state_dict(average.module.state_dict())
        check(other, average.module, x)


@tool
def averaged_on_grids_that_stay(model, x):
    model = moved(model, 1)
    average = swa_utils.AveragedModel(model)
    ema = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        loss(model(x)).backward()
        optimizer.step()
        average.update_parameters(model)
        ema.update_parameters(model)
        check(average, average.module, x)
        check(ema, ema.module, x)
    swa_utils.update_bn([x], average)


# torch.nn.utils


def layers(model):
    return [module for module in model.modules() if isinstance(module, KANLinear)]


def steps(model, x):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        loss(model(x)).backward()
        optimizer.step()
    model(x)


@tool
def prune_utilities(model, x):
    for layer in layers(model):
        prune.random_unstructured(layer, "coef", 0.2)
        prune.l1_unstructured(layer, "coef", 0.2)
        prune.ln_structured(layer, "coef", 0.3, n=2, dim=0)
        prune.custom_from_mask(layer, "base_weight", torch.rand(layer.base_weight.shape) > 0.3)
    check(model, model, x)
    steps(model, x)
    check(model, model, x)
    for layer in layers(model):
        prune.remove(layer, "coef")
        prune.remove(layer, "base_weight")
        assert isinstance(layer.coef, nn.Parameter) and (layer.coef == 0).any()
    check(model, model, x)
    twins(copy.deepcopy(model), model, x)
    prune.global_unstructured([(layer, "coef") for layer in layers(model)], prune.L1Unstructured, amount=0.3)
    with torch.no_grad():  # whose results can be copied
        check(model, model, x)
        check(copy.deepcopy(model), model, x)
        check(pickle.loads(pickle.dumps(model)), model, x)
    assert prune.is_pruned(model)


@tool
def parametrized(model, x):
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
        steps(each, x)
        check(each, each, x)
        with parametrize.cached():
            check(each, each, x)
            check(each, each, x)
        check(copy.deepcopy(each), each, x)
        for layer in layers(each):
            for name in list(layer.parametrizations):
                parametrize.remove_parametrizations(layer, name)
        check(each, each, x)
        steps(each, x)
        check(each, each, x)


@tool
def old_weight_norm(model, x):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for layer in layers(model):
            nn.utils.weight_norm(layer, "coef")
            nn.utils.spectral_norm(layer, "base_weight")
    model.eval()
    check(model, model, x)
    steps(model, x)
    check(model, model, x)
    for layer in layers(model):
        nn.utils.remove_weight_norm(layer, "coef")
        nn.utils.remove_spectral_norm(layer, "base_weight")
    check(model, model, x)
    steps(model, x)
    check(model, model, x)


@tool
def vectors_of_parameters(model, x):
    other = moved(copy.deepcopy(model), 3)
    for mine, theirs in zip(model.buffers(), other.buffers(), strict=True):
        theirs.copy_(mine)
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()), other.parameters())
    twins(other, model, x)
    loss(model(x)).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    nn.utils.clip_grad_value_(model.parameters(), 0.01)
    assert max(float(p.grad.abs().max()) for p in used(model).values() if p.grad is not None) <= 0.01
    steps(other, x)
    check(other, other, x)


@tool
def checkpoint(model, x):
    from torch.utils.checkpoint import checkpoint as run

    both(lambda x: run(model, x, use_reentrant=False), model, x)
    expected = gradients(model, x)
    each = x.clone().requires_grad_()
    loss(run(model, each, use_reentrant=True)).backward()
    same({"": each.grad} | {name: p.grad for name, p in model.named_parameters()}, expected)


@tool
def flops_and_profiles(model, x):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        check(model, model, x)
        loss(model(x)).backward()
    assert counter.get_total_flops() > 0
    with torch.profiler.profile(record_shapes=True, with_stack=True, profile_memory=True) as profile:
        both(model, model, x)
    assert any("kan" in event.key or "stack" in event.key for event in profile.key_averages())


@tool
def hooks(model, x):
    before, calls = model(x), []
    handles = [module.register_forward_hook(lambda *_: calls.append("forward")) for module in layers(model)]
    handles += [module.register_forward_pre_hook(lambda *_: calls.append("before")) for module in layers(model)]
    handles += [module.register_full_backward_hook(lambda *_: calls.append("back")) for module in layers(model)]
    handles += [module.register_full_backward_pre_hook(lambda *_: calls.append("pre")) for module in layers(model)]
    both(model, model, x)
    assert {calls.count(name) for name in ("forward", "before")} == {5 * len(layers(model))}, calls
    assert {calls.count(name) for name in ("back", "pre")} == {2 * len(layers(model))}, calls
    for handle in handles:
        handle.remove()
    calls.clear()
    own = set(layers(model))
    everywhere = nn.modules.module.register_module_forward_hook(lambda module, *_: calls.append(module))
    try:
        both(model, model, x)
    finally:
        everywhere.remove()
    assert own <= set(calls)
    handles = [module.register_forward_hook(lambda module, args, y: 0 * y) for module in layers(model)[-1:]]
    y = model(x)
    handles[0].remove()
    assert not torch.equal(y, before)
    assert torch.equal(model(x), before)


@tool
def data_parallel(model, x):
    both(nn.DataParallel(model), model, x)


@tool
def quantize_dynamic(model, x):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.ao.quantization.quantize_dynamic(model, {nn.Linear, nn.LSTM}, dtype=torch.qint8)
    twins(made, model, x)


@tool
def swap_module_params_on_conversion(model, x):
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        other = copy.deepcopy(model)
        other.float().double()
        other.load_state_dict(model.state_dict())
        twins(other, model, x)
        assert all(layer.grid.dtype == torch.float64 for layer in layers(other.half()))
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


@tool
def shared_memory(model, x):
    both(model.share_memory(), model, x)


@tool
def requires_grad_off(model, x):
    model.requires_grad_(False)
    check(model, model, x)
    assert not model(x).requires_grad
    assert not used(model)


@tool
@pytest.mark.filterwarnings("ignore")
def inputs_that_are_no_dense_numbers(model, x):
    nested = torch.nested.nested_tensor
    for value, message in (
        (nested([x[:5], x[5:]]), "x is a nested tensor: expected a dense one"),
        (nested([x[:5], x[5:]], layout=torch.jagged), "x is a nested tensor: expected a dense one"),
        (x.to_sparse(), "x is a torch.sparse_coo tensor: expected a dense one"),
        (x.to_sparse_csr(), "x is a torch.sparse_csr tensor: expected a dense one"),
        (torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8), "x.dtype is torch.qint8: expected float32"),
        (x.to(torch.complex128), "x.dtype is torch.complex128: expected float32"),
        (x.long(), "x.dtype is torch.int64: expected float32"),
        (torch.masked.masked_tensor(x, x > 0), "Multiple dispatch failed"),
        (x.numpy(), "x is a ndarray: expected a tensor"),
    ):
        with pytest.raises(TypeError, match=message):
            model(value)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", TOOLS)
def test_tool(name, kind):
    TOOLS[name](moved(MODELS[kind]().double()), data())
