"""FLOPs of every operator in torch's counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

import fastkan  # noqa: F401  registers the formulas
from fastkan import KAN, KANLinear, ops
from fastkan.functional import edge_mean, kan_linear
from fastkan.nn import KANSequential
from fastkan.stack import Layer, layered, parts

N, I, O = 10, 3, 2  # noqa: E741
EDGE = 2 * N * (4 + 1)  # cubic splines and the base function


def counted(run) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def test_every_operator_has_a_formula():
    packets = {str(packet) for packet in flop_registry}
    for name in ops.CONTRACTIONS:
        assert {f"{namespace}.{name}" for namespace in ops.NAMESPACES} <= packets
    assert {f"fastkan.{name}" for name in (*ops.STACK_SCHEMAS, *ops.GPU_SCHEMAS)} <= packets


@pytest.mark.parametrize(
    ("build", "edges"),
    [
        (lambda: KANLinear(I, O), I * O),
        (lambda: KANLinear(I, O, bias=True, enable_standalone_scale_spline=True), I * O),
        (lambda: KANSequential(KANLinear(I, 4), KANLinear(4, O)), 4 * (I + O)),
        (lambda: KAN([I, 4, O]), 4 * (I + O)),
    ],
)
def test_forward_and_backward(build, edges):
    model, x = build(), torch.rand(N, I, requires_grad=True)
    assert counted(lambda: model(x)) == edges * EDGE
    assert counted(lambda: model(x).sum().backward()) == 3 * edges * EDGE


def test_options():
    x = torch.rand(N, I, requires_grad=True)
    assert counted(lambda: KANLinear(I, O, base_activation=None, spline_order=2)(x)) == 2 * N * I * O * 3
    layer = KANLinear(I, O)
    assert counted(lambda: layer(x.detach()).sum().backward()) == 2 * I * O * EDGE  # none for the input
    coef, grid = torch.rand(I, 8, O, requires_grad=True), torch.linspace(-1, 1, 9, dtype=torch.float64)

    def gaussians():
        return kan_linear(x, coef, grid, degree=0, uniform=True, family="rbf", base="zero")

    assert counted(gaussians) == 2 * N * I * O * 8
    assert counted(lambda: layer.edge_mean(x)) == I * O * EDGE
    assert counted(lambda: layer.edge_mean(x).sum().backward()) == 4 * I * O * EDGE
    assert counted(lambda: edge_mean(x, layer.coef, layer.grid, degree=3, base="zero")) == 2 * N * I * O * 4


@pytest.mark.parametrize("k", range(4))
def test_stacks_count_what_their_layers_do(k):
    made = [layer.as_layer() for layer in (KANLinear(I, 4), KANLinear(4, 4), KANLinear(4, O))]
    made = [Layer(*(t.detach() if isinstance(t, torch.Tensor) else t for t in layer)) for layer in made]
    x, *tangents = (torch.rand(N, I) for _ in range(k + 1))
    by_layers = counted(lambda: layered(x, tangents, made, "native"))
    assert counted(lambda: torch.ops.fastkan.stack_out(x, tangents, *parts(made))) == by_layers

    u, wanted = torch.rand(N, O), (True, bool(k), True)
    found = counted(lambda: torch.ops.fastkan.stack_backward(x, tangents, u, *parts(made), *wanted))
    last = 2 * N * 4 * O * 5 * max(1, k)
    assert found == (by_layers - last) + by_layers * (3 if k else 2)
