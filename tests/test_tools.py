"""Every tool of PyTorch's world that calls a model, on every kind of model.

Values and gradients are those of the model's present tensors. test_jit.py, test_onnx.py and test_inductor.py have more
of programs, test_tools_state.py has the tools that write tensors.
"""

import copy
import functools
import io

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from fastkan import KAN
from support import definition
from support.model_kinds import (
    CLOSE,
    MODELS,
    build,
    check,
    check_copy,
    check_with_gradients,
    data,
    gradients,
    layers,
    loss,
    perturb,
    same,
    trained,
)
from support.tiers import long

pytestmark = pytest.mark.filterwarnings("ignore")  # most of these tools are deprecated, or prototypes


# For tools that take seconds.
two_kinds = pytest.mark.parametrize("kind", ["KANSequential", "symbolic", *long("KANLinear", "KAN", "pruned")])


@pytest.fixture(params=MODELS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def model(kind) -> nn.Module:
    return build(kind)


@pytest.fixture
def x() -> torch.Tensor:
    return data()


# Ways to call a model


def test_eager(model, x):
    check(model, model, x)
    check(lambda x: model(x.view(3, 4, 5)).view(12, 2), model, x)
    found = gradients(model, x)
    for name, p in trained(model).items():
        step = torch.randn(p.shape, generator=torch.Generator().manual_seed(0), dtype=p.dtype)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                p.add_(step, alpha=sign * 1e-6)
                ends.append(float(loss(definition.value(model, x))))
                p.add_(step, alpha=-sign * 1e-6)
        torch.testing.assert_close(float((found[name] * step).sum()), (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-6)


def test_no_grad_and_inference_mode(model, x):
    for mode in torch.no_grad, torch.inference_mode:
        with mode():
            check(model, model, x)
            check(copy.deepcopy(model), model, x)
    check_with_gradients(model, model, x)


def test_autocast(model, x):
    model = model.float()
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x.float())
        loss(y.float()).backward()
    right = definition.value(model, x)
    torch.testing.assert_close(y.double(), right, rtol=0.05, atol=0.05 * float(right.abs().max()))
    assert all(
        p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in trained(model).values() if p.grad is not None
    )


@two_kinds
def test_compile_with_aot_autograd(model, x):
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    check_with_gradients(compiled, model, x)
    perturb(model, 5)
    check_with_gradients(compiled, model, x)


@two_kinds
def test_compile_in_place(model, x):
    torch._dynamo.reset()
    model.compile(backend="eager")
    check_with_gradients(model, model, x)


def test_autograds_own_tools(model, x):
    with torch.autograd.graph.save_on_cpu():
        check_with_gradients(model, model, x)
    with torch.autograd.detect_anomaly(check_nan=True):
        check_with_gradients(model, model, x)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        check_with_gradients(model, model, x)
    with torch.autograd.set_multithreading_enabled(False):
        check_with_gradients(model, model, x)
    expected = torch.autograd.functional.jacobian(model, x[0])
    found = torch.autograd.functional.jacobian(model, x[0], vectorize=True, strategy="forward-mode")
    torch.testing.assert_close(found, expected, **CLOSE)
    rows = torch.eye(2, dtype=torch.float64)
    row = x[0].clone().requires_grad_()
    (found,) = torch.autograd.grad(model(row), row, rows, is_grads_batched=True)
    torch.testing.assert_close(found, expected, **CLOSE)


def test_checkpoint(model, x):
    check_with_gradients(lambda x: checkpoint(model, x, use_reentrant=False), model, x)
    expected = gradients(model, x)
    each = x.clone().requires_grad_()
    loss(checkpoint(model, each, use_reentrant=True)).backward()
    same({"": each.grad} | {name: p.grad for name, p in model.named_parameters()}, expected)


@two_kinds
def test_flops_and_profiles(model, x):
    with FlopCounterMode(display=False) as counter:
        check(model, model, x)
        loss(model(x)).backward()
    assert counter.get_total_flops() > 0
    with torch.profiler.profile(record_shapes=True, with_stack=True, profile_memory=True) as profile:
        check_with_gradients(model, model, x)
    assert any("kan" in event.key or "stack" in event.key for event in profile.key_averages())


def test_hooks(model, x):
    before, calls = model(x), []
    handles = [module.register_forward_hook(lambda *_: calls.append("forward")) for module in layers(model)]
    handles += [module.register_forward_pre_hook(lambda *_: calls.append("before")) for module in layers(model)]
    handles += [module.register_full_backward_hook(lambda *_: calls.append("back")) for module in layers(model)]
    handles += [module.register_full_backward_pre_hook(lambda *_: calls.append("pre")) for module in layers(model)]
    check_with_gradients(model, model, x)
    assert {calls.count(name) for name in ("forward", "before")} == {5 * len(layers(model))}, calls
    assert {calls.count(name) for name in ("back", "pre")} == {2 * len(layers(model))}, calls
    for handle in handles:
        handle.remove()
    calls.clear()
    own = set(layers(model))
    everywhere = nn.modules.module.register_module_forward_hook(lambda module, *_: calls.append(module))
    try:
        check_with_gradients(model, model, x)
    finally:
        everywhere.remove()
    assert own <= set(calls)
    handles = [module.register_forward_hook(lambda module, args, y: 0 * y) for module in layers(model)[-1:]]
    y = model(x)
    handles[0].remove()
    assert not torch.equal(y, before)
    assert torch.equal(model(x), before)


def test_data_parallel(model, x, monkeypatch):
    if hasattr(torch, "single"):  # the device of support/single.py, which tests before this one have registered
        monkeypatch.setattr(torch.single, "is_available", lambda: False)
    check_with_gradients(nn.DataParallel(model), model, x)


def test_inputs_of_unsupported_types_are_errors(model, x):
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


# torch.func


def test_func_functional_call(model, x):
    other = perturb(copy.deepcopy(model), 7)
    state = dict(other.named_parameters()) | dict(other.named_buffers())
    check(lambda x: functional_call(model, state, (x,)), other, x)
    check(lambda x: functional_call(model, dict(other.state_dict()) | state, (x,)), other, x)
    check(model, model, x)
    found = grad(lambda p: loss(functional_call(model, (p, dict(other.named_buffers())), (x,))))(
        dict(other.named_parameters())
    )
    same(found, {name: g for name, g in gradients(other, x).items() if name})


def test_func_ensembles(model, x):
    models = [perturb(copy.deepcopy(model), seed) for seed in range(3)]
    state = stack_module_state(models)
    y = vmap(lambda p, b: functional_call(model, (p, b), (x,)))(*state)
    for one, found in zip(models, y, strict=True):
        torch.testing.assert_close(found, definition.value(one, x), **CLOSE)


def test_func_per_sample_gradients(model, x):
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    found = vmap(grad(lambda p, row: loss(functional_call(model, p, (row,)))), (None, 0))(parameters, x)
    for n in range(3):
        same({name: g[n] for name, g in found.items()}, {k: g for k, g in gradients(model, x[n]).items() if k})


def test_func_derivatives(model, x):
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


def test_gradcheck(model, x):
    parameters = [p for p in trained(model).values()]
    names = list(trained(model))

    def run(x, *values):
        return functional_call(model, dict(zip(names, values, strict=True)), (x,)).sin()

    inputs = [t.detach().clone().requires_grad_() for t in (x[:3], *parameters)]
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True, atol=1e-4)


