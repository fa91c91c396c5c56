"""quantize: tables against the functions that they replace, which layers are replaced, what works with the result."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from fastkan import KAN, KANLinear, KANSequential
from fastkan.nn import KANAttention, KANConv2d, QuantizedKANLinear, quantize
from fastkan.nn.quantized import SCALES, _bag, _gathered, points, reference, rows_of

EPS = torch.finfo(torch.float32).eps


def layer(inputs: int = 3, outputs: int = 4, **options) -> KANLinear:
    made = KANLinear(inputs, outputs, generator=torch.Generator().manual_seed(0), scale_noise=2.0, **options)
    for p in (made.bias, made.spline_scale):
        if p is not None:
            nn.init.normal_(p, generator=torch.Generator().manual_seed(1))
    return made


def range_of(table: QuantizedKANLinear) -> tuple[Tensor, Tensor]:
    """The first and the last point of every input, [I] in float64."""
    first = table.low + 0.5 / table.per_unit
    return first, first + (table.levels - 1) / table.per_unit


def at_points(table: QuantizedKANLinear, n: int = 200) -> tuple[Tensor, Tensor]:
    """Random points x [N, I] of the table, in float64, and the largest error of its results there, [N, 1].

    A value is rounded to a number of 8 bits, by half of its row's scale; sums of I rows and the bias are float32.
    """
    bits = table.levels.bit_length() - 1
    level = torch.randint(table.levels, (n, table.in_features), generator=torch.Generator().manual_seed(2))
    x = points(*range_of(table), bits).gather(0, level)
    first = torch.arange(table.in_features) * (table.levels + 1)
    rows = table.table[first + level]  # N I O+8
    scale, offset = rows[..., -SCALES:].contiguous().view(torch.float32).double().abs().unbind(-1)
    size = (255 * scale + offset).sum(1, keepdim=True) + table.bias.abs().max()
    return x, scale.sum(1, keepdim=True) / 2 + (table.in_features + 4) * EPS * size


def assert_rounded(actual: Tensor, expected: Tensor, tolerance: Tensor) -> None:
    assert actual.shape == expected.shape
    assert bool(((actual.double() - expected.double()).abs() <= tolerance).all())


class Scaled(nn.Module):
    """A base function with a parameter."""

    def __init__(self):
        super().__init__()
        self.by = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        return self.by * x.tanh()


OPTIONS = {
    "plain": {},
    "bias": {"bias": True, "grid_size": 9, "spline_order": 2, "grid_range": (-3, 1)},
    "linear, with scale": {"outside": "linear", "enable_standalone_scale_spline": True},
    "no base": {"base_activation": None, "spline_order": 1},
    "own base": {"base_activation": Scaled},
    "fourier": {"family": "fourier", "base_activation": "identity"},
    "rbf": {"family": "rbf"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
@torch.no_grad()
def test_values_at_the_points_are_those_of_the_layer(options):
    """Whatever the functions are, in the grid range and in ranges by rows."""
    model = layer(**options)
    rows = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.3, 1.0, 5.0])
    for x in (None, rows):
        table = quantize(model, x)
        at, tolerance = at_points(table)
        assert_rounded(table(at), copy.deepcopy(model).double()(at), tolerance)


@pytest.mark.parametrize("bits", range(2, 9))
@torch.no_grad()
def test_between_the_points_the_nearest_counts_and_beyond_them_the_end(bits):
    table = quantize(layer(bias=True), bits=bits)
    assert table.levels == 2**bits and table.table.shape == (3 * (2**bits + 1), 4 + 8)
    x, _ = at_points(table)
    step = 1 / table.per_unit
    torch.testing.assert_close(range_of(table), (-torch.ones(3).double(), torch.ones(3).double()))
    for shift in (-0.49, 0.49):
        assert torch.equal(table(x + shift * step), table(x))
    low, high = range_of(table)
    assert torch.equal(table(high + torch.tensor([1.0, 1e30, torch.inf])), table(high))
    assert torch.equal(table(low - torch.tensor([1.0, 1e30, torch.inf])), table(low))
    assert not torch.equal(table(low), table(high))


@torch.no_grad()
def test_a_nan_makes_its_row_nan():
    table = quantize(layer())
    x = torch.zeros(4, 3)
    x[1, 2] = x[3, 0] = torch.nan
    assert table(x).isnan().all(1).tolist() == [False, True, False, True]


@torch.no_grad()
def test_ranges_are_those_of_each_layers_own_input():
    model = KANSequential(layer(3, 4), layer(4, 2)).train()
    x = torch.randn(100, 3) * 3 + 1
    tables = quantize(model, x)
    for table, rows in zip(tables, (x, model[0](x)), strict=True):
        torch.testing.assert_close(range_of(table), tuple(rows.double().aminmax(dim=0)))
    assert torch.equal(tables(x), tables[1](tables[0](x)))
    x[:, 1] = 1e6  # a constant column: its value is a point of the table
    low, high = range_of(quantize(model[0], x))
    torch.testing.assert_close(low[1].item(), 1e6)
    assert high[1] > low[1]


@torch.no_grad()
def test_other_devices_get_the_same_sums_by_plain_torch():
    table = quantize(layer(7, 5))
    x = torch.randn(50, 7)
    x[3, 4] = torch.nan
    rows = rows_of(x, table.low, table.per_unit, len(table.table))
    scales = table.table[:, -SCALES:].contiguous().view(torch.float32)
    size = 7 * scales.abs().nan_to_num().max()
    actual, expected = _gathered(table.table, rows), _bag(table.table, rows)
    torch.testing.assert_close(actual, expected, atol=float(255 * 7 * EPS * size), rtol=7 * EPS, equal_nan=True)
    assert torch.equal(actual.isnan(), expected.isnan())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_the_operator_is_the_reference(dtype):
    """For outputs that fill vectors and not, rows that fill tasks and not, any strides, NaN and values out of range."""
    for inputs, outputs in ((1, 1), (3, 7), (5, 16), (2, 24), (9, 75), (4, 130), (0, 3), (2, 0)):
        table = quantize(layer(inputs, outputs, bias=True, dtype=dtype)) if inputs and outputs else None
        buffers = (
            (torch.zeros(2 * inputs, outputs + SCALES, dtype=torch.uint8), *torch.ones(2, inputs, dtype=torch.float64),
             torch.ones(outputs, dtype=dtype))
            if table is None else (table.table, table.low, table.per_unit, table.bias)
        )  # fmt: skip
        for n in (0, 1, 37):
            x = (torch.randn(2 * inputs, n) * 2).to(dtype)[::2].T
            x[n // 2 : n // 2 + 1, : inputs // 2] = torch.nan
            actual = torch.ops.fastkan.table_sum(buffers[0], x, *buffers[1:])
            expected = reference(buffers[0], x, *buffers[1:])
            assert actual.dtype == expected.dtype == dtype and actual.shape == (n, outputs)
            close = {"rtol": 1e-5, "atol": 1e-5} if dtype.itemsize > 2 else {}
            torch.testing.assert_close(actual, expected, equal_nan=True, **close)


def test_the_operator_names_a_bad_argument():
    table, x = quantize(layer()), torch.zeros(2, 3)
    good = {"table": table.table, "x": x, "low": table.low, "per_unit": table.per_unit, "bias": table.bias}
    bad = {"table": table.table[:, 1:], "x": x[0], "low": table.low[1:], "per_unit": table.per_unit.float()}
    for name, value in bad.items():
        with pytest.raises(RuntimeError, match=name):
            torch.ops.fastkan.table_sum(**good | {name: value})
    with pytest.raises(RuntimeError, match="table"):
        torch.ops.fastkan.table_sum(**good | {"table": table.table[:4]})


def test_shapes_dtypes_and_casts():
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        model = layer(dtype=dtype)
        table = quantize(model)
        assert table(torch.zeros(2, 5, 3)).shape == (2, 5, 4) and table(torch.zeros(3)).shape == (4,)
        assert table(torch.zeros(0, 3)).shape == (0, 4) and table(torch.zeros(1, 3)).dtype == dtype
    table, x = quantize(layer()), torch.randn(20, 3)
    assert torch.equal(table(x.T.contiguous().T), table(x))
    half = copy.deepcopy(table).half()
    assert half.low.dtype == torch.float64 and half(x).dtype == torch.float16
    for name in ("low", "per_unit"):
        assert torch.equal(getattr(half, name), getattr(table, name))


def test_there_is_no_gradient():
    model = nn.Sequential(nn.Linear(3, 3), layer())
    table, x = quantize(model), torch.randn(2, 3)
    assert not table(x).requires_grad and not table.training and model.training
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(RuntimeError, match="x.requires_grad=True: expected an x without gradient"):
        table(x.requires_grad_())
    with torch.no_grad():
        table(x)


def test_with_tools_of_torch(tmp_path):
    model = quantize(KANSequential(layer(3, 4), layer(4, 2)), torch.randn(50, 3))
    x = torch.randn(10, 3)
    expected = model(x)
    with torch.inference_mode():
        assert torch.equal(model(x), expected)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), expected)
    close = torch.testing.assert_close  # tracers get operators of torch, whose sums have another order
    close(torch.jit.trace(model, x)(x), expected)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("rows")},))
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    close(loaded(x), expected)
    close(loaded(x[:4]), expected[:4])
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    close(compiled(x), expected)
    other = quantize(KANSequential(KANLinear(3, 4), KANLinear(4, 2)))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), expected)


@pytest.mark.long
def test_compiled_by_inductor():
    model, x = quantize(KANSequential(layer(3, 4), layer(4, 2))), torch.randn(10, 3)
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x))


def test_what_is_replaced():
    shared = layer(4, 4)
    model = nn.ModuleDict({
        "conv": KANConv2d(1, 2, 3), "attention": KANAttention(4, 2), "one": shared, "two": nn.Sequential(shared),
        "linear": nn.Linear(4, 4),
    })  # fmt: skip
    tables = quantize(model)
    assert tables["one"] is tables["two"][0] and isinstance(tables["one"], QuantizedKANLinear)
    assert isinstance(tables["conv"].edges, KANLinear) and isinstance(tables["attention"].query, QuantizedKANLinear)
    assert model["one"] is shared is model["two"][0] and type(tables["linear"]) is nn.Linear
    assert not any(p.requires_grad for p in tables.parameters())


class First(nn.Sequential):
    """Calls its first module alone."""

    def forward(self, x: Tensor) -> Tensor:
        return self[0](x)


def test_errors():
    model = KANSequential(layer())
    for bits, kind in ((1, ValueError), (9, ValueError), (8.0, TypeError)):
        with pytest.raises(kind, match=f"bits={bits}: expected an integer"):
            quantize(model, bits=bits)
    with pytest.raises(ValueError, match="model=Linear: expected a module with a KANLinear or a KAN in it"):
        quantize(nn.Linear(2, 2))
    for x in (torch.zeros(0, 3), torch.full((2, 3), torch.nan), torch.full((2, 3), torch.inf)):
        with pytest.raises(ValueError, match="x gives a layer rows .* expected finite inputs"):
            quantize(model, x)
    with pytest.raises(ValueError, match=r"expected \[..., 3\]"):
        quantize(model)(torch.zeros(2, 4))
    model[0].coef.data[1, 3, 2] = torch.inf
    with pytest.raises(ValueError, match="model has an edge from input 1 to output 2 that is not finite"):
        quantize(model)
    with pytest.raises(ValueError, match=r"model\(x\) does not call '1': expected rows that every layer sees"):
        quantize(First(layer(), layer()), torch.zeros(2, 3))
    hooked = layer()
    hooked.register_forward_hook(lambda module, args, y: 2 * y)
    with pytest.raises(ValueError, match="model has hooks at '', a KANLinear"):
        quantize(hooked)


# Networks


def network(**options) -> KAN:
    """With affine maps, an edge that is off, and a multiplication node."""
    model = KAN([3, [2, 1], 2], seed=3, dtype=torch.float64, **options)
    generator = torch.Generator().manual_seed(0)
    for maps in (model.node_scale, model.node_bias, model.subnode_scale, model.subnode_bias):
        for p in maps:
            p.data.normal_(generator=generator)
    model.remove_edge(0, 1, 0)
    return model


@torch.no_grad()
def test_a_network_with_products_and_symbolic_edges():
    model, x = network(), torch.randn(100, 3, dtype=torch.float64)
    model.fix_symbolic(0, 0, 1, "sin", fit_params_bool=False, verbose=False)
    model.fix_symbolic(1, 2, 0, "x^2", fit_params_bool=False, verbose=False)
    tables = quantize(model, x)
    columns, first, products, last = tables
    at, tolerance = at_points(first)
    subnodes = model.sums(0, at) * model.subnode_scale[0] + model.subnode_bias[0]
    assert_rounded(first(at), subnodes, tolerance)
    torch.testing.assert_close(products(subnodes), model.nodes(0, model.sums(0, at)))
    at, tolerance = at_points(last)
    assert_rounded(last(at), model.nodes(1, model.sums(1, at)), tolerance)
    hidden = model.nodes(0, model.sums(0, x))
    torch.testing.assert_close(range_of(last), tuple(hidden.aminmax(dim=0)))
    assert torch.equal(tables(x), last(products(first(columns(x)))))
    assert tables(x[0]).shape == (2,) and tables(x.view(2, 50, 3)).shape == (2, 50, 2)
    assert tables(x[:0]).shape == (0, 2)
    assert torch.equal(copy.deepcopy(tables)(x), tables(x))


@torch.no_grad()
def test_a_network_that_reads_some_columns():
    model = KAN([2, 1], seed=0)
    model.in_features, model.input_id = 4, torch.tensor([3, 1])
    table = quantize(model)[1]
    at, tolerance = at_points(table)
    x = torch.full((len(at), 4), torch.nan)
    x[:, [3, 1]] = at.float()
    assert_rounded(quantize(model)(x), copy.deepcopy(model).double()(x.double()), tolerance)


@torch.no_grad()
def test_a_network_inside_of_a_model():
    model, x = nn.Sequential(nn.Linear(2, 3), KAN([3, 2, 1], seed=0)), torch.randn(20, 2)
    tables = quantize(model, x)
    assert torch.equal(tables(x), quantize(model[1], model[0](x))(model[0](x)))
    assert isinstance(model[1], KAN) and model.training


def test_errors_of_networks():
    with pytest.raises(ValueError, match="layer_norm=True: expected False for tables"):
        quantize(KAN([2, 3, 1], layer_norm=True))
    model = KAN([2, 1])
    model.fix_symbolic(0, 0, 0, "log", fit_params_bool=False, verbose=False)
    with pytest.raises(ValueError, match="x=None: expected rows"):
        quantize(model)
    with pytest.raises(ValueError, match="layer 0 has an edge from input 0 to output 0 that is not finite"):
        quantize(model, torch.tensor([[-1.0, 0.0], [1.0, 1.0]]))

    class Own(KAN):
        def sums(self, *args):
            return 2 * super().sums(*args)

    with pytest.raises(ValueError, match="Own with a forward of its own"):
        quantize(Own([2, 1]))


@torch.no_grad()
def test_layers_that_are_called_by_name():
    class Named(nn.Sequential):
        def forward(self, rows: Tensor) -> Tensor:
            return self[0](x=rows)

    model, x = Named(layer()), torch.randn(20, 3)
    assert torch.equal(quantize(model, x)(x), quantize(model[0], x)(x))
