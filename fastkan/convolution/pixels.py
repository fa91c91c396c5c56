"""By pixels: the kernels' layer with an output for every place of the kernel, summed where the kernel puts them.

For stride 1 and one group, on a CPU. The kernels read K + 1 coefficients of F, so this is faster than an ordinary
convolution of all functions if F is large, in the backward sooner than in the forward; and their knots may differ.
"""

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .. import autograd
from ..features import CALLS, is_shared
from .maps import CPU_BLOCK, Edges
from .window import Maybe, Window

# Functions over those not zero from which this is faster, in the forward and in the backward, from that many channels.
FORWARD_FROM, BACKWARD_FROM, CHANNELS_FROM = 2.5, 1.5, 16


def serves(name: str, x: Tensor, edges: Edges, window: Window, backward: bool) -> bool:
    """Whether to compute it this way, where `name` is the chosen backend."""
    if name != "native" or not x.is_cpu or window.transposed or window.groups > 1 or max(window.stride) > 1:
        return False
    if any(p >= span for p, span in zip(window.padding, window.spans, strict=True)):
        return False
    factor = edges.functions / (edges.spec.degree + 1 + (edges.base_weight is not None))
    if factor > (BACKWARD_FROM if backward else FORWARD_FROM) and x.shape[1] >= CHANNELS_FROM:
        return True
    return x.shape[1] > CALLS and not is_shared(edges.knots)


def out(x: Tensor, edges: Edges, bias: Maybe, window: Window, y: Tensor) -> None:
    """maps.plain into y, by blocks."""
    outputs, sizes = y.shape[1], x.shape[2:]
    for images, rows in _parts(x, edges):
        pixels = x[images, :, rows].movedim(1, -1)
        cols = autograd.kan_out(
            pixels.reshape(-1, x.shape[1]), None, edges.coef, edges.base_weight, None, edges.knots, edges.spec, 0,
            "native",
        ).view(*pixels.shape[:-1], window.places, outputs)  # fmt: skip
        # y[q - t d + padding] += cols[q, t]; `wide` has all of these places, `padding` less than a span cut off later.
        height = pixels.shape[1]
        wide_sizes = [size + span - 1 for size, span in zip((height, *sizes[1:]), window.spans, strict=True)]
        wide = cols.new_zeros(len(pixels), *wide_sizes, outputs)
        for t, at in enumerate(_shifts((height, *sizes[1:]), window)):
            wide[at] += cols[..., t, :]
        _add_rows(y[images], wide.movedim(-1, 1), rows, window)
    if bias is not None:
        y += bias.view(-1, *[1] * len(sizes))


def _add_rows(y: Tensor, wide: Tensor, rows: slice, window: Window) -> None:
    """Add sums of pixels' rows from `rows` on to y, which begins later by what the padding leaves."""
    cut = [span - 1 - p for span, p in zip(window.spans, window.padding, strict=True)]
    inner = [slice(c, c + size) for c, size in zip(cut[1:], y.shape[3:], strict=True)]
    first = rows.start - cut[0]
    low, high = max(first, 0), min(first + wide.shape[2], y.shape[2])
    if low < high:
        y[:, :, low:high] += wide[(slice(None), slice(None), slice(low - first, high - first), *inner)]


def gradients(
    u: Tensor, x: Tensor, edges: Edges, window: Window, need_x: bool, need_weights: bool
) -> tuple[Maybe, Maybe, Maybe]:
    """Those of x, coef and base_weight, by blocks, for the gradient u of the result."""
    coef, base_weight, knots, spec, _ = edges
    beside = [span - 1 - p for span, p in zip(window.spans, window.padding, strict=True)]
    wide = torch.nn.functional.pad(u.movedim(1, -1), [0, 0, *(b for b in reversed(beside) for _ in range(2))])
    grad_x = torch.empty_like(x) if need_x else None
    grad_coef = torch.zeros_like(coef, dtype=torch.promote_types(coef.dtype, torch.float32))
    grad_base = None if base_weight is None else torch.zeros_like(base_weight, dtype=grad_coef.dtype)
    for images, rows in _parts(x, edges):
        pixels = x[images, :, rows].movedim(1, -1)
        part = wide[images, rows.start : rows.start + pixels.shape[1] + window.spans[0] - 1]
        own = [part[at] for at in _shifts(pixels.shape[1:-1], window)]
        flat, columns = pixels.reshape(-1, x.shape[1]), torch.cat(own, -1).flatten(0, -2)
        g = g_coef = g_base = None
        if need_x and need_weights:
            g, g_coef, g_base = autograd.kan_backward(flat, None, columns, coef, base_weight, knots, spec, 0, "native")
        elif need_x:
            g = autograd.kan_in(flat, columns, coef, base_weight, knots, spec, 1, "native")
        else:
            with_base = base_weight is not None
            g_coef, g_base = autograd.kan_coef(flat, None, columns, knots, spec, 0, with_base, "native")
        if grad_x is not None and g is not None:
            grad_x[images, :, rows] = g.view(pixels.shape).movedim(-1, 1)
        if g_coef is not None:
            grad_coef += g_coef
        if grad_base is not None and g_base is not None:
            grad_base += g_base
    if not need_weights:
        return grad_x, None, None
    return grad_x, grad_coef.to(coef.dtype), None if grad_base is None else grad_base.to(coef.dtype)


def _shifts(sizes: tuple[int, ...], window: Window) -> Iterator[tuple[slice, ...]]:
    """Where a pixel's results go in an image wider by the span less 1, for every place: the last place goes first."""
    for place in itertools.product(*map(range, window.kernel)):
        steps = [(k - 1 - t) * d for t, k, d in zip(place, window.kernel, window.dilation, strict=True)]
        yield (slice(None), *(slice(step, step + size) for step, size in zip(steps, sizes, strict=True)))


def _parts(x: Tensor, edges: Edges) -> Iterator[tuple[slice, slice]]:
    """Images and rows of x in blocks."""
    row = max(1, math.prod(x.shape[3:]) * edges.coef.shape[2])
    height = x.shape[2]
    images, rows = CPU_BLOCK // (row * max(1, height)), max(1, CPU_BLOCK // row)
    if images > 0:
        yield from ((slice(n, n + images), slice(0, height)) for n in range(0, len(x), images))
        return
    for n, start in itertools.product(range(len(x)), range(0, height, rows)):
        yield slice(n, n + 1), slice(start, min(start + rows, height))
