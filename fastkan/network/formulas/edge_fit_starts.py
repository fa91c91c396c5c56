"""Where a fit of c f(a u + b) + d starts: the best of a grid over (a, b), for all edges by a matrix product a function.

The inputs u are standardised to [-1, 1], so that one set of nodes serves all edges: a function's values at the nodes,
for every (a, b) of the grid, are computed once; an edge's values are read off at the nodes by interpolation. This is
rough, and need only find the basin that the refinement then goes down in.
"""

import math

import torch
from torch import Tensor

from ..layers.library import SymbolicFunction
from .redundant_parameters import Symmetry

A_LEVELS = 6  # blocks of the (a, b) plane, by |a|; each may send one start


def count_nodes(a_max: float) -> int:
    """So many that the fastest function of the grid has a dozen nodes a period."""
    return 1 + 2 * max(64, math.ceil(4 * a_max))


def at_nodes(u: Tensor, v: Tensor, nodes: Tensor) -> Tensor:
    """v [E, N] at u [E, N], any order, as values at nodes [S]: [E, S]. Between means over a few neighbours each."""
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


def grid(kind: Symmetry, a_range: tuple[float, float], b_range: tuple[float, float]) -> list[Tensor]:
    """The (a, b) to try for a function, in blocks: [n, 2] each, of which one start may come."""
    signs = (1.0,) if kind.mirror else (1.0, -1.0)
    if kind.scale and kind.shift:
        return [torch.tensor([[1.0, 0.0]], dtype=torch.float64)]
    if kind.scale:  # where the argument is 0 is all that matters: within the data, and on either side up to far away
        beyond = 1 + torch.logspace(-5, 2, 71, dtype=torch.float64)
        within = torch.linspace(-1, 1, 97, dtype=torch.float64)
        return [_pairs(sign, b) for sign in signs for b in (beyond, *within.chunk(4), -beyond)]
    if kind.shift:
        steepness = torch.logspace(-2, math.log10(max(map(abs, a_range))), 61, dtype=torch.float64)
        return [_pairs(a, 0.0) for sign in (1.0, -1.0) for a in (sign * steepness).chunk(3)]
    return _plane(signs, a_range, b_range)


def _pairs(a, b) -> Tensor:
    a, b = torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64)
    return torch.stack(torch.broadcast_tensors(a, b), -1)


def _plane(signs: tuple[float, ...], a_range: tuple[float, float], b_range: tuple[float, float]) -> list[Tensor]:
    """Arguments at the two ends of the data, each from one list: fine where functions end (+-1), even beyond."""
    a_max, b_max = max(map(abs, a_range)), max(map(abs, b_range))
    fine = torch.tensor([0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.96, 0.99, 0.999, 1.2, 1.57], dtype=torch.float64)
    even = torch.arange(0, a_max + b_max + 0.25, 0.5, dtype=torch.float64)
    even = even[(even <= max(10.0, a_max)) | (even % 1 == 0)]
    ends = torch.cat((even, fine))
    ends = torch.cat((-ends, ends)).unique()
    low, high = torch.combinations(ends).unbind(1)
    a, b = (high - low) / 2, (high + low) / 2
    pairs = torch.cat([torch.stack((sign * a, b), -1) for sign in signs])
    a, b = pairs.unbind(1)
    pairs = pairs[(a >= a_range[0]) & (a <= a_range[1]) & (b >= b_range[0]) & (b <= b_range[1])]
    if kept := len(pairs):
        pairs = pairs[pairs[:, 0].abs().argsort(stable=True)]
        return list(pairs.chunk(min(A_LEVELS * len(signs), kept)))
    raise ValueError(f"a_range={a_range}, b_range={b_range}: expected ranges that hold some of the grid")


def find_starts(
    functions: list[SymbolicFunction], kinds: list[Symmetry], v: Tensor, nodes: Tensor,
    a_range: tuple[float, float], b_range: tuple[float, float], count: int, max_bytes: int,
) -> Tensor:  # fmt: skip
    """The `count` most promising (a, b) of every function and edge, v [E, S] at nodes [S]: [n_functions, E, count, 2].

    Where there are fewer, the best stands several times.
    """
    v = v - v.mean(1, keepdim=True)
    v = v / v.norm(dim=1, keepdim=True).clamp_min(1e-300)
    found = torch.empty(len(functions), len(v), count, 2, dtype=torch.float64, device=v.device)
    for function, kind, out in zip(functions, kinds, found, strict=True):
        blocks = [block.to(v.device) for block in grid(kind, a_range, b_range)]
        pieces = [p for b in blocks for p in b.split(max(1, max_bytes // (64 * len(nodes))))]
        features = torch.cat([_features(function, piece, nodes) for piece in pieces])
        sizes = [len(block) for block in blocks]
        for part, some in zip(out.split(rows := max(1, max_bytes // (32 * sum(sizes)))), v.split(rows), strict=True):
            part.copy_(_best(features @ some.T, features, blocks, count))
    return found


def _features(function: SymbolicFunction, pairs: Tensor, nodes: Tensor) -> Tensor:
    """f(a u + b) at the nodes, centred and of norm 1; NaN in a row where f is not finite at each. [n, S]."""
    value = function(torch.addcmul(pairs[:, 1:], pairs[:, :1], nodes))
    value = value.masked_fill(~value.isfinite().all(1, keepdim=True), math.nan)
    size = value.abs().amax(1, keepdim=True)
    value = value / size.clamp_min(1e-300)
    value = value - value.mean(1, keepdim=True)
    norm = value.norm(dim=1, keepdim=True)
    return torch.where(norm > 1e-6, value / norm, value * 0)


def _best(correlation: Tensor, features: Tensor, blocks: list[Tensor], count: int) -> Tensor:
    """correlation [n, E] -> [E, count, 2]: the best of each block, of these the best."""
    quality = correlation.square().nan_to_num_(-1.0)
    tops = [part.max(0) for part in quality.split([len(block) for block in blocks])]
    values = torch.stack([top.values for top in tops])  # B E
    pairs = torch.stack([block[top.indices] for block, top in zip(blocks, tops, strict=True)])  # B E 2
    values, which = values.sort(dim=0, descending=True, stable=True)
    which = torch.where(values[:count] >= 0, which[:count], which[:1])
    pairs = pairs.gather(0, which[:, :, None].expand(-1, -1, 2))
    return torch.cat((pairs, pairs[:1].expand(count - len(pairs), -1, -1))).transpose(0, 1)