# Tensors without values


def test_fake_tensors(model, x):
    with FakeTensorMode() as mode:
        state = {name: mode.from_tensor(t) for name, t in (*model.named_parameters(), *model.named_buffers())}
        assert functional_call(model, state, (mode.from_tensor(x),)).shape == (12, 2)
        gradient = grad(lambda state: functional_call(model, state, (mode.from_tensor(x),)).sum())(state)
        assert all(gradient[name].shape == p.shape for name, p in model.named_parameters())
    check_with_gradients(model, model, x)


def test_meta(model, x):
    state = copy.deepcopy(model.state_dict())
    empty = copy.deepcopy(model).to("meta")
    assert empty(x.to("meta")).shape == (12, 2)
    empty(x.to("meta")).sum().backward()
    empty.zero_grad()
    assigned = copy.deepcopy(empty)
    assigned.load_state_dict(state, assign=True)
    check_copy(assigned, model, x)
    loaded = copy.deepcopy(empty).to_empty(device="cpu")
    loaded.load_state_dict(state)
    check_copy(loaded, model, x)
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
    check_copy(one_by_one, model, x)
    empty.to_empty(device="cpu")
    if isinstance(model, KAN):
        if len(model.input_id) < 5:
            with pytest.raises(
                RuntimeError, match="input_id has no values.*3 of 5 columns of x are read: set input_id"
            ):
                empty.reset_parameters()
            empty.input_id = model.input_id
        empty.reset_parameters()
    for layer in layers(empty):
        layer.reset_parameters()
    check(empty, empty, x)


# Programs


def test_export(model, x):
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("rows")},))
    check(program.module(), model, data(7))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    check(torch.export.load(file).module(), model, x)


@two_kinds
def test_make_fx(model, x):
    for mode in "real", "fake", "symbolic":
        check(make_fx(lambda x: model(x), tracing_mode=mode, _allow_non_fake_inputs=True)(x), model, data(12, 3))
    parameters = dict(model.named_parameters())
    step = grad(lambda p, x: loss(functional_call(model, p, (x,))))
    same(
        make_fx(step)(parameters, x)(parameters, data(12, 3)),
        {n: gradients(model, data(12, 3))[n] for n in trained(model)},
    )


def test_jit_trace(model, x):
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, x[:5]), file)
    file.seek(0)
    loaded = torch.jit.load(file)
    check(loaded, model, x)


@two_kinds
def test_older_onnx(model, x):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    file = io.BytesIO()
    rows = {"x": {0: "rows"}}
    torch.onnx.export(model, (x[:5],), file, dynamo=False, input_names=["x"], dynamic_axes=rows)
    (y,) = onnxruntime.InferenceSession(file.getvalue()).run(None, {"x": x.numpy()})
    check(lambda x: torch.from_numpy(y), model, x, rtol=1e-5, atol=1e-5)
