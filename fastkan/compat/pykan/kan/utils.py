"""kan.utils: the library of functions, fits of them, data, derivatives, and what is done with formulas."""

import contextlib
import re
from collections.abc import Callable

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
from ....network.layers import library, numeric
from ....science import batch_hessian, batch_jacobian, datasets
from ..library import SYMBOLIC_LIB, avoiding

__all__ = [
    "SYMBOLIC_LIB", "add_symbolic", "augment_input", "batch_hessian", "batch_jacobian", "create_dataset",
    "create_dataset_from_data", "ex_round", "f_arccos", "f_arcsin", "f_arctanh", "f_exp", "f_inv", "f_inv2", "f_inv3",
    "f_inv4", "f_inv5", "f_invsqrt", "f_log", "f_power1d5", "f_sqrt", "f_tan", "fit_params", "get_derivative",
    "model2param", "re", "sparse_mask", "torch",
]  # fmt: skip
__all__ += [name for name in ("np", "sympy", "lambdify", "yaml") if name in globals()]

add_symbolic = library.add_symbolic
ex_round = simplify.rounded

# The forms without singularities, (x, y_th) -> (..., value), by pykan's names.
f_inv = avoiding(library.SYMBOLIC_LIB["1/x"])
f_inv2 = avoiding(library.SYMBOLIC_LIB["1/x^2"])
f_inv3 = avoiding(library.SYMBOLIC_LIB["1/x^3"])
f_inv4 = avoiding(library.SYMBOLIC_LIB["1/x^4"])
f_inv5 = avoiding(library.SYMBOLIC_LIB["1/x^5"])
f_sqrt = avoiding(library.SYMBOLIC_LIB["sqrt"])
f_power1d5 = library.SYMBOLIC_LIB["x^1.5"].singular_torch_fn  # in pykan too the value alone
f_invsqrt = avoiding(library.SYMBOLIC_LIB["1/sqrt(x)"])
f_log = avoiding(library.SYMBOLIC_LIB["log"])
f_tan = avoiding(library.SYMBOLIC_LIB["tan"])
f_arctanh = avoiding(library.SYMBOLIC_LIB["arctanh"])
f_arcsin = avoiding(library.SYMBOLIC_LIB["arcsin"])
f_arccos = avoiding(library.SYMBOLIC_LIB["arccos"])
f_exp = avoiding(library.SYMBOLIC_LIB["exp"])


def __getattr__(name: str):
    if name == "LinearRegression":  # which takes a second to import, and nothing here uses
        from sklearn.linear_model import LinearRegression

        return LinearRegression
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def create_dataset(
    f: Callable[[Tensor], Tensor], n_var: int = 2, f_mode: str = "col", ranges=(-1, 1), train_num: int = 1000,
    test_num: int = 1000, normalize_input: bool = False, normalize_label: bool = False,
    device: torch.device | str = "cpu", seed: int = 0,
) -> dict[str, Tensor]:  # fmt: skip
    """fastkan.science.create_dataset; seeds torch's and numpy's global generators too, as pykan does."""
    torch.manual_seed(seed)
    with contextlib.suppress(NameError):
        np.random.seed(seed)
    for _ in range(n_var):  # as many random numbers as pykan takes, so that those of f are the same
        torch.rand(train_num), torch.rand(test_num)
    arguments = (train_num, test_num, normalize_input, normalize_label, device, seed)
    return datasets.create_dataset(f, n_var, f_mode, ranges, *arguments)


def create_dataset_from_data(
    inputs: Tensor, labels: Tensor, train_ratio: float = 0.8, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """fastkan.science.create_dataset_from_data, by numpy's global random numbers, as in pykan."""
    return datasets.create_dataset_from_data(inputs, labels, train_ratio, device, seed=None)


def fit_params(
    x: Tensor, y: Tensor, fun: Callable[[Tensor], Tensor], a_range: tuple = (-10, 10), b_range: tuple = (-10, 10),
    grid_number: int = 101, iteration: int = 3, verbose: bool = True, device: str = "cpu",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """a, b, c, d [4] of y = c fun(a x + b) + d for x, y [N], and r2; by fastkan.network.formulas.edge_fit.

    grid_number, iteration and device have no effect: the search does not stop at the points of a grid. Raises
    ValueError where x's dtype can't carry the numbers that fit.
    """
    affine, r2 = edge_fit.fit_params(x, y, fun, a_range, b_range, dtype=getattr(x, "dtype", torch.float64))
    if verbose:
        print(f"r2 is {r2.item():.10g}")
    return affine.to(x.dtype), r2.to(x.dtype)


def sparse_mask(in_dim: int, out_dim: int) -> Tensor:
    """A mask [in_dim, out_dim] that joins every input to the output nearest on [0, 1], and the other way round."""
    return numeric.first_mask(in_dim, out_dim, sparse=True)


def augment_input(orig_vars, aux_vars, x):
    """fastkan.science.augment_input; a dataset is changed in place, as in pykan."""
    augmented = science.augment_input(orig_vars, aux_vars, x)
    if not isinstance(x, dict):
        return augmented
    x.update(augmented)
    return x


class _Loss(nn.Module):
    """What get_derivative differentiates, as a module, so that its parameters can be given."""

    def __init__(self, model: nn.Module, mode: str, lamb: float, regularization: dict):
        super().__init__()
        if mode not in ("pred", "reg", "all"):
            raise ValueError(f"loss_mode={mode!r}: expected 'pred', 'reg' or 'all'")
        self.model, self.mode, self.lamb, self.regularization = model, mode, lamb, regularization

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
    """The derivatives of the loss by all P parameters, ordered as by model2param: [1, P], or [1, P, P] for "hessian".

    loss_mode: "pred" the mean square error, "reg" the penalty get_reg, "all" the one and lamb times the other.
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
    """All parameters in one vector, [P]."""
    return torch.cat([p.reshape(-1) for p in model.parameters()])
