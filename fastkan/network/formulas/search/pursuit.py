"""Sparse regression: the few of many columns whose weighted combination explains a target."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

PENALTY = 1.0  # of a unit of cost, where the logarithm of the squared error counts once a row
SMALLEST = 1e-22  # squared relative error that is as good as none
LEADERS = 400  # columns whose pairs with all columns are tried: so many of the best, and of the cheapest
BEAM = 100
CHEAPEST, CHEAP = 80, 2000  # numbers of the columns whose pairs, and with which all their triples, are tried
KEPT = 16  # results of every number of columns
GROUP = 64  # values of which the least is computed first
ALIKE = 1e-4  # 1 - r^2 of two columns below which they are not combined


class Found(NamedTuple):
    """Columns, and the merit of their combination: the lower, the better."""

    merit: float
    columns: tuple[int, ...]


class _State(NamedTuple):
    """Columns of a combination, the rest of the target, and an orthonormal basis of the columns."""

    columns: tuple[int, ...]
    rest: Tensor
    basis: Tensor


def pursue(
    values: Tensor, costs: Tensor, target: Tensor, weights: Tensor, basis: Tensor, most: int, unit: float
) -> list[Found]:
    """The best combinations of up to `most` columns, with the columns of the basis, which are always in.

    values [rows, C], costs [C], target [rows], weights [rows] of squared errors, basis [rows, b]; unit: the sum of
    weighted squares in which errors are measured. All single columns and all pairs of a leading column with another
    are tried; then columns are added to the best combinations, one at a time.
    """
    rows, root = len(target), weights.sqrt()
    q = torch.linalg.qr(basis * root[:, None])[0]
    rest = _without(target * root, q)
    found = [Found(_merit(rest, unit, 0.0), ())]
    if not most or not len(costs):
        return found
    a = values * root[:, None]
    size = a.norm(dim=0)
    a -= q @ (q.T @ a)
    norm = a.norm(dim=0)
    a *= torch.where(norm > 1e-6 * size, 1 / norm, 0.0)
    total, along = float(rest @ rest), a.T @ rest
    merit = rows * ((total - along**2).clamp_min(0) / unit + SMALLEST).log() + PENALTY * costs
    empty = _State((), rest, a.new_empty(rows, 0))
    single = [state for c in _lowest(merit, KEPT) if (state := _extended(a, empty, c))]
    found += [Found(_merit(s.rest, unit, float(costs[list(s.columns)].sum())), s.columns) for s in single]
    if most == 1:
        return sorted(found)
    leaders = torch.cat([torch.tensor(_lowest(merit, LEADERS)), costs.argsort(stable=True)[:LEADERS]]).unique()
    states = _ordered(_pairs(a, along, costs, leaders, rest, unit), costs, unit)
    found += [Found(_merit(s.rest, unit, float(costs[list(s.columns)].sum())), s.columns) for s in states[:KEPT]]
    for count in range(3, most + 1):
        more = _grown(a, costs, states, unit) if states else []
        states = _ordered(more + (_cheap_triples(a, along, costs, rest, unit) if count == 3 else []), costs, unit)
        found += [Found(_merit(s.rest, unit, float(costs[list(s.columns)].sum())), s.columns) for s in states[:KEPT]]
    return sorted(found)


def _merit(rest: Tensor, unit: float, cost: float) -> float:
    return len(rest) * math.log(float(rest @ rest) / unit + SMALLEST) + PENALTY * cost


def _lowest(values: Tensor, count: int) -> list[int]:
    """Indices of the `count` lowest of all values, in ascending order of these."""
    flat, count = values.flatten(), min(count, values.numel())
    groups = flat.numel() // GROUP
    if groups <= count:
        return torch.topk(flat, count, largest=False).indices.tolist()
    # They are in the groups of the lowest minima, or among the few that are in no group.
    least = flat[: groups * GROUP].view(GROUP, groups).amin(0)
    kept = torch.topk(least, count, largest=False, sorted=False).indices
    rows = torch.arange(GROUP)[:, None] * groups
    candidates = torch.cat([(rows + kept).flatten(), torch.arange(groups * GROUP, flat.numel())])
    return candidates[torch.topk(flat[candidates], count, largest=False).indices].tolist()


def _without(vector: Tensor, basis: Tensor) -> Tensor:
    """The vector without its part in the span of the orthonormal basis."""
    for _ in range(2):
        vector = vector - basis @ (basis.T @ vector)
    return vector


def _extended(a: Tensor, state: _State, c: int) -> _State | None:
    """The state with a column more, None if it is in the span of the others."""
    q = _without(a[:, c], state.basis)
    norm = float(q.norm())
    if norm < ALIKE:
        return None
    q = q / norm
    return _State((*state.columns, c), state.rest - q * (q @ state.rest), torch.cat([state.basis, q[:, None]], 1))


def _ordered(states: list[_State], costs: Tensor, unit: float) -> list[_State]:
    """The best states, without repetitions."""
    once = {tuple(sorted(s.columns)): s for s in states}
    return sorted(once.values(), key=lambda s: _merit(s.rest, unit, float(costs[list(s.columns)].sum())))[:BEAM]


def _pairs(a: Tensor, along: Tensor, costs: Tensor, leaders: Tensor, rest: Tensor, unit: float) -> list[_State]:
    """Pairs of a leader and any other column. Found in single precision, computed in double."""
    rows, total = a.shape[0], float(rest @ rest)
    single, toward, share = a.float(), along.float(), (PENALTY / rows * costs.float()).exp()  # exp(merit / rows)
    best = []
    for part in leaders.split(max(1, (1 << 22) // len(costs))):
        cosine = single[:, part].T @ single
        apart = 1 - cosine * cosine
        gain = (toward - toward[part][:, None] * cosine).square_().div_(apart).masked_fill_(apart < ALIKE, 0.0)
        left = (total - toward[part].square())[:, None] - gain
        merit = left.div_(unit).clamp_min_(1e-8).mul_(share[part][:, None]).mul_(share)
        chosen = _lowest(merit, 3 * BEAM // 2)
        flat = merit.flatten()
        best += [(float(flat[n]), int(part[n // len(costs)]), n % len(costs)) for n in chosen]
    empty = _State((), rest, a.new_empty(rows, 0))
    states, seen = [], set()
    for _, i, j in sorted(best):
        if i == j or (min(i, j), max(i, j)) in seen:
            continue
        seen.add((min(i, j), max(i, j)))
        first = _extended(a, empty, i)
        second = None if first is None else _extended(a, first, j)
        states += [second] if second is not None else []
        if len(states) == 2 * BEAM:
            break
    return states


def _cheap_triples(a: Tensor, along: Tensor, costs: Tensor, rest: Tensor, unit: float) -> list[_State]:
    """The best triples of two of the cheapest columns and one more: a sum is found of which no part is near to it.

    Found in single precision, computed in double.
    """
    order = costs.argsort(stable=True)[:CHEAP]
    some, toward = a[:, order].float(), along[order].float()
    share = (PENALTY / len(rest) * costs[order].float()).exp()  # exp(merit / rows)
    cosines, total = some[:, :CHEAPEST].T @ some, float(rest @ rest)
    pairs = torch.triu_indices(len(cosines), len(cosines), 1)
    best = []
    for i, j in zip(*(part.split(max(1, (1 << 20) // len(order))) for part in pairs), strict=True):
        apart = (1 - cosines[i, j].square()).clamp_min(ALIKE).sqrt()
        second = (cosines[j] - cosines[i, j][:, None] * cosines[i]) / apart[:, None]  # with j, made orthogonal to i
        onto = (toward[j] - cosines[i, j] * toward[i]) / apart
        free = 1 - cosines[i].square() - second.square()
        gain = (toward - cosines[i] * toward[i][:, None] - second * onto[:, None]).square_().div_(free)
        left = (total - toward[i].square() - onto.square())[:, None] - gain.masked_fill_(free < ALIKE, 0.0)
        merit = left.div_(unit).clamp_min_(1e-8).mul_((share[i] * share[j])[:, None]).mul_(share)
        flat = merit.flatten()
        best += [
            (float(flat[n]), int(i[n // len(order)]), int(j[n // len(order)]), n % len(order))
            for n in _lowest(merit, BEAM)
        ]
    states = []
    for _, *triple in sorted(best)[: 2 * BEAM]:
        state: _State | None = _State((), rest, a.new_empty(len(rest), 0))
        for column in {int(order[c]) for c in triple}:
            state = state and _extended(a, state, column)
        states += [state] if state is not None and len(state.columns) == 3 else []
    return states


def _grown(a: Tensor, costs: Tensor, states: list[_State], unit: float) -> list[_State]:
    """The best states with one column more."""
    rests, size = torch.stack([s.rest for s in states], 1), states[0].basis.shape[1]
    apart = 1 - (a.T @ torch.cat([s.basis for s in states], 1)).square_().view(len(costs), len(states), size).sum(2)
    gain = torch.where(apart > ALIKE, (a.T @ rests).square() / apart, 0.0)
    cost = torch.stack([costs[list(s.columns)].sum() for s in states])
    left = (rests.square().sum(0) - gain).clamp_min(0) / unit + SMALLEST
    merit = len(rests) * left.log() + PENALTY * (costs[:, None] + cost)
    grown = []
    for n in _lowest(merit, 3 * BEAM):
        c, s = divmod(n, len(states))
        new = None if c in states[s].columns else _extended(a, states[s], c)
        grown += [new] if new is not None else []
    return grown
