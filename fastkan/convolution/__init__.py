"""KAN convolutions: sums of functions of all pixels that a kernel spans.

    y[n,o,p] = sum_{i,t} phi[i,t,o](x[n,i,p s + t d]) + bias[o],   t a place of the kernel, s stride, d dilation
    phi[i,t,o](x) = base_weight[i,t,o] b(x) + sum_f coef[i,t,f,o] B_{i,f}(x)

The functions of a pixel do not depend on its place in the kernel, so they are computed once, not once a place. They go
in blocks of images or of rows; autograd saves x and the parameters, and computes them again.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .. import functional, select
from ..spec import Spec
from ..transforms import is_any_autocast, is_grad_batch, is_traced, is_transformed
from . import maps, pixels
from .maps import Edges
from .window import Maybe, Window

__all__ = ["Window", "kan_conv"]


def kan_conv(
    x: Tensor, coef: Tensor, base_weight: Maybe, bias: Maybe, knots: Tensor, spec: Spec, window: Window,
    backend: str | None = None,
) -> Tensor:  # fmt: skip
    """x [N, I, ...] -> [N, O, ...] in coef's dtype, after validation; x is 0 in the padding of an ordinary convolution.

    coef [I, F, T O/groups], base_weight [I, T O/groups] or None, T = prod(kernel), places in row-major order before
    outputs; bias [O] or None; knots [I, M]. Differentiable to every order.
    """
    if is_any_autocast() and functional.is_autocast(x.device):
        coef, base_weight, bias, _ = functional.autocast(x.device, coef, base_weight, bias, None)
        with torch.autocast(x.device.type, enabled=False):
            return kan_conv(x, coef, base_weight, bias, knots, spec, window, backend)
    if x.dim() == 3:  # channels of images stay together in memory, those of series do not
        args = coef, base_weight, bias, knots, spec, window.with_row(), backend
        return kan_conv(x.unsqueeze(2), *args).squeeze(2)
    args = coef, base_weight, knots, spec, backend
    padded = any(window.padding) and not window.transposed
    if is_traced() or is_transformed(x, coef, base_weight, bias):
        y = maps.plain(x, Edges(*args), bias, window)
        return y + _border(x, Edges(*args), window) if padded else y
    y: Any = _KanConv.apply(x, bias, window, *args)
    return y.add_(_border(x, Edges(*args), window)) if padded else y


def _border(x: Tensor, edges: Edges, window: Window) -> Tensor:
    """What the padding adds, where x is 0: [1, O, ...]. Bases are 0 at 0."""
    groups, coef = window.groups, edges.coef
    phi = edges._replace(base_weight=None).features(x.new_zeros(1, x.shape[1]))  # 1 I F
    sums = phi.reshape(groups, 1, -1) @ coef.reshape(groups, -1, coef.shape[2])  # g 1 (T o)
    weight = sums.view(groups, *window.kernel, -1).movedim(-1, 1).flatten(0, 1).unsqueeze(1)
    inside = x.new_zeros(1, 1, *x.shape[2:], dtype=coef.dtype)
    beside = [p for p in reversed(window.padding) for _ in range(2)]
    outside = torch.nn.functional.pad(inside, beside, value=1.0)
    none = (0,) * len(window.padding)
    return torch.convolution(outside, weight, None, window.stride, none, window.dilation, False, none, 1)


class _KanConv(Function):
    """kan_conv with functions that are 0 in the padding, by blocks; autograd saves its arguments."""

    @staticmethod
    def forward(ctx: Any, x, bias, window, coef, base_weight, knots, spec, backend):
        ctx.save_for_backward(x, bias, coef, base_weight, knots)
        ctx.rest = window, spec, backend
        edges = Edges(coef, base_weight, knots, spec, backend)
        outputs = coef.shape[2] // window.places * window.groups
        shape = len(x), outputs, *window.out_sizes(x.shape[2:])
        by_pixels = pixels.serves(select.choose_for(x, backend, coef, spec), x, edges, window)
        y = torch.empty(shape, dtype=coef.dtype, device=x.device, memory_format=_format(x))
        (pixels if by_pixels else maps).out(x, edges, bias, window, y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads):
        (u,), (x, bias, coef, base_weight, knots), (window, spec, backend) = grads, ctx.saved_tensors, ctx.rest
        need_x, need_bias, _, need_coef, need_base, *_ = ctx.needs_input_grad
        edges = Edges(coef, base_weight, knots, spec, backend)
        again = torch.is_grad_enabled()  # the gradient is to be differentiated again
        if again or is_grad_batch(u):
            needs = need_x, need_bias, need_coef, need_base
            wanted = [t for t, need in zip((x, bias, coef, base_weight), needs, strict=True) if need]
            with torch.enable_grad():
                y = maps.plain(x, edges, bias, window)
            found = iter(torch.autograd.grad(y, wanted, u, create_graph=again))
            grad_x, grad_bias, grad_coef, grad_base = (next(found) if need else None for need in needs)
        else:
            by_pixels = pixels.serves(select.choose_for(x, backend, coef, spec), x, edges, window)
            grad_x, grad_coef, grad_base = (pixels if by_pixels else maps).gradients(
                u, x, edges, window, need_x, need_coef or need_base
            )
            grad_bias = u.sum([d for d in range(u.dim()) if d != 1]) if need_bias else None
        return grad_x, grad_bias, None, grad_coef, grad_base, None, None, None


def _format(x: Tensor) -> torch.memory_format:
    form = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    return form if x.is_contiguous(memory_format=form) and not x.is_contiguous() else torch.contiguous_format
