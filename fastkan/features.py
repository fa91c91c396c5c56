"""The basis functions of every input by themselves, not summed over inputs; differentiable to every order."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from . import autograd, select
from .backends import dense
from .backends.dense.window import known
from .basis.base import BASES, base_feature
from .basis.bspline import OUTSIDE, bspline_features, num_functions
from .devices import widest
from .snapshot import readable
from .spec import Spec
from .transforms import is_traced, is_transformed

_MAKER = dense.Elementwise()

# Inputs up to which a call of the kernels for each is faster than plain PyTorch, where their knots differ.
CALLS = 64


def features(
    x: Tensor, knots: Tensor, spec: Spec, dtype: torch.dtype, with_base: bool = False, backend: str | None = None
) -> Tensor:
    """B_{i,f}(x[n,i]), x [N, I] and knots [I, M] -> [N, I, F] in dtype; with_base: the base function is one more, last.

    Kernels compute sums over inputs: of one input, with the unit matrix as its coefficients, the functions themselves.
    If all inputs have the same knots, every number of x is a row of one call; a few inputs have a call each. For many,
    on other devices, and in traces plain PyTorch computes them.
    """
    if not is_traced():
        if is_transformed(x):
            return _with_base(_plain(x, knots, spec), x, spec, with_base).to(dtype)
        unit = torch.eye(num_functions(knots, spec.degree) + 1, dtype=dtype, device=x.device)
        name = select.choose_for(x, backend, unit, spec)
        if x.is_cpu and name != "dense":
            if is_shared(knots):
                return _by_kernel(x, knots[:1], unit, spec, with_base, name)
            if name == "reference" or x.shape[1] <= CALLS:
                columns = zip(x.split(1, 1), knots.split(1), strict=True)
                return torch.cat([_by_kernel(part, row, unit, spec, with_base, name) for part, row in columns], 1)
    at = torch.promote_types(dtype, torch.float64) if x.dtype == torch.float64 else dtype
    phi: Any = _MAKER.features if is_traced() else _features
    phi = phi(x, None, knots, known(spec, knots), 0, at)
    return _with_base(phi.view(x.shape[0], -1, x.shape[1]).transpose(1, 2), x, spec, with_base).to(dtype)


def _features(x: Tensor, _: None, *rest: Any) -> Any:
    """_MAKER.features, differentiable."""
    return _Features.apply(x, *rest)


def _by_kernel(x: Tensor, row: Tensor, unit: Tensor, spec: Spec, with_base: bool, name: str) -> Tensor:
    """Of inputs with the same knots, row [1, M]."""
    coef, base = unit[None, :-1], unit[-1:]
    if not with_base:
        coef, base = coef[..., :-1], None
    phi = autograd.kan_out(x.reshape(-1, 1), None, coef, base, None, row, spec, 0, name)
    return phi.view(*x.shape, coef.shape[2])


def _plain(x: Tensor, knots: Tensor, spec: Spec) -> Tensor:
    exact = widest(x.device)
    return bspline_features(x.to(exact), knots.to(exact), spec.degree, OUTSIDE[spec.outside])


def _with_base(phi: Tensor, x: Tensor, spec: Spec, with_base: bool) -> Tensor:
    if not with_base:
        return phi
    x = x.to(dense.accumulator(phi.dtype))
    base = torch.nn.functional.silu(x) if BASES[spec.base] == "silu" else base_feature(x, BASES[spec.base])
    return torch.cat([phi, base[..., None].to(phi.dtype)], 2)


def is_shared(knots: Tensor) -> bool:
    """Whether all inputs are known to have the same knots."""
    return readable(knots) and torch.equal(knots, knots[:1].expand_as(knots))


class _Features(Function):
    """s -> derivatives of the functions in dense's order, [N, F I]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, knots: Tensor, spec: Spec, order: int, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(x, knots)
        ctx.rest = spec, order, dtype
        return _MAKER.features(x, None, knots, spec, order, dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (g,), (x, knots), (spec, order, dtype) = grads, ctx.saved_tensors, ctx.rest
        accumulator = dense.accumulator(dtype)
        if torch.is_grad_enabled():
            slopes = _features(x, None, knots, spec, order + 1, accumulator)
            grad_x = (g * slopes).view(len(x), -1, x.shape[1]).sum(1)
        else:
            grad_x = _MAKER.slopes(x, g, knots, spec, order + 1, accumulator)
        return grad_x.to(x.dtype), None, None, None, None
