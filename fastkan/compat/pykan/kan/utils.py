"""kan.utils: the library of symbolic functions and fits of them, datasets, derivatives, rounding of formulas."""

import contextlib
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

with contextlib.suppress(ImportError):
    import numpy as np
with contextlib.suppress(ImportError):
    import sympy
    from sympy.utilities.lambdify import lambdify
with contextlib.suppress(ImportError):
    import yaml

from .... import science
from ....network.formulas import edge_fit, simplify
from ....network.layers import edge_linear, library
from ....science import batch_hessian, batch_jacobian, datasets
from ..library import SYMBOLIC_LIB, bounded

__all__ = [
    "SYMBOLIC_LIB", "add_symbolic", "augment_input", "batch_hessian", "batch_jacobian", "create_dataset",
    "create_dataset_from_data", "ex_round", "f_arccos", "f_arcsin", "f_arctanh", "f_exp", "f_inv", "f_inv2", "f_inv3",
    "f_inv4", "f_inv5", "f_invsqrt", "f_log", "f_power1d5", "f_sqrt", "f_tan", "fit_params", "get_derivative",
    "model2param", "re", "sparse_mask", "torch",
]  # fmt: skip
__all__ += [name for name in ("np", "sympy", "lambdify", "yaml") if name in globals()]

add_symbolic = library.add_symbolic
ex_round = simplify.round_numbers

# The functions without singularities, (x, y_th) -> (..., value), under pykan's names.
f_inv = bounded(library.SYMBOLIC_LIB["1/x"])
f_inv2 = bounded(library.SYMBOLIC_LIB["1/x^2"])
f_inv3 = bounded(library.SYMBOLIC_LIB["1/x^3"])
f_inv4 = bounded(library.SYMBOLIC_LIB["1/x^4"])
f_inv5 = bounded(library.SYMBOLIC_LIB["1/x^5"])
f_sqrt = bounded(library.SYMBOLIC_LIB["sqrt"])
f_power1d5 = library.SYMBOLIC_LIB["x^1.5"].singular_torch_fn  # as in pykan only the value
f_invsqrt = bounded(library.SYMBOLIC_LIB["1/sqrt(x)"])
f_log = bounded(library.SYMBOLIC_LIB["log"])
f_tan = bounded(library.SYMBOLIC_LIB["tan"])
f_arctanh = bounded(library.SYMBOLIC_LIB["arctanh"])
f_arcsin = bounded(library.SYMBOLIC_LIB["arcsin"])
f_arccos = bounded(library.SYMBOLIC_LIB["arccos"])
f_exp = bounded(library.SYMBOLIC_LIB["exp"])


def __getattr__(name: str):
    if name == "LinearRegression":  # imported on demand, since it takes a second
        from sklearn.linear_model import LinearRegression

        return LinearRegression
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def create_dataset(
    f: Callable[[Tensor], Tensor], n_var: int = 2, f_mode: str = "col", ranges=(-1, 1), train_num: int = 1000,
    test_num: int = 1000, normalize_input: bool = False, normalize_label: bool = False,
    device: torch.device | str = "cpu", seed: int = 0,
) -> dict[str, Tensor]:  # fmt: skip
    """fastkan.science.create_dataset; also seeds the global generators of torch and numpy, as pykan does."""
    torch.manual_seed(seed)
    with contextlib.suppress(NameError):  # without numpy
        np.random.seed(seed)  # pyright: ignore[reportPossiblyUnboundVariable]
    for _ in range(n_var):  # draw as many random numbers as pykan, so that those of f are the same
        torch.rand(train_num)
        torch.rand(test_num)
    arguments = (train_num, test_num, normalize_input, normalize_label, device, seed)
    return datasets.create_dataset(f, n_var, f_mode, ranges, *arguments)


def create_dataset_from_data(
    inputs: Tensor, labels: Tensor, train_ratio: float = 0.8, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """fastkan.science.create_dataset_from_data with numpy's global generator, as in pykan."""
    return datasets.create_dataset_from_data(inputs, labels, train_ratio, device, seed=None)


def fit_params(
    x: Tensor, y: Tensor, fun: Callable[[Tensor], Tensor], a_range: tuple = (-10, 10), b_range: tuple = (-10, 10),
    grid_number: int = 101, iteration: int = 3, verbose: bool = True, device: str = "cpu",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Fit y = c fun(a x + b) + d to x, y [N] by fastkan.network.formulas.edge_fit: a, b, c, d as [4], and r2.

    grid_number, iteration and device have no effect, since the search is not limited to the points of a grid. Raises
    ValueError if x's dtype cannot represent the fitted numbers.
    """
    affine, r2 = edge_fit.fit_params(x, y, fun, a_range, b_range, dtype=getattr(x, "dtype", torch.float64))
    if verbose:
        print(f"r2 is {r2.item():.10g}")
    return affine.to(x), r2.to(x)


def sparse_mask(in_dim: int, out_dim: int) -> Tensor:
    """A mask [in_dim, out_dim] that connects every input to the nearest output on [0, 1], and every output likewise."""
    return edge_linear.first_mask(in_dim, out_dim, sparse=True)


def augment_input(orig_vars, aux_vars, x):
    """fastkan.science.augment_input; a dataset is modified in place, as in pykan."""
    augmented = science.augment_input(orig_vars, aux_vars, x)
    if isinstance(augmented, Tensor):
        return augmented
    x.update(augmented)
    return x


class _Loss(nn.Module):
    """The loss of get_derivative as a module, for torch.func.functional_call."""

    def __init__(self, model: nn.Module, mode: str, lamb: float, regularization: dict):
        super().__init__()
        if mode not in ("pred", "reg", "all"):
            raise ValueError(f"loss_mode={mode!r}: expected 'pred', 'reg' or 'all'")
        self.model: Any = model
        self.mode, self.lamb, self.regularization = mode, lamb, regularization

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        error = (self.model(inputs) - labels).square().mean()
        if self.mode == "pred":
            return error
        penalty = self.model.get_reg(**self.regularization)
        return penalty if self.mode == "reg" else error + self.lamb * penalty


def get_derivative(
    model: nn.Module, inputs: Tensor, labels: Tensor, derivative: str = "hessian", loss_mode: str = "pred",
    reg_metric: str = "w", lamb: float = 0.0, lamb_l1: float = 1.0, lamb_entropy: float = 0.0,
) -> Tensor:  # fmt: skip
    """Derivatives of the loss by all P parameters, in the order of model2param: [1, P], or [1, P, P] for "hessian".

    loss_mode: "pred" the mean squared error, "reg" the penalty get_reg, "all" the error plus lamb times the penalty.
    """
    loss = _Loss(model, loss_mode, lamb, {"reg_metric": reg_metric, "lamb_l1": lamb_l1, "lamb_entropy": lamb_entropy})
    parameters = dict(loss.named_parameters())
    sizes = [p.numel() for p in parameters.values()]

    def value(flat: Tensor) -> Tensor:
        parts = zip(parameters.items(), flat.split(sizes), strict=True)
        return torch.func.functional_call(loss, {n: part.view_as(p) for (n, p), part in parts}, (inputs, labels))

    if derivative not in ("jacobian", "hessian"):
        raise ValueError(f"derivative={derivative!r}: expected 'jacobian' or 'hessian'")
    return getattr(torch.autograd.functional, derivative)(value, model2param(model).detach())[None]


def model2param(model: nn.Module) -> Tensor:
    """All parameters as one vector, [P]."""
    return torch.cat([p.reshape(-1) for p in model.parameters()])
