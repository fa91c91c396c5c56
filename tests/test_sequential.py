"""KANSequential and KAN as one fused call or layer by layer: when each runs, with equal results."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.backends.common import aot_autograd

from fastkan import KAN, KANLinear, direct, stack
from fastkan.nn import KANSequential
from support.networks import assert_same, data, in_turn, network, sequence

pytestmark = pytest.mark.usefixtures("native")
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture
def fused(monkeypatch) -> list[int]:
    """The depths of the stacks that ran."""
    ran, run = [], stack.stack_out

    def stack_out(x, layers, backend):
        ran.append(len(layers))
        return run(x, layers, backend)

    def stack_out_in_cpp(x, layers, *limits):
        y = in_cpp(x, layers, *limits)
        ran.extend([] if y is None else [len(layers)])
        return y

    monkeypatch.setattr(stack, "stack_out", stack_out)
    if (in_cpp := direct.stack_out) is not None:
        monkeypatch.setattr(direct, "stack_out", stack_out_in_cpp)
    return ran


# KANSequential


def test_is_the_layers_in_turn(fused):
    mixed = (
        {"spline_order": 2, "bias": True, "grid_range": (-2, 2)},
        {"grid_size": 9, "outside": "linear", "enable_standalone_scale_spline": True},
        {"base_activation": None, "spline_order": 5},
    )
    for model in (sequence(), sequence(*mixed)):
        model[1].update_grid(model[0](data()))  # knots that are not equidistant
        assert_same(model, lambda x, m=model: nn.Sequential.forward(m, x), data())
    assert fused == [3, 3]


def test_is_a_sequential(fused):
    model = sequence()
    assert isinstance(model, nn.Sequential) and len(model) == 3 and isinstance(model[:2], KANSequential)
    plain = nn.Sequential(*copy.deepcopy(model))
    model.load_state_dict(plain.state_dict())
    torch.testing.assert_close(model[:2](data()), plain[:2](data()))
    assert model(data()[0]).shape == (2,) and model(data().view(5, 8, 3)).shape == (5, 8, 2)
    assert KANSequential()(data()) is not None
    assert fused == [2, 3, 3]


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"x has shape \[4, 2\]: expected \[..., 3\]"):
        sequence()(torch.zeros(4, 2, dtype=torch.float64))
    with pytest.raises(TypeError, match="x is a list: expected a tensor"):
        sequence()([1.0, 2.0, 3.0])


def patched(model):
    model[1].forward = lambda x: KANLinear.forward(model[1], x) * 2
    return model


def hooked(model):
    model[1].register_forward_hook(lambda module, args, y: y * 2)
    return model


def half(model):
    model[2].bfloat16()
    return model


APART = {
    "a hook": lambda: hooked(sequence()),
    "a patched forward": lambda: patched(sequence()),
    "a base function of one's own": lambda: sequence({"base_activation": torch.tanh}, {}, {}),
    "another module": lambda: KANSequential(*sequence(), nn.Tanh()),
    "a subclass": lambda: KANSequential(*sequence()[:2], type("Own", (KANLinear,), {})(4, 2, dtype=torch.float64)),
    "different backends": lambda: sequence({"backend": "reference"}, {}, {}),
    "another backend": lambda: sequence(backend="reference"),
    "one layer": lambda: sequence()[:1],
}


@pytest.mark.parametrize("why", APART)
def test_goes_layer_by_layer(why, fused):
    model = APART[why]()
    expected = data()
    for layer in model:
        expected = layer(expected)
    torch.testing.assert_close(model(data()), expected, rtol=0, atol=0)
    assert not fused


def test_goes_layer_by_layer_where_dtypes_differ(fused):
    model = sequence(dtype=torch.float32)
    model[2].double()
    assert model(data(dtype=torch.float32)).dtype == torch.float64
    assert sequence(dtype=torch.bfloat16)(data(dtype=torch.bfloat16)).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert sequence(dtype=torch.float32)(data(dtype=torch.float32)).dtype == torch.bfloat16
    assert not fused


def test_a_hook_on_every_module_is_called(fused):
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, y: seen.append(type(module)))
    try:
        sequence()(data())
    finally:
        handle.remove()
    assert seen == [KANLinear] * 3 + [KANSequential] and not fused


def test_compiles_to_one_operator_each_way():
    torch._dynamo.reset()
    operators = []

    def keep(graph, inputs):
        operators.append({str(n.target) for n in graph.graph.nodes if "fastkan" in str(n.target)})
        return graph.forward

    model = sequence({}, {"enable_standalone_scale_spline": True}, {"bias": True})
    compiled = torch.compile(model, fullgraph=True, backend=aot_autograd(fw_compiler=keep, bw_compiler=keep))
    for rows in (6, 9, 20):
        x = data(rows).requires_grad_()
        got, want = ([y, *torch.autograd.grad(y.square().sum(), [x, *model.parameters()])]
                     for y in (compiled(x), model(x)))  # fmt: skip
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, **CLOSE)
    assert operators == [{"fastkan.stack_out.default"}, {"fastkan.stack_backward.default"}] * 2
    torch._dynamo.reset()


def test_exports():
    """Layer by layer: AOTInductor takes no operator whose argument is an empty list of tensors."""
    model = sequence()
    program = torch.export.export(model, (data(),), dynamic_shapes={"x": {0: torch.export.Dim("rows")}})
    operators = {str(node.target) for node in program.graph.nodes if "fastkan" in str(node.target)}
    assert operators == {"fastkan.kan_out.default"}
    torch.testing.assert_close(program.module()(data(7)), model(data(7)))


def test_gradients_of_every_row():
    model = sequence()
    parameters = dict(model.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(model, parameters, (x[None],)).square().sum()

    x = data(4)
    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for n in range(len(x)):
        expected = torch.autograd.grad(model(x[n : n + 1]).square().sum(), list(parameters.values()))
        for got, want in zip(found.values(), expected, strict=True):
            torch.testing.assert_close(got[n], want)


# KAN


def test_kan_is_its_layers_in_turn(fused):
    for model in (
        network(),
        network(k=[1, 2, 3], grid=[3, 8, 5]),
        network(base_fun="identity"),
        network(sb_trainable=False),
    ):
        assert_same(model, lambda x, m=model: in_turn(m, x), data())
    assert fused == [3] * 4


def test_kan_with_masks(fused):
    model = network()
    model.remove_edge(0, 0, 1)
    model.act_fun[1].mask[2, 3] = 0.5
    assert_same(model, lambda x: in_turn(model, x), data())
    assert fused == [3]


def symbolic(model):
    model.fix_symbolic(0, 0, 0, "sin", fit_params_bool=False, verbose=False)
    return model


def moved(model):
    model.node_bias[1].data[0] = 1.0  # which no version of the parameter tells
    return model


def without_an_input(model):
    for j in range(5):
        model.remove_edge(0, 1, j)
    return model


class Doubled(KAN):
    def sums(self, at, x, *args):
        return 2 * super().sums(at, x, *args)


KAN_APART = {
    "symbolic edges": lambda: symbolic(network()),
    "multiplication nodes": lambda: network([3, [3, 1], 2]),
    "affine maps that train": lambda: network(affine_trainable=True),
    "an affine map": lambda: moved(network()),
    "an input that no edge reads": lambda: without_an_input(network()),
    "a subclass that changes the steps": lambda: Doubled([3, 5, 4, 2], dtype=torch.float64),
    "a base function of one's own": lambda: network(base_fun=torch.tanh),
    "one layer": lambda: network([3, 2]),
    "another backend": lambda: network(backend="reference"),
}


@pytest.mark.parametrize("why", KAN_APART)
def test_kan_goes_layer_by_layer(why, fused):
    model = KAN_APART[why]()
    torch.testing.assert_close(model(data()), in_turn(model, data()), rtol=0, atol=0)
    assert not fused


def test_kan_sees_changes_between_calls(fused):
    model = network()
    model(data())
    model.node_scale[0].data.fill_(2.0)
    torch.testing.assert_close(model(data()), in_turn(model, data()), rtol=0, atol=0)
    model.node_scale[0].data.fill_(1.0)
    model(data())
    symbolic(model)(data())
    model.unfix_symbolic_all()
    model(data())
    assert fused == [3] * 3


def test_kan_hooks_are_called(fused):
    model, seen = network(), []
    model.act_fun[1].register_forward_hook(lambda module, args, y: seen.append(module))
    model(data())
    assert seen == [model.act_fun[1]] and not fused


def test_kan_leading_dimensions(fused):
    model = network()
    for shape in ((3,), (0, 3), (2, 5, 3)):
        x = data(10)[:, :3].reshape(-1)[: torch.Size(shape).numel()].view(shape)
        assert model(x).shape == (*shape[:-1], 2)
    assert fused == [3] * 3


def test_kan_under_transforms():
    model = network()
    x = data(4)
    hessians = torch.func.vmap(torch.func.hessian(lambda r: model(r[None])[0]))(x)
    assert_hessian = torch.stack([torch.func.hessian(lambda r: in_turn(model, r[None])[0])(r) for r in x])
    torch.testing.assert_close(hessians, assert_hessian)


def test_kan_compiles(fused):
    torch._dynamo.reset()
    model = network()
    torch.testing.assert_close(torch.compile(model, backend="eager")(data()), model(data()))
    torch._dynamo.reset()
