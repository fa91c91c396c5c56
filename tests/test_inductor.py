"""Models compiled by Inductor and ahead of time (AOTInductor) against eager ones."""

import pytest
import torch
from torch._inductor import aoti_compile_and_package, aoti_load_package, cpp_builder

from fastkan import KAN, KANLinear
from fastkan.nn import KANSequential


@pytest.fixture(autouse=True)
def compiler():
    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:
        pytest.skip(f"inductor finds no C++ compiler: {type(error).__name__}")
    torch._dynamo.reset()


def symbolic() -> KAN:
    model = KAN([3, [1, 1], 2], seed=0)
    model.remove_edge(0, 1, 2)
    for edge, name in (((0, 0, 0), "sin"), ((0, 1, 0), "exp"), ((1, 0, 1), "exp")):
        model.fix_symbolic(*edge, name, fit_params_bool=False, verbose=False)
    return model


def test_everything_ahead_of_time():
    """A model of all kinds of layers, in one program, with a number of rows that is left open."""
    torch.manual_seed(0)
    sequence = KANSequential(KANLinear(3, 4, bias=True), KANLinear(4, 3, outside="linear"))
    options = {"enable_standalone_scale_spline": True, "base_activation": torch.tanh}
    model = torch.nn.Sequential(sequence, KANLinear(3, 3, **options), KAN([3, 2, 3]), symbolic()).double().eval()
    rows = ({0: torch.export.Dim("rows")},)
    program = torch.export.export(model, (torch.rand(8, 3, dtype=torch.float64),), dynamic_shapes=rows)
    operators = [str(node.target) for node in program.graph.nodes if "fastkan" in str(node.target)]
    assert operators == ["fastkan.kan_out.default"] * 7
    run = aoti_load_package(aoti_compile_and_package(program))
    for size in 5, 33:
        x = 3 * torch.rand(size, 3, dtype=torch.float64) - 1.5
        torch.testing.assert_close(run(x), model(x), rtol=1e-10, atol=1e-10)


@pytest.mark.long
@pytest.mark.long
def test_symbolic_edges():
    """Sums over edges that begin at a constant, which every row has to itself."""
    model, x = symbolic().double(), torch.rand(8, 3, dtype=torch.float64)
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-10, atol=1e-10)
    used = [p for p in model.parameters() if p.requires_grad]
    found, expected = (torch.autograd.grad(run(x).square().sum(), used, allow_unused=True) for run in (compiled, model))
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, torch.zeros_like(got) if want is None else want, rtol=1e-10, atol=1e-10)
