"""attribute: how much of the outputs every node and edge accounts for, from the sizes that get_act keeps.

A node's score goes to the edges into it in proportion to their standard deviations, and an edge's to the node it comes
from. Source: Liu et al., KAN 2.0 (arXiv 2408.10205), section 4.1. Beside it, a few
rows and rare inputs do not count for more than arrives of them: outlying and switched.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ...arguments import index
from .outliers import Outlying, guarded
from .rare_inputs import bounded


class Scores(NamedTuple):
    """Lists over layers, for every node m that the scores start from: its share in theirs.

    nodes[l] [M, width_in[l]], subnodes[l] [M, width_out[l + 1]], edges[l] [M, width_out[l + 1], width_in[l]].
    """

    nodes: list[Tensor]
    subnodes: list[Tensor]
    edges: list[Tensor]


def scores(model, record, last: int, start: Tensor, rows: bool = True) -> Scores:
    """Scores back from the nodes of layer `last`, which start with start [M, width_in[last]].

    rows: look at rows where a node is far out, and at inputs that mostly have one value, see outlying and switched.
    Without, differentiable.
    """
    nodes, subnodes, edges = [start], [], []
    far = Outlying.of(model, record, last) if rows else None
    for l in reversed(range(last)):
        owner = [node for node, group in enumerate(model.subnodes(l + 1)) for _ in group]
        subnodes.insert(0, nodes[0][:, owner])
        share = record.edge_actscale[l] / guarded(record.subnode_actscale[l])[:, None]  # O I
        if far is not None:
            share = far.shares(l, share, subnodes[0].abs().mean(0))
        edges.insert(0, subnodes[0][:, :, None] * share)
        if rows and 0 == l < last - 1:
            edges[0] = bounded(model, record, last, start, edges[0])
        nodes.insert(0, edges[0].sum(1))
    return Scores(nodes, subnodes, edges)


def from_outputs(model, record, rows: bool = True) -> Scores:
    """Scores of everything, for each output [M = width_in[-1]]."""
    like = record.edge_actscale[-1]
    start = torch.eye(model.width_in[-1], device=like.device, dtype=like.dtype)
    return scores(model, record, model.depth, start, rows)


def from_nodes(model, record, l: int, rows: bool = True) -> Tensor:
    """Scores of the inputs for every node of layer l, each starting with its own: [width_in[l], width_in[0]]."""
    own = from_outputs(model, record, rows).nodes[l].mean(0)
    return scores(model, record, l, torch.diag(own), rows).nodes[0]


@torch.no_grad()
def attribute(model, l: int | None = None, i: int | None = None, out_score: Tensor | None = None) -> Tensor | None:
    """Score every node, subnode and edge by its share in the outputs, on the data of get_act.

    Without arguments the scores are kept as node_scores[l] [width_in[l]], subnode_scores[l], edge_scores[l] [O, I], the
    means over the outputs, and for each output as node_scores_all and so on. out_score [width_in[-1]]: weights of the
    outputs. With l, returns the scores of the inputs for the nodes of layer l, [width_in[l], width_in[0]]; with i for
    that node.
    """
    if model._record is None:
        model.get_act()
    if l is not None:
        found = from_nodes(model, model._record, index("l", l, model.depth + 1))
        return found if i is None else found[index("i", i, model.width_in[l])]
    if out_score is None:
        model._scores = from_outputs(model, model._record)
        return None
    if list(out_score.shape) != [model.width_in[-1]]:
        raise ValueError(f"out_score has shape {list(out_score.shape)}: expected [{model.width_in[-1]}], the outputs")
    like = model._record.edge_actscale[-1]
    model._scores = scores(model, model._record, model.depth, torch.diag(out_score.to(like)))
    return None


@torch.no_grad()
def node_attribute(model) -> list[Tensor]:
    """attribute(l) of every layer but the inputs: a list, also kept as node_attribute_scores."""
    model.node_attribute_scores = [attribute(model, l) for l in range(1, model.depth + 1)]
    return model.node_attribute_scores


def feature_score(model) -> Tensor:
    """The share of every input in the outputs, [width_in[0]], on the data of get_act."""
    attribute(model)
    return model.node_scores[0]


def feature_interaction(model, l: int, neuron_th: float = 1e-2, feature_th: float = 1e-2) -> dict[tuple[int, ...], int]:
    """Which inputs the nodes of layer l depend on: {(input, ...): number of nodes}.

    Of a node whose largest score exceeds neuron_th, the inputs with more than feature_th times that score.
    """
    found: dict[tuple[int, ...], int] = {}
    for score in attribute(model, l):
        top = score.max()
        if top > neuron_th:
            features = tuple((score > top * feature_th).nonzero().flatten().tolist())
            found[features] = found.get(features, 0) + 1
    return found


def kept(field: str, mean: bool) -> property:
    """A property of the model that reads Scores; None before attribute."""

    def read(model):
        if model._scores is None:
            return None
        values = getattr(model._scores, field)
        return [value.mean(0) for value in values] if mean else values

    doc = f"{field} of the last attribute, {'means over the outputs' if mean else 'for each output'}; None before."
    return property(read, doc=doc)
