"""State dicts of networks: averages, casts, pykan's names, wrappers, other widths, masks written through .data."""

import copy
import io
import json
import re

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fastkan import KAN
from fastkan.compat.pykan import MultKAN, from_pykan_state, to_pykan_state
from fastkan.compat.pykan.kan.KANLayer import KANLayer
from fastkan.compat.pykan.kan.Symbolic_KANLayer import Symbolic_KANLayer
from fastkan.network.layers import library
from fastkan.network.layers.names import decode, encode
from fastkan.network.layers.symbolic import SymbolicLayer

X = 2 * torch.rand(40, 3, generator=torch.Generator().manual_seed(0)) - 1
NAMES = [["0", "sin"], ["x^2", "0"], ["exp", "sin"]]


def symbolic(*names: str, columns=(0, 2), seed: int = 1) -> KAN:
    """[2, 2, 1] that reads some of three columns, with these functions on its first four edges."""
    model = KAN([3, 2, 1], seed=seed)
    model.get_act(X)
    model = model.prune_input(active_inputs=list(columns))
    for n, name in enumerate(names):
        model.fix_symbolic(0, n // 2, n % 2, name, fit_params_bool=False, verbose=False)
    return model


# Averages and casts


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t, lambda t: (t + t) / 2, lambda t: 0.9 * t + 0.1 * t, lambda t: torch.lerp(t, t, 0.3),
        torch.Tensor.long, lambda t: (t.to(torch.uint8) + t.to(torch.uint8)) / 2,
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_names_outlive_averages_and_casts(change, dtype):
    assert decode(change(encode(NAMES).to(dtype)), 3, 2) == NAMES


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_names_outlive_a_long_moving_average(dtype):
    start = encode(NAMES).to(dtype)
    average = start
    for _ in range(2000):
        average = 0.999 * average + 0.001 * start
    assert decode(average, 3, 2) == NAMES


@pytest.mark.parametrize("weight", [0.5, 0.1, 1e-3, 1e-6])
def test_an_average_of_different_names_is_an_error(weight):
    other = [["0", "cos"], *NAMES[1:]]
    for different in (other, [["0", "tanh"], *NAMES[1:]], NAMES[::-1]):
        with pytest.raises(ValueError, match="different functions on their edges"):
            decode(torch.lerp(encode(NAMES), encode(different), weight), 3, 2)
    with pytest.raises(ValueError, match="or was rounded"):
        decode(encode(NAMES).to(torch.float8_e5m2), 3, 2)
    with pytest.raises(ValueError, match="another number of edges: expected 2 x 2"):
        decode(encode(NAMES), 2, 2)


def test_names_of_older_state_dicts():
    old = torch.tensor(list(json.dumps(NAMES).encode()), dtype=torch.uint8)
    assert decode(old, 3, 2) == decode(old.float(), 3, 2) == NAMES
    with pytest.raises(ValueError, match="another number of edges"):
        decode(old, 2, 3)
    model, state = symbolic("sin"), symbolic("sin", "exp").state_dict()
    names = [["sin", "0"], ["exp", "0"]]
    state["symbolic_fun.0._extra_state"] = torch.tensor(list(json.dumps(names).encode()), dtype=torch.uint8)
    model.load_state_dict(state)
    assert model.symbolic_fun[0].funs_name == names


def test_layers_of_one_shape_have_states_of_one_length():
    lengths = {len(encode([[name] * 3] * 4)) for name in library.SYMBOLIC_LIB}
    names = list(library.SYMBOLIC_LIB)
    assert lengths == {len(encode([names[i : i + 3] for i in range(0, 12, 3)]))}


AVERAGES = {
    "mean": lambda a, b: (a + b) / 2,
    "weighted": lambda a, b: 0.9 * a + 0.1 * b,
    "lerp": lambda a, b: torch.lerp(a.double(), b.double(), 0.25),
    "half": lambda a, b: (a.half() + b.half()) / 2,
}


@pytest.mark.parametrize("average", AVERAGES.values(), ids=AVERAGES)
def test_an_average_of_state_dicts_loads(average):
    a, b = symbolic("sin", "exp", seed=1), symbolic("sin", "exp", seed=2)
    first, second = a.state_dict(), b.state_dict()
    mean = {name: average(first[name], second[name]) for name in first}
    model = symbolic("tanh", seed=3)
    model.load_state_dict(mean)
    assert model.symbolic_fun[0].funs_name == a.symbolic_fun[0].funs_name
    assert model.input_id.tolist() == [0, 2] and model.input_id.dtype == torch.int64
    expected = average(a.act_fun[0].linear.coef, b.act_fun[0].linear.coef).float()
    torch.testing.assert_close(model.act_fun[0].linear.coef, nn.Parameter(expected), rtol=0, atol=0)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    again = symbolic()
    again.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert torch.equal(again(X), model(X))


def test_averages_that_are_none():
    a, other, columns = symbolic("sin", "exp"), symbolic("sin", "cos"), symbolic("sin", "exp", columns=(0, 1))
    for b, message in ((other, "symbolic_fun.0._extra_state: .*different functions"), (columns, "input_id=.*columns")):
        state = {name: AVERAGES["mean"](t, b.state_dict()[name]) for name, t in a.state_dict().items()}
        with pytest.raises(RuntimeError, match=message):
            copy.deepcopy(a).load_state_dict(state)


def test_averaged_model_and_moving_average():
    model = symbolic("sin", "exp")
    averaged = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)
    averaged.update_parameters(model)
    averaged.update_parameters(model)
    torch.testing.assert_close(averaged(X), copy.deepcopy(averaged.module)(X))
    ema = copy.deepcopy(model)
    for mine, theirs in zip(ema.state_dict().values(), averaged.module.state_dict().values(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs.to(mine.dtype), 0.1)
    fresh = symbolic()
    fresh.load_state_dict(ema.state_dict())
    assert torch.equal(fresh(X), ema(X))


# pykan's names, wrappers, other widths


class Net(nn.Module):
    def __init__(self, kan: nn.Module):
        super().__init__()
        self.kan, self.fc = kan, nn.Linear(1, 1)


def pykans(model: KAN, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: value.float() for name, value in to_pykan_state(model).items()}


@pytest.mark.parametrize(
    "kind", [lambda width: KAN(width, outside="zero"), lambda width: MultKAN(width, auto_save=False)]
)
@pytest.mark.parametrize("width", [[3, 2, 1], [3, [1, 2], 1]])
def test_pykans_state_dict_loads_wherever_the_network_stands(kind, width):
    theirs = KAN(width, grid=7, seed=5, affine_trainable=True, outside="zero")
    with torch.no_grad():
        theirs.node_bias[0] += 1.0
        theirs.act_fun[0].mask[0, 1] = 0.0
    for model, prefix, load in (
        (net := Net(kind(width)), "kan.", lambda state: net.load_state_dict(state | net.fc.state_dict(prefix="fc."))),
        (kan := kind(width), "module.", lambda state: kan.load_state_dict(state)),
        (plain := kind(width), "", lambda state: plain.load_state_dict(state)),
    ):
        load(pykans(theirs, prefix))
        own = model.kan if prefix == "kan." else model
        torch.testing.assert_close(own(X), theirs(X), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(from_pykan_state(pykans(theirs, "module.kan."), width)(X), theirs(X))
    both = pykans(theirs, "a.") | pykans(theirs, "b.")
    with pytest.raises(ValueError, match=r"several models, \['a.', 'b.'\]: expected the part of one"):
        from_pykan_state(both, width)


def test_a_wrappers_prefix_of_ones_own_state_dict():
    theirs, model = symbolic("sin"), symbolic()
    model.load_state_dict({f"module.{name}": value for name, value in theirs.state_dict().items()})
    assert torch.equal(model(X), theirs(X))
    with pytest.raises(RuntimeError, match="Unexpected key.*other"):
        symbolic().load_state_dict(theirs.state_dict() | {"other": torch.zeros(1)})


@pytest.mark.parametrize("base_fun", ["silu", "zero"])
def test_the_state_dict_of_a_single_layer_of_pykans(base_fun):
    made = KANLayer(3, 2, base_fun=base_fun)
    state = {name: getattr(made, name).detach().float() for name in ("grid", "coef", "mask", "scale_base", "scale_sp")}
    layer = KANLayer(3, 2, base_fun=base_fun, noise_scale=0.1)
    layer.load_state_dict(state)
    assert torch.equal(layer(X)[0], made(X)[0])
    with pytest.raises(ValueError, match=r"state is a kan.KANLayer's: .*load_state_dict loads"):
        from_pykan_state(state)


def test_missing_functions_of_pykans_state_dict_warn():
    model, x = symbolic("sin", "exp"), X
    state, other = to_pykan_state(model), symbolic("tanh")
    with pytest.warns(UserWarning, match=re.escape("symbolic_fun.0: the edges (i, j) = [(0, 1)] are symbolic")):
        other.load_state_dict(state)
    assert other.symbolic_fun[0].funs_name[0][0] == "tanh"
    with pytest.warns(UserWarning, match="they are 0 here"):
        from_pykan_state(state)
    other.symbolic_fun[0].funs_name = model.symbolic_fun[0].funs_name
    other.load_state_dict(state)
    torch.testing.assert_close(other(x), model(x))
    layer = Symbolic_KANLayer(2, 2)
    layer.funs_name = model.symbolic_fun[0].funs_name
    layer.load_state_dict({name: state[f"symbolic_fun.0.{name}"] for name in ("mask", "affine")})
    torch.testing.assert_close(layer(x[:, :2])[0], model.symbolic_fun[0](x[:, :2]))


@pytest.mark.parametrize("of_pykan", [False, True])
def test_a_state_dict_of_another_width(of_pykan):
    made = KAN([3, 2, 1])
    state = pykans(made) if of_pykan else made.state_dict()
    for width, expected in (
        ([3, 5, 1], "[3, 5, 1]"),
        ([3, 2, 2, 1], "[3, 2, 2, 1]"),
        ([3, [1, 2], 1], "3 -> 5, 3 -> 1"),
    ):
        with pytest.raises(RuntimeError) as error:
            KAN(width).load_state_dict(state)
        assert str(error.value) == f"the state dict of the model has width [3, 2, 1]: expected {expected}"
        with pytest.raises(RuntimeError, match="the state dict of 0 has width"):
            nn.Sequential(KAN(width)).load_state_dict({f"0.{name}": value for name, value in state.items()})
    with pytest.raises(RuntimeError, match="another number of edges: expected 3 x 3"):
        SymbolicLayer(3, 3).load_state_dict(SymbolicLayer(3, 2).state_dict())


# Masks and names that are written behind the layer's back

WRITES = {
    "data": lambda layer: layer.mask.data[0, 1].fill_(0.0),
    "kept": lambda layer: None,
    "numpy": lambda layer: layer.edge_mask.numpy().__setitem__((0, 1), 0.0),
    "buffer": lambda layer: setattr(layer, "edge_mask", layer.edge_mask * torch.tensor([[1.0, 0.0], [1.0, 1.0]])),
    "assigned": lambda layer: layer.load_state_dict(
        layer.state_dict() | {"edge_mask": torch.tensor([[1.0, 0.0], [1.0, 1.0]])}, assign=True
    ),
}


def layer_of(*functions: str) -> SymbolicLayer:
    layer = SymbolicLayer(2, 2)
    for n, name in enumerate(functions):
        layer.set_edge(n // 2, n % 2, name, (1.0, 3.0, 1.0, 0.5))
    return layer


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("inference", [False, True])
def test_written_mask_takes_effect(write, inference):
    with torch.inference_mode(inference):
        layer, x = layer_of("sin", "exp", "x^2", "log"), X[:, :2]
        kept, y = layer.mask, layer(x)
        WRITES[write](layer)
        kept.data[0, 1] = 0.0
        layer.edge_mask.data[0, 1] = 0.0
        expected = torch.sin(x[:, 0] + 3) + 0.5
        torch.testing.assert_close(layer(x)[:, 0], expected)
        assert not torch.equal(layer(x), y)
        outputs, inputs, _ = layer.edges(x)
        assert [*zip(outputs.tolist(), inputs.tolist(), strict=True)] == [(0, 0), (1, 0), (1, 1)]


def test_switching_all_on_and_off_by_data():
    layer, x = SymbolicLayer(2, 2), X[:, :2]
    names = layer.funs_name
    assert not layer.active and not layer.affine.requires_grad
    mask = layer.mask
    layer(x)
    names[1][0] = "sin"
    layer.affine.data[1, 0] = torch.tensor([1.0, 0.0, 2.0, 0.0])
    mask.data[1, 0] = 1.0
    torch.testing.assert_close(layer(x)[:, 1], 2 * torch.sin(x[:, 0]))
    assert layer.active and layer.affine.requires_grad
    names[1][0] = "cos"
    torch.testing.assert_close(layer(x)[:, 1], 2 * torch.cos(x[:, 0]))
    layer.affine.requires_grad_(False)
    mask.numpy()[:] = 0.0
    assert not layer(x).any() and not layer.active
    mask.data[1, 0] = 1.0
    assert layer.active and not layer.affine.requires_grad, "frozen it was, and frozen it stays"


def test_a_function_of_the_library_that_is_replaced(monkeypatch):
    monkeypatch.setattr(library, "SYMBOLIC_LIB", dict(library.SYMBOLIC_LIB))
    library.add_symbolic("mine", torch.sin)
    layer, x = layer_of("mine"), X[:, :2]
    layer(x)
    library.add_symbolic("mine", torch.cos)
    torch.testing.assert_close(layer(x)[:, 0], torch.cos(x[:, 0] + 3) + 0.5)


def test_in_inference_mode():
    model = symbolic("sin", "exp", "x^2")
    y = model(X)
    with torch.inference_mode():
        for made in (copy.deepcopy(model), model.double().float(), copy.deepcopy(model)):
            layer = made.symbolic_fun[0]
            values = layer(X[:, [0, 2]])
            layer.edge_mask.data[0, 0] = 0.0
            assert not torch.equal(layer(X[:, [0, 2]]), values)
        fresh = SymbolicLayer(2, 2)
        fresh.load_state_dict(layer.state_dict())
        torch.testing.assert_close(fresh(X[:, :2]), layer(X[:, :2]))
        fresh.set_edge(1, 1, "sin")
        assert fresh.active and fresh.double()(X[:, :2].double()).shape == (40, 2)
    assert fresh(X[:, :2].double()).shape == (40, 2) and y.shape == (40, 1)


def test_compiled_models_are_right_for_every_mask():
    """Under a compiler and under transforms; an edge that is off does not make its function's NaN."""
    layer, x = layer_of("sin", "exp", "x^2", "log"), X[:, :2]
    layer.set_edge(1, 1, "log", (1.0, -5.0, 1.0, 0.0), 0.0)
    assert layer(x).isfinite().all()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    for j, i in ((0, 0), (0, 1)):
        torch.testing.assert_close(compiled(x), layer(x))
        layer.edge_mask.data[j, i] = 0.0
    torch.testing.assert_close(compiled(x), layer(x))
    others = [layer, copy.deepcopy(layer)]
    others[1].edge_mask.data[0, 0] = 1.0
    parameters, buffers = torch.func.stack_module_state(others)

    def call(p, b):
        return torch.func.functional_call(layer, (p, b), (x,))

    expected = torch.stack([each(x) for each in others])
    torch.testing.assert_close(torch.func.vmap(call)(parameters, buffers), expected)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert layer(mode.from_tensor(x)).shape == (40, 2)
    gradient = torch.func.grad(lambda p: call(p, dict(layer.named_buffers())).sum())(dict(layer.named_parameters()))
    assert gradient["affine"].isfinite().all() and not gradient["affine"][1, 1].any()


def test_sixteen_bits_are_rounded_once():
    layer, x = layer_of("sin", "exp"), X[:, :2]
    layer.set_edge(0, 0, "cos", (0.5, 0.25, 512.0, -512.0))
    for dtype in (torch.float16, torch.bfloat16):
        small = copy.deepcopy(layer).to(dtype)
        y = small(x.to(dtype))
        exact = copy.deepcopy(small).double()(x.to(dtype).double())
        assert y.dtype == dtype
        assert ((y.double() - exact).abs() <= 0.51 * torch.finfo(dtype).eps * exact.abs() + 1e-4).all()
