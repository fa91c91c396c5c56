"""A user's script with every public name and its type: test_types.py runs it, and type checkers read it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import fastkan
from fastkan import KAN, BackendError, KANLinear, accelerate, backends, functional, kanpiler, restore, use_backend
from fastkan.network import History, plot_training
from fastkan.nn import KANSequential, replace_linear

x = torch.rand(10, 2)
y = x[:, :1]

# Layers
layer = KANLinear(2, 3, grid_size=4, base_activation="identity", bias=True)
assert_type(layer(x), Tensor)
assert_type(layer.coef, nn.Parameter)
assert_type(layer.base_weight, nn.Parameter | None)
assert_type(layer.spline_scale, nn.Parameter | None)
assert_type(layer.bias, nn.Parameter | None)
assert_type(layer.grid, Tensor)
assert_type(layer.in_features, int)
assert_type(layer.grid_size, int)
assert_type(layer.spline_order, int)
assert_type(layer.outside, str | None)
assert_type(layer.uniform, bool)
assert_type(layer.base_activation, Callable[[Tensor], Tensor] | None)
assert_type(layer.spline_weight, Tensor)
assert_type(layer.edge_mean(x), Tensor)
assert_type(layer.regularization(x), Tensor)
assert_type(layer.regularization_loss(), Tensor)
assert_type(layer.outside_share(x), Tensor)
assert_type(layer.update_grid(x), None)
assert_type(layer.update_grid([x[:5], x[5:]]), None)
assert_type(layer.extend_grid(8), None)
assert_type(layer.to(torch.float64), KANLinear)
layer.base_activation = nn.SiLU()

assert_type(KANSequential(KANLinear(2, 3), KANLinear(3, 1))(x), Tensor)
assert_type(replace_linear(nn.Sequential(nn.Linear(2, 3)), include="*", grid_size=3), nn.Module)
assert_type(restore(nn.Sequential(nn.Linear(2, 3))), nn.Module)
assert_type(fastkan.FastKAN([2, 3, 1])(x), Tensor)
assert_type(fastkan.FastKANLayer(2, 3)(x), Tensor)
assert_type(fastkan.RadialBasisFunction().forward(x), Tensor)
assert_type(fastkan.SplineLinear(2, 3), fastkan.SplineLinear)
assert_type(fastkan.AttentionWithFastKANTransform(2, 2, 2, 4, 1).forward(x[None], x[None], x[None]), Tensor)

# Functions
coef, grid = torch.zeros(2, 8, 3), torch.linspace(-2, 2, 12)
assert_type(functional.kan_linear(x, coef, grid, degree=3, base=torch.sin, base_weight=torch.ones(2, 3)), Tensor)
assert_type(functional.edge_mean(x, coef, grid, degree=3), Tensor)

# Backends
assert_type(backends(), dict[str, str])
with use_backend("reference"):
    assert_type(layer(x), Tensor)
error: type[RuntimeError] = BackendError

# The network
model = KAN([2, 5, 1], grid=3, seed=1)
assert_type(model, KAN)
assert_type(model(x), Tensor)
linear: KANLinear = model.act_fun[0].linear
assert_type(model.act_fun[0].linear.coef, nn.Parameter)
assert_type(model.depth, int)
assert_type(model.copy(), KAN)
assert_type(model.get_params(), Iterator[nn.Parameter])
results = model.fit((x, y), steps=2, lamb=1e-3, progress=False)
assert_type(results, dict[str, Any])
assert_type(model.refine(5), KAN)
assert_type(model.prune(), KAN)
history: History | None = model.history
assert_type(model.state_dict(), dict[str, Any])


def for_checkers_only() -> None:
    """Not called: needs SymPy, Matplotlib and layers of efficient-kan."""
    assert_type(accelerate(nn.Sequential()), nn.Module)
    assert_type(kanpiler([], "x"), KAN)
    expressions, variables = model.symbolic_formula()
    print(expressions, variables)
    plot_training(results)
    fastkan.science.batch_jacobian(model, x)
