"""KAN convolutions: the basis functions of every pixel, then one ordinary convolution of them.

    y[n,o,p] = sum_{i,t} phi[i,t,o](x[n,i,p s + t d]) + bias[o],   t a place of the kernel, s stride, d dilation
    phi[i,t,o](x) = base_weight[i,t,o] b(x) + sum_f coef[i,t,f,o] B_{i,f}(x)

The functions of a pixel do not depend on its place in the kernel, so they are computed once, not once a place. They go
in blocks of images or of rows; autograd saves x and the parameters, and computes them again.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from . import functional
from .features import features
from .spec import Spec
from .transforms import is_any_autocast, is_traced, is_transformed

Maybe = Tensor | None

# Features of a block: on a CPU few enough for its caches, and enough that the kernel's weights are read seldom.
BLOCK, CPU_BLOCK = 1 << 26, 1 << 21


class Window(NamedTuple):
    """Kernel size, stride, padding, dilation and output padding in every dimension, as torch.convolution takes them.

    padding: of a transposed convolution; that of others depends on the values, and x has it already.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int


def kan_conv(
    x: Tensor, coef: Tensor, base_weight: Maybe, bias: Maybe, knots: Tensor, spec: Spec, window: Window,
    backend: str | None = None,
) -> Tensor:  # fmt: skip
    """x [N, I, ...] -> [N, O, ...] in coef's dtype, after validation; x with its padding.

    coef [I, F, T O/groups], base_weight [I, T O/groups] or None, T = prod(kernel), places in row-major order before
    outputs; bias [O] or None; knots [I, M]. Differentiable to every order.
    """
    if is_any_autocast() and functional.is_autocast(x.device):
        coef, base_weight, bias, _ = functional.autocast(x.device, coef, base_weight, bias, None)
        with torch.autocast(x.device.type, enabled=False):
            return kan_conv(x, coef, base_weight, bias, knots, spec, window, backend)
    if x.dim() == 3:  # channels of images stay together in memory, those of series do not
        window = Window(*[(value, *v) if isinstance(v, tuple) else v for v, value in zip(window, _FIRST, strict=True)])
        return kan_conv(x.unsqueeze(2), coef, base_weight, bias, knots, spec, window, backend).squeeze(2)
    parameters = coef, base_weight, bias
    if is_traced() or is_transformed(x, *parameters):
        return _plain(x, *parameters, knots, spec, window, backend)
    y = _KanConv.apply(x, *parameters, knots, spec, window, backend)
    assert y is not None  # for type checkers, to which Function.apply has no type
    return y


# Of a dimension of size 1 before the others.
_FIRST = Window(1, 1, 0, 1, False, 0, 0)  # pyright: ignore[reportArgumentType]


def _plain(
    x: Tensor, coef: Tensor, base_weight: Maybe, bias: Maybe, knots: Tensor, spec: Spec, window: Window,
    backend: str | None,
) -> Tensor:  # fmt: skip
    phi = _maps(x, coef.dtype, base_weight is not None, knots, spec, backend)
    return _convolution(phi, _weight(coef, base_weight, window), bias, window)


def _convolution(phi: Tensor, weight: Tensor, bias: Maybe, window: Window) -> Tensor:
    return torch.convolution(phi, weight, bias, *window[1:])


def _maps(x: Tensor, dtype: torch.dtype, with_base: bool, knots: Tensor, spec: Spec, backend: str | None) -> Tensor:
    """The functions of every pixel as channels: x [N, I, ...] -> [N, I F, ...], channels last in memory."""
    pixels = x.movedim(1, -1)
    phi = features(pixels.reshape(-1, x.shape[1]), knots, spec, dtype, with_base, backend)
    return phi.reshape(*pixels.shape[:-1], phi.shape[1] * phi.shape[2]).movedim(-1, 1)


