"""By pixels: the kernels' layer with an output for every place of the kernel, summed where the kernel puts them.

For one group, on a CPU. The kernels read K + 1 coefficients of F, so this is faster than an ordinary convolution of all
functions unless F or the number of channels is small; and their knots may differ. With a stride the pixels are in
phases, q mod s, of which each meets its own places of the kernel.
"""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .. import autograd
from ..features import CALLS, is_shared
from .maps import Edges
from .window import Maybe, Window

# The least ratio of functions to those not zero, and the least number of channels, for which this is faster.
FUNCTIONS_FROM, CHANNELS_FROM = 1.5, 16
# Numbers of a block, for the caches.
CPU_BLOCK = 1 << 19


def serves(name: str, x: Tensor, edges: Edges, window: Window) -> bool:
    """Whether to compute it this way, where `name` is the chosen backend."""
    if name != "native" or not x.is_cpu or window.transposed or window.groups > 1:
        return False
    used = edges.spec.degree + 1 + (edges.base_weight is not None)
    if x.shape[1] >= CHANNELS_FROM and edges.functions >= FUNCTIONS_FROM * used:
        return True
    return x.shape[1] > CALLS and not is_shared(edges.knots)


class _Phase(NamedTuple):
    """The pixels first + s q' and what they meet: at a place with step e, y[q' - e] += its functions of pixel q'.

    The places [T'] of the kernel; for each the largest step less its own, [T', dims]; that largest step, which may be
    below 0, and by how much the steps differ.
    """

    first: tuple[int, ...]
    places: list[int]
    shifts: list[tuple[int, ...]]
    largest: tuple[int, ...]
    range: tuple[int, ...]

    def of_coef(self, coef: Tensor, window: Window) -> Tensor:
        """The columns of these places: [..., T O] -> [..., T' O]."""
        if len(self.places) == window.places:
            return coef
        return coef.unflatten(-1, (window.places, -1))[..., self.places, :].flatten(-2)

    def add_to(self, total: Tensor, grad: Tensor, window: Window) -> None:
        """Add a gradient of of_coef's result."""
        if len(self.places) == window.places:
            total += grad
        else:
            total.unflatten(-1, (window.places, -1))[..., self.places, :] += grad.unflatten(-1, (len(self.places), -1))


