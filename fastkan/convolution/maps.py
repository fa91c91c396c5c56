"""By maps: the functions of every pixel as channels of an image, then one ordinary convolution; on any device."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..features import features
from ..spec import Spec
from .window import Maybe, Window, convolution, weight_of

# Features of a block: on a CPU few enough for its caches, and enough that the weight is read seldom.
BLOCK, CPU_BLOCK = 1 << 26, 1 << 20


class Edges(NamedTuple):
    """coef [I, F, T O/groups], base_weight [I, T O/groups] or None; knots [I, M], basis and backend."""

    coef: Tensor
    base_weight: Maybe
    knots: Tensor
    spec: Spec
    backend: str | None

    @property
    def functions(self) -> int:
        """The functions of a pixel, the base function with them."""
        return self.coef.shape[1] + (self.base_weight is not None)

    def features(self, x: Tensor) -> Tensor:
        """x [N, I] -> [N, I, functions]."""
        with_base = self.base_weight is not None
        return features(x, self.knots, self.spec, self.coef.dtype, with_base, self.backend)

    def maps(self, x: Tensor) -> Tensor:
        """The functions of every pixel as channels: x [N, I, ...] -> [N, I F, ...], channels last in memory."""
        pixels = x.movedim(1, -1)
        phi = self.features(pixels.reshape(-1, x.shape[1]))
        return phi.reshape(*pixels.shape[:-1], phi.shape[1] * phi.shape[2]).movedim(-1, 1)


def plain(x: Tensor, edges: Edges, bias: Maybe, window: Window) -> Tensor:
    """The convolution without blocks, differentiable to every order: x [N, I, ...] -> [N, O, ...]."""
    return convolution(edges.maps(x), weight_of(edges.coef, edges.base_weight, window), bias, window)


def out(x: Tensor, edges: Edges, bias: Maybe, window: Window, y: Tensor) -> None:
    """`plain` into y, by blocks."""
    weight = weight_of(edges.coef, edges.base_weight, window)
    for part in _parts(x, y.shape[2], edges.functions, window):
        y[part.y] = convolution(part.padded(edges.maps(x[part.x])), weight, bias, part.window)


def gradients(
    u: Tensor, x: Tensor, edges: Edges, window: Window, need_x: bool, need_weights: bool
) -> tuple[Maybe, Maybe, Maybe]:
    """Those of x, coef and base_weight, by blocks, for the gradient u of the result."""
    coef, base_weight = edges.coef.detach(), edges.base_weight
    if need_weights:
        coef.requires_grad_()
        base_weight = None if base_weight is None else base_weight.detach().requires_grad_()
    with torch.enable_grad():
        weight = weight_of(coef, base_weight, window)
    grad_x = torch.zeros_like(x) if need_x else None
    grad_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
    for part in _parts(x, u.shape[2], edges.functions, window):
        own = x[part.x].detach().requires_grad_(need_x)
        with torch.enable_grad():
            phi = part.padded(edges.maps(own))
        g, g_weight, _ = torch.ops.aten.convolution_backward(
            u[part.y], phi.detach(), weight.detach(), None, *part.window[1:], [need_x, need_weights, False]
        )
        if grad_x is not None:
            grad_x[part.x] += torch.autograd.grad(phi, own, g)[0]
        if need_weights:
            grad_weight += g_weight
    if not need_weights:
        return grad_x, None, None
    wanted = [coef] if base_weight is None else [coef, base_weight]
    found: list[Any] = [*torch.autograd.grad(weight, wanted, grad_weight.to(weight.dtype)), None]
    return grad_x, found[0], found[1]


class _Part(NamedTuple):
    """A block of images, or of rows of one: slices of x and of y, zero rows before and after, and the window there."""

    x: tuple[slice, ...]
    y: tuple[slice, ...]
    zeros: tuple[int, int]
    window: Window

    def padded(self, maps: Tensor) -> Tensor:
        """The maps with the rows of the padding."""
        if not any(self.zeros):
            return maps
        return torch.nn.functional.pad(maps, [0, 0] * (maps.dim() - 3) + list(self.zeros))


def _parts(x: Tensor, y_rows: int, functions: int, window: Window) -> Iterator[_Part]:
    """Blocks of images; blocks of rows where an image has too many features, with the rows that the kernel spans."""
    block = CPU_BLOCK if x.is_cpu else BLOCK
    row = max(1, functions * x.shape[1] * math.prod(x.shape[3:]))
    images, every = block // (row * max(1, x.shape[2])), slice(None)
    if images > 0 or window.transposed:
        for start in range(0, len(x), max(1, images)):
            some = slice(start, start + max(1, images)), every, every
            yield _Part(some, some, (0, 0), window)
        return
    stride, span, padding = window.stride[0], window.spans[0], window.padding[0]
    rows = max(1, (block // row - span) // stride + 1, span // stride)
    inner = window._replace(padding=(0, *window.padding[1:]))
    for image in range(len(x)):
        one = slice(image, image + 1)
        for start in range(0, y_rows, rows):
            end = min(start + rows, y_rows)
            low, high = start * stride - padding, (end - 1) * stride + span - padding
            first, last = min(max(low, 0), x.shape[2]), max(min(high, x.shape[2]), 0)
            of_x, of_y = slice(first, max(first, last)), slice(start, end)
            zeros = first - low, high - max(first, last)
            yield _Part((one, every, of_x), (one, every, of_y), zeros, inner)
