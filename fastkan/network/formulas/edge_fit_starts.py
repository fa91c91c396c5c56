"""Starts of the fits of c f(a u + b) + d: the best points of a grid over (a, b), a matrix product for each function.

The inputs u are standardised to [-1, 1], so that all edges share one set of nodes: a function's values at the nodes,
for every (a, b) of the grid, are computed once; an edge's values are interpolated at the nodes. This is coarse: it only
has to find the basin of attraction for the refinement.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...devices import HOST
from .redundant_parameters import Symmetry

A_LEVELS = 6  # blocks of the (a, b) plane, by |a|; at most one start comes from each
SPIKE = 4.0  # standard deviations: a larger value may be a pole


class Data(NamedTuple):
    """Standardised data: u = (x - x_shift) / x_scale in [-1, 1] and v = y, centred, mean square 1, both [E, N]; weight
    [E, N] or None."""

    u: Tensor
    v: Tensor
    weight: Tensor | None
    x_shift: Tensor
    x_scale: Tensor


def standardise(x: Tensor, y: Tensor, weight: Tensor | None) -> Data:
    low, high = x.amin(1), x.amax(1)
    shift, scale = low / 2 + high / 2, high / 2 - low / 2
    scale = torch.where(scale > 0, scale, 1.0)
    u = (x - shift[:, None]) / scale[:, None]
    v, square = centred(y, weight)
    std = (square / y.shape[1] if weight is None else square / weight.sum(1)).sqrt()
    v = v / torch.where(std > 0, std, 1.0)[:, None]
    return Data(u, v, weight, shift, scale)


def centred(y: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """y - mean [E, N] and the sum of its squares [E]; exactly 0 where y is constant up to rounding."""
    w = torch.ones_like(y) if weight is None else weight
    largest = (y.abs() * w).amax(1, keepdim=True)
    safe = torch.where(largest > 0, largest, 1.0)
    v = y / safe
    v = v - (v * w).sum(1, keepdim=True) / w.sum(1, keepdim=True)
    v = torch.where((v.abs() * w).amax(1, keepdim=True) > 4e-16, v, 0.0) * safe
    return v, (v * v * w).sum(1)


def find_starts(
    funs: Sequence[Callable], symmetries: Sequence[Symmetry], data: Data,
    a_range: tuple[float, float], b_range: tuple[float, float], count: int, max_bytes: int,
) -> Tensor:  # fmt: skip
    """The `count` best (a, b) of every function and edge on the search grid, [n_functions, E, count, 2].

    Where there are fewer, the best is repeated.
    """
    fastest = max(map(abs, a_range))
    size = 1 + 2 * max(64, math.ceil(4 * fastest))  # a dozen nodes in the shortest period
    nodes = torch.linspace(-1, 1, size, dtype=torch.float64, device=data.u.device)
    v = _at_nodes(data.u, data.v, nodes)
    v = v - v.mean(1, keepdim=True)
    v = v / v.norm(dim=1, keepdim=True).clamp_min(1e-300)
    starts = torch.empty(len(funs), len(v), count, 2, dtype=torch.float64, device=v.device)
    for fun, kind, out in zip(funs, symmetries, starts, strict=True):
        blocks = _search_grid(kind, a_range, b_range)
        pieces = [p for b in blocks for p in b.split(max(1, max_bytes // (64 * len(nodes))))]
        features = torch.cat([_features(fun, piece, nodes) for piece in pieces])
        rows = max(1, max_bytes // (32 * sum(map(len, blocks))))
        for part, values in zip(out.split(rows), v.split(rows), strict=True):
            part.copy_(_best(features @ values.T, blocks, count))
    _start_at_poles(starts, data, symmetries)
    return starts


def _at_nodes(u: Tensor, v: Tensor, nodes: Tensor) -> Tensor:
    """Values v [E, N] at u [E, N], in any order, interpolated at nodes [S]: [E, S]; of means over a few neighbours."""
    order = u.argsort(dim=1, stable=True)
    u, v = u.gather(1, order), v.gather(1, order)
    width = max(1, u.shape[1] // (2 * len(nodes)))
    bins = u.shape[1] // width
    u = u[:, : bins * width].unflatten(1, (bins, width)).mean(2)
    v = v[:, : bins * width].unflatten(1, (bins, width)).mean(2)
    if bins == 1:
        return v.expand(-1, len(nodes))
    right = torch.searchsorted(u.contiguous(), nodes.expand(len(u), -1).contiguous()).clamp(1, bins - 1)
    u0, u1 = u.gather(1, right - 1), u.gather(1, right)
    part = ((nodes - u0) / (u1 - u0).clamp_min(1e-300)).clamp(0, 1)
    return torch.lerp(v.gather(1, right - 1), v.gather(1, right), part)


def _search_grid(kind: Symmetry, a_range: tuple[float, float], b_range: tuple[float, float]) -> list[Tensor]:
    """The grid of (a, b) for a function, in blocks [n, 2]; at most one start comes from each."""
    signs = (1.0,) if kind.mirror else (1.0, -1.0)
    if kind.scale and kind.shift:
        return [torch.tensor([[1.0, 0.0]], dtype=torch.float64, device=HOST)]
    if kind.scale:  # only the zero of the argument matters: inside the data, or at some distance on either side
        beyond = 1 + torch.logspace(-5, 2, 71, dtype=torch.float64, device=HOST)
        within = torch.linspace(-1, 1, 97, dtype=torch.float64, device=HOST)
        return [_pairs(sign, b) for sign in signs for b in (beyond, *within.chunk(4), -beyond)]
    if kind.shift:
        steepness = torch.logspace(-2, math.log10(max(map(abs, a_range))), 61, dtype=torch.float64, device=HOST)
        return [_pairs(a, 0.0) for sign in (1.0, -1.0) for a in (sign * steepness).chunk(3)]
    return _plane(signs, a_range, b_range)


def _pairs(a, b) -> Tensor:
    a, b = torch.as_tensor(a, dtype=torch.float64, device=HOST), torch.as_tensor(b, dtype=torch.float64, device=HOST)
    return torch.stack(torch.broadcast_tensors(a, b), -1)


def _plane(signs: tuple[float, ...], a_range: tuple[float, float], b_range: tuple[float, float]) -> list[Tensor]:
    """(a, b) from pairs of arguments at the ends of the data: a finer grid near +-1, where domains end."""
    a_max, b_max = max(map(abs, a_range)), max(map(abs, b_range))
    fine = torch.tensor([0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.96, 0.99, 0.999, 1.2, 1.57], dtype=torch.float64, device=HOST)
    even = torch.arange(0, a_max + b_max + 0.25, 0.5, dtype=torch.float64, device=HOST)
    even = even[(even <= max(10.0, a_max)) | (even % 1 == 0)]
    ends = torch.cat((even, fine))
    ends = torch.cat((-ends, ends)).unique()
    low, high = torch.combinations(ends).unbind(1)
    a, b = (high - low) / 2, (high + low) / 2
    pairs = torch.cat([torch.stack((sign * a, b), -1) for sign in signs])
    a, b = pairs.unbind(1)
    pairs = pairs[(a >= a_range[0]) & (a <= a_range[1]) & (b >= b_range[0]) & (b <= b_range[1])]
    if count := len(pairs):
        pairs = pairs[pairs[:, 0].abs().argsort(stable=True)]
        return list(pairs.chunk(min(A_LEVELS * len(signs), count)))
    raise ValueError(f"a_range={a_range}, b_range={b_range}: expected ranges that hold some of the grid")


def _start_at_poles(starts: Tensor, data: Data, symmetries: Sequence[Symmetry]) -> None:
    """Replace the last two starts of powers on edges with a spike by poles on either side of the largest |v|."""
    u, order = data.u.sort(dim=1, stable=True)
    size = data.v.abs().gather(1, order)
    largest, at = size.max(1, keepdim=True)
    for column, side in ((-1, -1), (-2, 1)):
        beside = (at + side).clamp(0, u.shape[1] - 1)
        root = -(u.gather(1, at) + u.gather(1, beside)) / 2
        pole = torch.cat((torch.ones_like(root), root), 1)
        for out, kind in zip(starts, symmetries, strict=True):
            if kind.scale and not kind.shift:
                out[:, column] = torch.where(largest > SPIKE, pole, out[:, column])


def _features(fun: Callable, pairs: Tensor, nodes: Tensor) -> Tensor:
    """f(a u + b) at the nodes, [n, S], centred and with norm 1; rows with a value that is not finite are NaN."""
    value = fun(torch.addcmul(pairs[:, 1:], pairs[:, :1], nodes))
    value = value.masked_fill(~value.isfinite().all(1, keepdim=True), math.nan)
    size = value.abs().amax(1, keepdim=True)
    value = value / size.clamp_min(1e-300)
    value = value - value.mean(1, keepdim=True)
    norm = value.norm(dim=1, keepdim=True)
    return torch.where(norm > 1e-6, value / norm, value * 0)


def _best(correlation: Tensor, blocks: list[Tensor], count: int) -> Tensor:
    """correlation [n, E] -> [E, count, 2]: the `count` best of the best (a, b) of each block."""
    quality = correlation.square().nan_to_num_(-1.0)
    tops = [part.max(0) for part in quality.split([len(block) for block in blocks])]
    values = torch.stack([top.values for top in tops])  # B E
    pairs = torch.stack([block[top.indices] for block, top in zip(blocks, tops, strict=True)])  # B E 2
    values, which = values.sort(dim=0, descending=True, stable=True)
    which = torch.where(values[:count] >= 0, which[:count], which[:1])
    pairs = pairs.gather(0, which[:, :, None].expand(-1, -1, 2))
    return torch.cat((pairs, pairs[:1].expand(count - len(pairs), -1, -1))).transpose(0, 1)
