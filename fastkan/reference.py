"""The contractions of the trilinear form in plain PyTorch: the specification, for any device, dtype and order.

    T_d(x; s, coef, u) = sum_{n,i,o} s[n,i] u[n,o] phi_d[i,o](x[n,i])
    phi_d[i,o] = base_weight[i,o] b^(d) + sum_f coef[i,f,o] B^(d)_{i,f}

Each function below is a partial derivative of T_d. Features are evaluated in float64 (float32 on a device without it)
and contracted in the wider of float32 and the operands' dtype. Every function is differentiable by ordinary autograd:
the fused derivatives are tested against these.
"""

import functools
import operator
from collections.abc import Iterable, Iterator
from itertools import repeat

import torch
from torch import Tensor

from .basis.base import BASES, base_feature
from .basis.bspline import OUTSIDE, bspline_features, num_functions, uniform_knots
from .basis.families import FAMILIES as ROWS
from .devices import widest
from .spec import FAMILIES, Spec
from .transforms import by_jit, is_traced

# Features per block of rows, so that memory does not grow with N I F.
BLOCK = 1 << 24


def kan_out(
    x: Tensor, s: Tensor | None, coef: Tensor, base_weight: Tensor | None, bias: Tensor | None, grid: Tensor,
    spec: Spec, order: int,
) -> Tensor:  # fmt: skip
    """dT/du: x, s [N, I]; coef [I, F, O]; base_weight [I, O]; bias [O]; grid [I, M] -> [N, O] in coef's dtype."""
    dtype = _accumulator(x, coef)
    weight = weights(coef, base_weight, dtype)
    blocks = []
    for rows, phi in _features(x, grid, spec, order, base_weight is not None, dtype):
        blocks.append(_rows(_scaled(phi, s, rows)) @ _matrix(weight))
    y = torch.cat(blocks)
    if bias is not None:
        y = y + bias.to(dtype)
    return y.to(coef.dtype)


def kan_in(
    x: Tensor, u: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, spec: Spec, order: int
) -> Tensor:
    """dT/ds: x [N, I]; u [N, O]; coef [I, F, O]; base_weight [I, O]; grid [I, M] -> [N, I] in x's dtype."""
    dtype = _accumulator(x, coef)
    weight = weights(coef, base_weight, dtype)  # I F O
    blocks = []
    for rows, phi in _features(x, grid, spec, order, base_weight is not None, dtype):
        slopes = u[rows].to(dtype) @ _matrix(weight).T  # N I*F
        blocks.append((slopes.view(phi.shape) * phi).sum(-1))
    return torch.cat(blocks).to(x.dtype)


def kan_coef(
    x: Tensor, s: Tensor | None, u: Tensor, grid: Tensor, spec: Spec, order: int, with_base: bool
) -> tuple[Tensor, Tensor | None]:
    """dT/dcoef and dT/dbase_weight: x, s [N, I]; u [N, O]; grid [I, M] -> [I, F, O], [I, O] in u's dtype."""
    dtype = _accumulator(x, u)
    functions = num_functions(grid, spec.degree)
    blocks = _features(x, grid, spec, order, with_base, dtype)
    grads = total(_rows(_scaled(phi, s, rows)).T @ u[rows].to(dtype) for rows, phi in blocks)
    grads = grads.view(x.shape[1], functions + with_base, u.shape[1]).to(u.dtype)
    return (grads[:, :functions].contiguous(), grads[:, functions].contiguous()) if with_base else (grads, None)