def _phases(window: Window) -> Iterator[_Phase]:
    """From s p + t d = q + padding, with q = r + s q': p = q' - e, e = (t d - padding - r) / s where that is whole."""
    dims: list[list[tuple[int, dict[int, int]]]] = []
    for k, s, d, p in zip(window.kernel, window.stride, window.dilation, window.padding, strict=True):
        of = [(r, {t: (t * d - p - r) // s for t in range(k) if (t * d - p - r) % s == 0}) for r in range(s)]
        dims.append([(r, steps) for r, steps in of if steps])
    for phase in itertools.product(*dims):
        steps = [list(e.values()) for _, e in phase]
        largest = tuple(max(e) for e in steps)
        at = itertools.product(*(e.items() for _, e in phase))
        places, shifts = [], []
        for place in at:
            index = 0
            for (t, _), k in zip(place, window.kernel, strict=True):
                index = index * k + t
            places.append(index)
            shifts.append(tuple(top - e for (_, e), top in zip(place, largest, strict=True)))
        spread = tuple(top - min(e) for e, top in zip(steps, largest, strict=True))
        yield _Phase(tuple(r for r, _ in phase), places, shifts, largest, spread)


def _blocks(x: Tensor, edges: Edges, window: Window) -> Iterator[tuple[_Phase, Tensor, slice, slice]]:
    """Every phase with its image of pixels [N, ..., I], and blocks of images and of rows of that."""
    for phase in _phases(window):
        own = [slice(r, None, s) for r, s in zip(phase.first, window.stride, strict=True)]
        image = x[(slice(None), slice(None), *own)].movedim(1, -1)
        outputs = edges.coef.shape[2] // window.places
        row = max(1, math.prod(image.shape[2:-1]) * outputs * len(phase.places))
        height = image.shape[1]
        images, rows = CPU_BLOCK // (row * max(1, height)), max(1, CPU_BLOCK // row)
        if images > 0:
            for n in range(0, len(x), images):
                yield phase, image, slice(n, n + images), slice(0, height)
        else:
            for n, start in itertools.product(range(len(x)), range(0, height, rows)):
                yield phase, image, slice(n, n + 1), slice(start, min(start + rows, height))


def out(x: Tensor, edges: Edges, bias: Maybe, window: Window, y: Tensor) -> None:
    """maps.plain into y, by blocks."""
    y.zero_()
    for phase, image, images, rows in _blocks(x, edges, window):
        pixels = image[images, rows]
        coef, weight = phase.of_coef(edges.coef, window), edges.base_weight
        weight = None if weight is None else phase.of_coef(weight, window)
        flat = pixels.reshape(-1, x.shape[1])
        sums = autograd.kan_out(flat, None, coef, weight, None, edges.knots, edges.spec, 0, "native")
        sums = sums.view(*pixels.shape[:-1], len(phase.places), y.shape[1])
        sizes = pixels.shape[1:-1]
        wide = sums.new_zeros(len(pixels), *map(sum, zip(sizes, phase.range, strict=True)), y.shape[1])
        for n, at in enumerate(_shifted(sizes, phase)):
            wide[at] += sums[..., n, :]
        _add(y[images], wide.movedim(-1, 1), [-phase.largest[0] + rows.start, *(-top for top in phase.largest[1:])])
    if bias is not None:
        y += bias.view(-1, *[1] * (x.dim() - 2))


def _add(y: Tensor, part: Tensor, first: list[int]) -> None:
    """Add a part of an image to y, from pixel `first` on; what is beside y is left out."""
    to, of = [slice(None)] * 2, [slice(None)] * 2
    for start, size, all_of_y in zip(first, part.shape[2:], y.shape[2:], strict=True):
        low, high = max(start, 0), min(start + size, all_of_y)
        if low >= high:
            return
        to.append(slice(low, high))
        of.append(slice(low - start, high - start))
    y[tuple(to)] += part[tuple(of)]


def gradients(
    u: Tensor, x: Tensor, edges: Edges, window: Window, need_x: bool, need_weights: bool
) -> tuple[Maybe, Maybe, Maybe]:
    """Those of x, coef and base_weight, by blocks, for the gradient u of the result."""
    knots, spec, base_weight = edges.knots, edges.spec, edges.base_weight
    grad_x = torch.zeros_like(x) if need_x else None
    grad_coef = torch.zeros_like(edges.coef, dtype=torch.promote_types(edges.coef.dtype, torch.float32))
    grad_base = None if base_weight is None else torch.zeros_like(base_weight, dtype=grad_coef.dtype)
    u = u.movedim(1, -1)
    wide, before = u, None
    for phase, image, images, rows in _blocks(x, edges, window):
        if phase is not before:
            wide, before = _padded(u, image.shape[1:-1], phase), phase
        pixels = image[images, rows]
        flat = pixels.reshape(-1, x.shape[1])
        part = wide[images, rows.start : rows.start + pixels.shape[1] + phase.range[0]]
        columns = torch.cat([part[at] for at in _shifted(pixels.shape[1:-1], phase)], -1).flatten(0, -2)
        coef, weight = phase.of_coef(edges.coef, window), base_weight
        weight = None if weight is None else phase.of_coef(weight, window)
        g = g_coef = g_base = None
        if need_x and need_weights:
            g, g_coef, g_base = autograd.kan_backward(flat, None, columns, coef, weight, knots, spec, 0, "native")
        elif need_x:
            g = autograd.kan_in(flat, columns, coef, weight, knots, spec, 1, "native")
        else:
            g_coef, g_base = autograd.kan_coef(flat, None, columns, knots, spec, 0, weight is not None, "native")
        if grad_x is not None and g is not None:
            own = [slice(r, None, s) for r, s in zip(phase.first, window.stride, strict=True)]
            grad_x[(slice(None), slice(None), *own)].movedim(1, -1)[images, rows] = g.view(pixels.shape)
        if g_coef is not None:
            phase.add_to(grad_coef, g_coef, window)
        if grad_base is not None and g_base is not None:
            phase.add_to(grad_base, g_base, window)
    if not need_weights:
        return grad_x, None, None
    grad_base = None if grad_base is None else grad_base.to(edges.coef.dtype)
    return grad_x, grad_coef.to(edges.coef.dtype), grad_base


def _padded(u: Tensor, sizes: tuple[int, ...], phase: _Phase) -> Tensor:
    """u [N, ..., O] from pixel -largest on, of the phase's sizes and more by the range of its steps; 0 beside u."""
    pads: list[int] = []
    for size, top, more, own in zip(sizes, phase.largest, phase.range, u.shape[1:-1], strict=True):
        pads = [top, size + more - top - own, *pads]
    return torch.nn.functional.pad(u, [0, 0, *pads])


def _shifted(sizes: tuple[int, ...], phase: _Phase) -> Iterator[tuple[slice, ...]]:
    """Where a pixel's results go in an image wider by the range of the steps, for every place."""
    for shifts in phase.shifts:
        yield (slice(None), *(slice(shift, shift + size) for shift, size in zip(shifts, sizes, strict=True)))
