"""KAN.derivatives: against autograd, for every kind of network and point."""

import math

import pytest
import torch

from fastkan import KAN
from support.least_squares import random

NETWORKS = {
    "deep": lambda: KAN([2, 3, 2], grid=4, k=5, seed=1),
    "of multiplications": lambda: KAN([2, [1, 2], [0, 1]], mult_arity=[[], [2, 3], [2]], grid=4, k=4, seed=2),
    "without base": lambda: KAN([2, 3, 1], grid=4, base_fun="zero"),
    "zero outside": lambda: KAN([2, 2, 1], grid=4, outside="zero"),
    "of another base function": lambda: KAN([2, 2, 1], grid=4, base_fun=torch.sin),
}


def affine(model: KAN) -> KAN:
    """The model in float64, with affine nodes that are not the identity."""
    generator = torch.Generator().manual_seed(0)
    for name in ("node_bias", "node_scale", "subnode_bias", "subnode_scale"):
        for p in getattr(model, name):
            p.data = torch.rand(p.shape, generator=generator) + 0.5
    return model.double()


def along(model: KAN, x: torch.Tensor, order: int, direction: torch.Tensor) -> torch.Tensor:
    """The derivative of order `order` of t -> model(x + t direction), [N, O], by one backward pass after another."""
    x, columns = x.clone().requires_grad_(), []
    for column in model(x).unbind(1):
        for _ in range(order):
            column = torch.autograd.grad(column.sum(), x, create_graph=True)[0] @ direction
        columns.append(column.detach())
    return torch.stack(columns, 1)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("order", [0, 1, 4])
def test_against_autograd(kind, order):
    model, x = affine(NETWORKS[kind]()), 1.3 * random(20, 2, seed=3)
    directions = torch.tensor([[1.0, 0.0], [0.3, -0.7]], dtype=torch.float64)
    found = model.derivatives(x, order, directions)
    assert len(found) == order + 1
    torch.testing.assert_close(found[0], model(x))
    for j in range(1, order + 1):
        for d, direction in enumerate(directions):
            torch.testing.assert_close(found[j][..., d], along(model, x, j, direction), rtol=1e-8, atol=1e-8)


def test_symbolic_and_pruned_networks():
    model = affine(KAN([2, 3, 1], grid=4, seed=1))
    x = random(20, 2, seed=3)
    model.fix_symbolic(0, 0, 1, "sin", fit_params_bool=False)
    model.act_fun[0].mask[1, 2] = 0
    for j, found in enumerate(model.derivatives(x, 2)[1:], start=1):
        torch.testing.assert_close(found[..., 0], along(model, x, j, torch.tensor([1.0, 0.0], dtype=torch.float64)))


def test_a_laplacian_and_its_gradient():
    model, x = KAN([2, 2, 1], grid=5, seed=0).double(), random(10, 2, seed=0)
    laplacian = model.derivatives(x)[2].sum(-1)
    hessian = torch.stack([torch.func.hessian(lambda row: model(row)[0])(row) for row in x])
    torch.testing.assert_close(laplacian[:, 0], hessian.diagonal(dim1=1, dim2=2).sum(-1))
    params = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(laplacian.square().sum(), params, allow_unused=True)
    rows = torch.stack([torch.func.hessian(lambda row: model(row)[0])(row) for row in x])
    expected = torch.autograd.grad(rows.diagonal(dim1=1, dim2=2).sum(-1).square().sum(), params, allow_unused=True)
    for a, b in zip(found, expected, strict=True):
        if b is not None and a is not None:
            torch.testing.assert_close(a, b)


def test_mixed_derivatives_by_polarisation():
    x = random(9, 2, seed=0)
    model = KAN([2, 2, 1], grid=5).double()
    _, _, second = model.derivatives(x, 2, torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    mixed = (second[..., 0] - second[..., 1] - second[..., 2]) / 2
    hessian = torch.stack([torch.func.hessian(lambda row: model(row)[0])(row) for row in x])
    torch.testing.assert_close(mixed[:, 0], hessian[:, 0, 1])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"order": 5}, "order=5"),
        ({"order": -1}, "order=-1"),
        ({"directions": torch.ones(2)}, "directions"),
        ({"directions": [[1.0, 0.0]]}, "directions"),
        ({"x": torch.ones(3)}, "x"),
        ({"x": torch.ones(2, 2, 2)}, "x has shape"),
    ],
)
def test_wrong_arguments(options, named):
    with pytest.raises((TypeError, ValueError), match=named):
        KAN([2, 1]).derivatives(**({"x": torch.ones(4, 2)} | options))


def test_no_points():
    u, first, second = KAN([2, 3]).derivatives(torch.ones(0, 2))
    assert u.shape == (0, 3) and first.shape == second.shape == (0, 3, 2)
    assert math.prod(u.shape) == 0