def kan_backward(
    x: Tensor, s: Tensor | None, u: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, spec: Spec,
    order: int,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """The gradients of kan_out together: s * dT_{order+1}/ds, dT_order/dcoef, dT_order/dbase_weight."""
    grad_x = kan_in(x, u, coef, base_weight, grid, spec, order + 1)
    grad_coef, grad_base = kan_coef(x, s, u, grid, spec, order, base_weight is not None)
    return (grad_x if s is None else grad_x * s), grad_coef, grad_base


def edge_moments(x: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, spec: Spec) -> Tensor:
    """Over the rows, for every edge: the mean of |phi|, the mean and the population variance of phi.

    x [N, I]; coef [I, F, O]; base_weight [I, O]; grid [I, M] -> [3, I, O] in float32, or float64 where x or coef is.
    """
    dtype = _accumulator(x, coef)
    weight = weights(coef, base_weight, dtype)
    blocks = []
    for _, phi in _features(x, grid, spec, 0, base_weight is not None, dtype, weight.shape[2]):
        values = torch.einsum("nif,ifo->nio", phi, weight)
        mean = values.mean(0)
        blocks.append((values.shape[0], values.abs().sum(0), mean, (values - mean).square().sum(0)))
    rows = x.shape[0]
    size = total(sizes for _, sizes, _, _ in blocks) / rows
    mean = total(n * mean for n, _, mean, _ in blocks) / rows if len(blocks) > 1 else blocks[0][2]
    variance = total(squares + n * (of_block - mean).square() for n, _, of_block, squares in blocks) / rows
    return torch.stack([size, mean, variance])


def edge_backward(
    x: Tensor, u: Tensor | None, terms: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, spec: Spec,
    with_x: bool,
) -> tuple[Tensor | None, Tensor, Tensor | None]:  # fmt: skip
    """Gradients by x (with_x), coef and base_weight, from the gradients by the edges' values phi:

        u[n,o] + terms[0,i,o] sign(phi) + terms[1,i,o] + terms[2,i,o] phi

    x [N, I]; u [N, O] or None for zeros; terms [3, I, O], of edge_moments' dtype. The sign of 0 is 0.
    """
    dtype = _accumulator(x, coef)
    weight = weights(coef, base_weight, dtype)
    functions, with_base = coef.shape[1], base_weight is not None
    values = _features(x, grid, spec, 0, with_base, dtype, weight.shape[2])
    slopes = _features(x, grid, spec, 1, with_base, dtype, weight.shape[2]) if with_x else repeat((None, None))
    grad_x, grads = [], None
    for (rows, phi), (_, slope) in zip(values, slopes, strict=False):
        v = torch.einsum("nif,ifo->nio", phi, weight)  # N I O, a block of rows at a time
        v = terms[0] * v.sign() + terms[1] + terms[2] * v
        v = v if u is None else v + u[rows, None].to(dtype)
        part = torch.einsum("nif,nio->ifo", phi, v)
        grads = part if grads is None else grads + part
        if with_x:
            grad_x.append(torch.einsum("nif,ifo,nio->ni", slope, weight, v))
    assert grads is not None  # there is at least one block
    grads = grads.to(coef.dtype)
    return (
        torch.cat(grad_x).to(x.dtype) if with_x else None,
        grads[:, :functions].contiguous(),
        grads[:, functions].contiguous() if with_base else None,
    )


def basis_features(x: Tensor, grid: Tensor, spec: Spec, order: int) -> Tensor:
    """Derivatives of the basis functions alone, [N, I, F], in the dtype of x and grid."""
    if spec.family:
        return ROWS[FAMILIES[spec.family]].features(x, grid, order)
    return bspline_features(x, grid, spec.degree, OUTSIDE[spec.outside], order)


def features(x: Tensor, grid: Tensor, spec: Spec, order: int, with_base: bool) -> Tensor:
    """Phi^(order): x [N, I], grid [I, M] -> [N, I, F], or [N, I, F + 1] with the base function last.

    In float64, or float32 on a device without it.
    """
    x, grid = (t.to(widest(x.device)) for t in (x, grid))
    if spec.uniform and not by_jit():  # a trace may get other knots later
        intervals = grid.shape[-1] - 1
        grid = uniform_knots(grid[:, 0], grid[:, -1], intervals, 0)
    phi = basis_features(x, grid, spec, order)
    if with_base:
        phi = torch.cat([phi, base_feature(x, BASES[spec.base], order)[..., None]], -1)
    return phi


def _features(
    x: Tensor, grid: Tensor, spec: Spec, order: int, with_base: bool, dtype: torch.dtype, width: int = 1
) -> Iterator[tuple[slice, Tensor]]:
    rows = x.shape[0]
    if is_traced() or isinstance(rows, torch.SymInt):  # a loop over a dynamic batch would pin it
        yield slice(None), features(x, grid, spec, order, with_base).to(dtype)
        return
    step = max(1, BLOCK // max(1, x.shape[1] * max(grid.shape[-1], width)))
    for start in range(0, max(1, rows), step):
        block = slice(start, min(start + step, rows))
        yield block, features(x[block], grid, spec, order, with_base).to(dtype)


def total(terms: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor."""
    return functools.reduce(operator.add, terms)


def _scaled(phi: Tensor, s: Tensor | None, rows: slice) -> Tensor:
    return phi if s is None else phi * s[rows, :, None].to(phi.dtype)


def weights(coef: Tensor, base_weight: Tensor | None, dtype: torch.dtype) -> Tensor:
    """coef and base_weight as one matrix: [I, F, O], or [I, F + 1, O] with the base function last."""
    if base_weight is not None:
        coef = torch.cat([coef, base_weight[:, None]], 1)
    return coef.to(dtype)


def _accumulator(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def _rows(phi: Tensor) -> Tensor:
    return phi.reshape(phi.shape[0], phi.shape[1] * phi.shape[2])  # not flatten, for which is_grads_batched has no rule


def _matrix(weight: Tensor) -> Tensor:
    return weight.reshape(weight.shape[0] * weight.shape[1], weight.shape[2])
