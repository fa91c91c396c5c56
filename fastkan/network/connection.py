"""connection_cost: how long a network's wiring is; auto_swap: nodes in the order that makes it short.

Source: Liu et al., Seeing is Believing: Brain-Inspired Modular Training (arXiv 2305.08746).
"""

import torch
from torch import Tensor

from ..arguments import index
from .attribution import attribute
from .edit import rearrange


def places(n: int, like: Tensor) -> Tensor:
    """Where the n nodes, or subnodes, of a layer are: evenly on [0, 1], [n]."""
    return (torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) / n


def distances(ends: Tensor, starts: Tensor) -> Tensor:
    return (ends[:, None] - starts).abs()


@torch.no_grad()
def connection_cost(model) -> Tensor:
    """The lengths of all edges, each times its score: a number.

    Of an edge from node i of I to subnode o of O the length is |(i + 1/2) / I - (o + 1/2) / O|. Scores are those of
    the last attribute, else it runs on the data of get_act.
    """
    return length(_scores(model))


def length(scores: list[Tensor]) -> Tensor:
    """The lengths of edges times their scores, [O, I] for every layer, summed up."""
    return sum((distances(places(e.shape[0], e), places(e.shape[1], e)) * e).sum() for e in scores)


def auto_swap(model) -> None:
    """Reorder the nodes of every hidden layer, from the first to the last, see auto_swap_l. The function stays."""
    for l in range(1, model.depth):
        auto_swap_l(model, l)


@torch.no_grad()
def auto_swap_l(model, l: int) -> None:
    """Swap nodes of hidden layer l, each with the one that lowers connection_cost most, until no swap does.

    Nodes that sum swap with one another, and so do those that multiply equally many subnodes. The function stays.
    """
    if index("l", l, model.depth) == 0:
        raise ValueError(f"l={l}: expected a hidden layer, 1 to {model.depth - 1}")
    scores = _scores(model)
    groups = model.subnodes(l)
    order = list(range(len(groups)))
    n_sum = model.width[l][0]
    kinds = [0 if node < n_sum else len(group) for node, group in enumerate(groups)]
    for kind in set(kinds):
        nodes = [node for node in order if kinds[node] == kind]
        best = settled(costs(scores[l - 1], scores[l], nodes, [groups[node] for node in nodes]))
        for place, node in zip(nodes, [nodes[n] for n in best], strict=True):
            order[place] = node
    if order != sorted(order):
        rearrange(model, l, order)


def costs(into: Tensor, out: Tensor, nodes: list[int], groups: list[list[int]]) -> Tensor:
    """The cost of the edges of each of some nodes, were it in the place of each: [places, nodes].

    into [O, I]: scores of the edges to the layer's subnodes; out [O', nodes of the layer]: of those from its nodes.
    """
    here, there = places(out.shape[1], out), places(out.shape[0], out)
    cost = distances(here[nodes], there) @ out[:, nodes]
    here, there = places(into.shape[0], into), places(into.shape[1], into)
    for factors in zip(*groups, strict=True):  # the first subnode of every node, the second, ...
        chosen = list(factors)
        cost = cost + distances(here[chosen], there) @ into[chosen].T
    return cost.double()


def settled(cost: Tensor) -> list[int]:
    """Which node is in which place: from the present order by the best swap of each place in turn, until none helps."""
    n = len(cost)
    order = torch.arange(n, device=cost.device)
    least = 1e-12 * cost.abs().sum()
    improved = True
    while improved:
        improved = False
        for place in range(n):
            node = order[place]
            every = torch.arange(n, device=cost.device)
            gain = cost[place, node] + cost[every, order] - cost[place, order] - cost[every, node]
            other = gain.argmax()
            if gain[other] > least:
                order[place], order[other] = order[other].clone(), node.clone()
                improved = True
    return order.tolist()


def _scores(model) -> list[Tensor]:
    """Scores of the edges, [O, I] for every layer."""
    if model.edge_scores is None:
        attribute(model)
    return model.edge_scores