def _weight(coef: Tensor, base_weight: Maybe, window: Window) -> Tensor:
    """The parameters as the weight of torch.convolution, channels last in memory."""
    w = coef if base_weight is None else torch.cat([coef, base_weight[:, None]], 1)
    groups, dims = window.groups, len(window.kernel)
    inputs, functions = w.shape[0] // groups, w.shape[1]
    w = w.view(groups, inputs, functions, *window.kernel, w.shape[2] // math.prod(window.kernel))
    w = w.movedim(-1, 3 if window.transposed else 1)
    ends = (0, 2) if window.transposed else (0, 1)  # (g i f) o k, or (g o) (i f) k
    w = w.flatten(*ends) if window.transposed else w.flatten(2, 3).flatten(*ends)
    form = torch.channels_last if dims == 2 else torch.channels_last_3d
    return w.contiguous(memory_format=form)


class _Part(NamedTuple):
    """A block of images, and the rows of x and of y, as indices of these."""

    x: tuple[slice, ...]
    y: tuple[slice, ...]


def _parts(x: Tensor, y_rows: int, functions: int, window: Window) -> Iterator[_Part]:
    """Blocks of images; blocks of rows where an image has too many features, with the rows that the kernel spans."""
    block = CPU_BLOCK if x.is_cpu else BLOCK
    row = max(1, functions * x.shape[1] * math.prod(x.shape[3:]))
    images, all_rows = block // (row * max(1, x.shape[2])), slice(None)
    if images > 0 or window.transposed:
        for start in range(0, len(x), max(1, images)):
            some = slice(start, start + max(1, images))
            yield _Part((some, all_rows, all_rows), (some, all_rows, all_rows))
        return
    stride, span = window.stride[0], window.dilation[0] * (window.kernel[0] - 1) + 1
    rows = max(1, (block // row - span) // stride + 1, span // stride)
    for image in range(len(x)):
        for start in range(0, y_rows, rows):
            end = min(start + rows, y_rows)
            of_x = slice(start * stride, (end - 1) * stride + span)
            one = slice(image, image + 1)
            yield _Part((one, all_rows, of_x), (one, all_rows, slice(start, end)))


class _KanConv(Function):
    """kan_conv by blocks: autograd saves its arguments."""

    @staticmethod
    def forward(ctx: Any, x, coef, base_weight, bias, knots, spec, window, backend):
        ctx.save_for_backward(x, coef, base_weight, bias, knots)
        ctx.rest = spec, window, backend
        weight = _weight(coef, base_weight, window)
        outputs = weight.shape[1] * window.groups if window.transposed else weight.shape[0]
        shape = len(x), outputs, *out_sizes(x.shape[2:], window)
        y = torch.empty(shape, dtype=coef.dtype, device=x.device, memory_format=_format(x))
        functions = coef.shape[1] + (base_weight is not None)
        for part in _parts(x, y.shape[2], functions, window):
            phi = _maps(x[part.x], coef.dtype, base_weight is not None, knots, spec, backend)
            y[part.y] = _convolution(phi, weight, bias, window)
        return y

    @staticmethod
    def backward(ctx: Any, *grads):
        (u,), (x, coef, base_weight, bias, knots), (spec, window, backend) = grads, ctx.saved_tensors, ctx.rest
        needs = ctx.needs_input_grad[:4]
        if torch.is_grad_enabled():
            wanted = [t for t, need in zip((x, coef, base_weight, bias), needs, strict=True) if need]
            y = _plain(x, coef, base_weight, bias, knots, spec, window, backend)
            found = iter(torch.autograd.grad(y, wanted, u, create_graph=True))
        else:
            found = iter(_gradients(u, x, coef, base_weight, bias, knots, spec, window, backend, needs))
        return *(next(found) if need else None for need in needs), None, None, None, None


def _gradients(u, x, coef, base_weight, bias, knots, spec, window, backend, needs) -> Iterator[Tensor]:
    """Those of x, coef, base_weight and bias that are needed."""
    need_x, *need_weights, need_bias = needs
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_() if t is not None else None for t in (coef, base_weight)]
        weight = _weight(leaves[0], leaves[1], window)
    grad_x = torch.zeros_like(x) if need_x else None
    grad_weight = None
    mask = [need_x, any(need_weights), False]
    functions = coef.shape[1] + (base_weight is not None)
    for part in _parts(x, u.shape[2], functions, window):
        own = x[part.x].detach().requires_grad_(need_x)
        with torch.enable_grad():
            phi = _maps(own, coef.dtype, base_weight is not None, knots, spec, backend)
        g, g_weight, _ = torch.ops.aten.convolution_backward(
            u[part.y], phi.detach(), weight.detach(), None, *window[1:], mask
        )
        if grad_x is not None:
            grad_x[part.x] += torch.autograd.grad(phi, own, g)[0]
        if any(need_weights):
            g_weight = g_weight if g_weight.dtype == torch.float64 else g_weight.float()
            grad_weight = g_weight if grad_weight is None else grad_weight.add_(g_weight)
    if grad_x is not None:
        yield grad_x
    if any(need_weights):
        wanted = [t for t, need in zip(leaves, need_weights, strict=True) if need]
        grad_weight = torch.zeros_like(weight) if grad_weight is None else grad_weight.to(weight.dtype)
        yield from torch.autograd.grad(weight, wanted, grad_weight)
    if need_bias:
        yield u.sum([d for d in range(u.dim()) if d != 1])


def out_sizes(sizes: Sequence[int], window: Window) -> list[int]:
    """The sizes of y's images, for those of x with its padding."""
    found: list[int] = []
    for size, *of in zip(sizes, *(w for w in window if isinstance(w, tuple)), strict=True):
        kernel, stride, padding, dilation, output_padding = of
        span = dilation * (kernel - 1) + 1
        if window.transposed:
            found.append((size - 1) * stride - 2 * padding + span + output_padding)
        else:
            found.append((size - span) // stride + 1)
    return found


def _format(x: Tensor) -> torch.memory_format:
    form = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    return form if x.is_contiguous(memory_format=form) and not x.is_contiguous() else torch.contiguous_format
