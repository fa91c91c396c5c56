"""batch_jacobian, batch_hessian: derivatives of a model by its inputs, one matrix per row of data.

A KAN uses its fused kernels for every order: with n inputs a Hessian takes one forward and n + 1 backward passes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

MODES = ("scalar", "vector")


def batch_jacobian(
    func: Callable[[Tensor], Tensor], x: Tensor, create_graph: bool = False, mode: str = "scalar"
) -> Tensor:
    """First derivatives of a function's outputs by its inputs, at every row of x.

    Args:
        func: x [..., n] -> [..., m], or [...] for one output: a model or any differentiable function that treats rows
            independently (not BatchNorm in training). Outputs that do not depend on x have derivatives of 0.
        x: [..., n], floating point.
        create_graph: make the result differentiable, by x if it requires a gradient, and by other inputs of func.
        mode: "scalar" for one output (m = 1), "vector" for any number.

    Returns [..., n] in mode "scalar", [..., m, n] in "vector", in func's dtype and detached unless create_graph.

    Raises TypeError or ValueError that name the argument, its value and what was expected; also for several outputs in
    mode "scalar", where pykan uses the first.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r}: expected one of {', '.join(map(repr, MODES))}")
    check_points(x)
    with torch.inference_mode(False), torch.enable_grad():
        at = _source(x, create_graph)
        y = func(at)
        if not isinstance(y, Tensor) or y.shape[: x.dim() - 1] != x.shape[:-1] or y.dim() - x.dim() not in (-1, 0):
            got = f"shape {list(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
            raise ValueError(f"func(x) has {got}: expected [*{list(x.shape[:-1])}, m], one row for each row of x")
        y = y if y.dim() == x.dim() else y[..., None]
        if mode == "scalar" and y.shape[-1] != 1:
            raise ValueError(
                f"func has {y.shape[-1]} outputs: expected one in mode='scalar'; mode='vector' takes any number"
            )
        jacobian = _rows(y, at, create_graph)
    return jacobian[..., 0, :] if mode == "scalar" else jacobian


def batch_hessian(
    model: Callable[[Tensor], Tensor], x: Tensor, create_graph: bool = False, mode: str = "scalar"
) -> Tensor:
    """Second derivatives of a function's outputs by its inputs, at every row of x.

    Arguments and errors as in batch_jacobian. Returns [..., n, n] in mode "scalar", [..., m, n, n] in "vector".
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r}: expected one of {', '.join(map(repr, MODES))}")

    def gradient(at: Tensor) -> Tensor:
        return batch_jacobian(model, at, True, mode).flatten(x.dim() - 1)

    hessian = batch_jacobian(gradient, x, create_graph, "vector")  # ... (m n) n
    return hessian if mode == "scalar" else hessian.unflatten(-2, (-1, x.shape[-1]))


def check_points(x: Tensor) -> None:
    """TypeError or ValueError unless x is [..., n], floating point."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x is a {type(x).__name__}: expected a tensor [..., n]")
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}: expected a floating-point dtype")
    if x.dim() == 0 or x.shape[-1] == 0:
        raise ValueError(f"x has shape {list(x.shape)}: expected [..., n] with at least one input")


def _source(x: Tensor, create_graph: bool) -> Tensor:
    """A tensor with x's values to differentiate by, connected to x's graph if that is to be continued."""
    if create_graph and x.requires_grad:
        return x.view_as(x)
    return (x.clone() if x.is_inference() else x.detach()).requires_grad_()


def _rows(y: Tensor, x: Tensor, create_graph: bool) -> Tensor:
    """dy[..., m] / dx[..., n] as [..., m, n], where every row of y depends only on the same row of x."""
    if not y.requires_grad or not y.numel():
        return y.new_zeros(*y.shape, x.shape[-1])
    # One output at a time: batched by torch.vmap they take longer for few rows and equally long for many.
    columns = y.flatten(0, -2).sum(0) if y.dim() > 1 else y
    grads = [torch.autograd.grad(total, x, None, True, create_graph, allow_unused=True)[0] for total in columns]
    return torch.stack([torch.zeros_like(x, dtype=y.dtype) if g is None else g for g in grads], -2)
