"""torch.compile with fullgraph, forward and backward, dynamic shapes, and torch.export."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._inductor import cpp_builder

from fastkan import use_backend
from fastkan.functional import edge_mean, kan_linear
from fastkan.testing import Problem
from support.backends import skip_if_missing
from support.graphs import Graphs, forward_and_backward
from support.tiers import long

P = Problem.random(6, 3, 4, 5, dtype=torch.float64)
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def layer(backend: str | None, **kwargs):
    def run(x, coef, base_weight, bias, scale):
        return kan_linear(
            x, coef, P.grid, base_weight, bias, scale=scale, degree=3, backend=backend, **{"base": "silu", **kwargs}
        )

    return run


def edges(backend: str | None):
    def run(x, coef, base_weight, bias, scale):
        return edge_mean(x, coef, P.grid, base_weight, degree=3, backend=backend)

    return run


def leaves(rows: int = 6, lead: tuple[int, ...] | None = None) -> list[torch.Tensor]:
    x = torch.linspace(-1.3, 1.3, rows * 3, dtype=torch.float64).reshape(*(lead or (rows,)), 3)
    return [t.clone().requires_grad_() for t in (x, P.coef, P.base_weight, P.bias, P.terms[0])]


def assert_ran_on(backend: str, graphs: Graphs, *contractions: str) -> None:
    fused = [{name.split(".")[1] for name in names if name.startswith("fastkan.")} for names in graphs.operators]
    assert fused == ([{name} for name in contractions] if backend == "native" else [set()] * len(contractions))


@pytest.mark.parametrize(
    ("outside", "base"),
    [("zero", "silu"), ("linear", "identity"), ("clamp", torch.tanh)],
    ids=["zero", "linear", "clamp and a user's base"],
)
def test_forward_and_backward_in_one_graph_each(backend_name, outside, base):
    graphs = Graphs()
    run = layer(backend_name, outside=outside, base=base)
    compiled = torch.compile(run, fullgraph=True, backend=graphs.backend)
    for got, want in zip(forward_and_backward(compiled, leaves()), forward_and_backward(run, leaves()), strict=True):
        torch.testing.assert_close(got, want, **CLOSE)
    assert_ran_on(backend_name, graphs, "kan_out", "kan_backward")


@pytest.mark.parametrize("lead", [(2, 3), (1, 2, 3)], ids=str)
def test_leading_dimensions(backend_name, lead):
    graphs = Graphs()
    run = layer(backend_name)
    compiled = torch.compile(run, fullgraph=True, backend=graphs.backend)
    for got, want in zip(
        forward_and_backward(compiled, leaves(6, lead)), forward_and_backward(run, leaves(6, lead)), strict=True
    ):
        torch.testing.assert_close(got, want, **CLOSE)
    assert_ran_on(backend_name, graphs, "kan_out", "kan_backward")


def test_edge_mean_compiles(backend_name):
    graphs = Graphs()
    compiled = torch.compile(edges(backend_name), fullgraph=True, backend=graphs.backend)
    expected = forward_and_backward(edges(backend_name), leaves())
    for got, want in zip(forward_and_backward(compiled, leaves()), expected, strict=True):
        torch.testing.assert_close(got, want, **CLOSE)
    assert_ran_on(backend_name, graphs, "edge_moments", "edge_backward")


def test_without_gradients(backend_name):
    graphs = Graphs()
    compiled = torch.compile(layer(backend_name), fullgraph=True, backend=graphs.backend)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*leaves()), layer(backend_name)(*leaves()), **CLOSE)
    assert_ran_on(backend_name, graphs, "kan_out")


@pytest.mark.parametrize("what", [layer, edges])
def test_a_dynamic_batch_compiles_once(backend_name, what):
    run = what(backend_name)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(run, fullgraph=True, backend=counter)
    for rows in (6, 7, 40, 3):
        tensors = leaves(rows)
        torch._dynamo.mark_dynamic(tensors[0], 0)
        for got, want in zip(
            forward_and_backward(compiled, tensors), forward_and_backward(run, leaves(rows)), strict=True
        ):
            torch.testing.assert_close(got, want, **CLOSE)
    assert counter.frame_count == 1


def test_unmarked_dynamic_batch_compiles_twice(backend_name):
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer(backend_name), fullgraph=True, backend=counter)
    for rows in (6, 7, 40, 3):
        forward_and_backward(compiled, leaves(rows))
    assert counter.frame_count == 2  # the first size, then any size


def test_the_choice_of_backend_is_guarded(native):
    graphs = Graphs()
    compiled = torch.compile(layer(None), fullgraph=True, backend=graphs.backend)
    for name in ("native", "reference"):
        with use_backend(name), torch.no_grad():
            compiled(*leaves())
        assert_ran_on(name, graphs, "kan_out")
        graphs.operators.clear()


def test_autocast_compiles(backend_name):
    run = layer(backend_name)
    tensors = [t.detach().float().requires_grad_() for t in leaves()]
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        y = compiled(*tensors)
        torch.testing.assert_close(y, run(*tensors))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(t.grad.dtype == torch.float32 for t in tensors)


class Net(torch.nn.Module):
    def __init__(self, backend: str):
        super().__init__()
        self.coef, self.base_weight = torch.nn.Parameter(P.coef.clone()), torch.nn.Parameter(P.base_weight.clone())
        self.register_buffer("grid", P.grid[0].clone())
        self.backend = backend

    def forward(self, x):
        y = kan_linear(x, self.coef, self.grid, self.base_weight, degree=3, backend=self.backend)
        return torch.tanh(y)


def test_export(backend_name):
    net, x = Net(backend_name), leaves()[0].detach()
    program = torch.export.export(net, (x,), dynamic_shapes={"x": {0: torch.export.Dim("rows")}})
    names = {str(node.target) for node in program.graph.nodes}
    assert ("fastkan.kan_out.default" in names) == (backend_name == "native")
    for rows in (6, 11):
        x = leaves(rows)[0].detach()
        torch.testing.assert_close(program.module()(x), net(x), **CLOSE)


@pytest.mark.parametrize("backend_name", ["native", *long("reference")])
def test_inductor(backend_name):
    skip_if_missing(backend_name)
    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:
        pytest.skip(f"inductor finds no C++ compiler: {type(error).__name__}")
    run = layer(backend_name)
    compiled = torch.compile(run, fullgraph=True)
    for got, want in zip(forward_and_backward(compiled, leaves()), forward_and_backward(run, leaves()), strict=True):
        torch.testing.assert_close(got, want, **CLOSE)
