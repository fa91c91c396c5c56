"""attribute: the share of every node and edge in the outputs, from the scales of get_act.

A node's score is divided among its incoming edges in proportion to their standard deviations; an edge's score goes to
its source node. Source: Liu et al., KAN 2.0 (arXiv 2408.10205), section 4.1. Beyond it, outlier rows and rare input
values are limited to their effect on the outputs, see outliers and rare_inputs.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ...arguments import index
from ..activations import Activations, latest
from .outliers import Outliers, padded_std
from .rare_inputs import limit_scores

if TYPE_CHECKING:
    from ..model import KAN


class Scores(NamedTuple):
    """Lists over layers, with the shares in each of M target nodes.

    nodes[l] [M, width_in[l]], subnodes[l] [M, width_out[l + 1]], edges[l] [M, width_out[l + 1], width_in[l]].
    """

    nodes: list[Tensor]
    subnodes: list[Tensor]
    edges: list[Tensor]


def scores(model: "KAN", record: Activations, last: int, start: Tensor, rows: bool = True) -> Scores:
    """Scores propagated back from the nodes of layer `last`, whose own are start [M, width_in[last]].

    rows: correct for outlier rows and rare input values, see outliers and rare_inputs. Without it, differentiable.
    """
    nodes, subnodes, edges = [start], [], []
    outliers = Outliers.of(model, record, last) if rows else None
    for l in reversed(range(last)):
        groups = zip(nodes[0].split(1, 1), model.subnodes(l + 1), strict=True)
        subnodes.insert(0, torch.cat([node.expand(-1, len(group)) for node, group in groups], 1))
        share = record.edge_actscale[l] / padded_std(record.subnode_actscale[l])[:, None]  # O I
        if outliers is not None:
            share = outliers.shares(l, share, subnodes[0].abs().mean(0))
        edges.insert(0, subnodes[0][:, :, None] * share)
        if rows and 0 == l < last - 1:
            edges[0] = limit_scores(model, record, last, start, edges[0])
        nodes.insert(0, edges[0].sum(1))
    return Scores(nodes, subnodes, edges)


def from_outputs(model: "KAN", record: Activations, rows: bool = True) -> Scores:
    """Scores of all nodes and edges for each output [M = width_in[-1]]."""
    like = record.edge_actscale[-1]
    start = torch.eye(model.width_in[-1], device=like.device, dtype=like.dtype)
    return scores(model, record, model.depth, start, rows)


def from_nodes(model: "KAN", record: Activations, l: int, rows: bool = True) -> Tensor:
    """Scores of the inputs for every node of layer l, starting from the node's own: [width_in[l], width_in[0]]."""
    own = from_outputs(model, record, rows).nodes[l].mean(0)
    return scores(model, record, l, torch.diag(own), rows).nodes[0]


@torch.no_grad()
def attribute(
    model: "KAN", l: int | None = None, i: int | None = None, out_score: Tensor | None = None
) -> Tensor | None:
    """Score every node, subnode and edge by its share in the outputs, on the data of get_act.

    Without arguments the scores are stored as node_scores[l] [width_in[l]], subnode_scores[l], edge_scores[l] [O, I],
    means over the outputs, and for each output as node_scores_all and so on. out_score [width_in[-1]]: weights of the
    outputs. With l, returns the scores of the inputs for the nodes of layer l, [width_in[l], width_in[0]]; with i for
    that node.
    """
    if l is not None:
        of_layer = input_scores(model, l)
        return of_layer if i is None else of_layer[index("i", i, model.width_in[l])]
    record = latest(model)
    if out_score is None:
        model.last_scores = from_outputs(model, record)
        return None
    if list(out_score.shape) != [model.width_in[-1]]:
        raise ValueError(f"out_score has shape {list(out_score.shape)}: expected [{model.width_in[-1]}], the outputs")
    like = record.edge_actscale[-1]
    model.last_scores = scores(model, record, model.depth, torch.diag(out_score.to(like)))
    return None


@torch.no_grad()
def input_scores(model: "KAN", l: int) -> Tensor:
    """Scores of the inputs for the nodes of layer l, [width_in[l], width_in[0]], on the data of get_act."""
    return from_nodes(model, latest(model), index("l", l, model.depth + 1))


def node_attribute(model: "KAN") -> list[Tensor]:
    """attribute(l) of every layer but the inputs: a list, also stored as node_attribute_scores."""
    model.node_attribute_scores = [input_scores(model, l) for l in range(1, model.depth + 1)]
    return model.node_attribute_scores


def feature_score(model: "KAN") -> Tensor:
    """The share of every input in the outputs, [width_in[0]], on the data of get_act."""
    attribute(model)
    return model.node_scores[0]


def feature_interaction(
    model: "KAN", l: int, neuron_th: float = 1e-2, feature_th: float = 1e-2
) -> dict[tuple[int, ...], int]:
    """The sets of inputs that nodes of layer l depend on: {(input, ...): number of nodes}.

    For a node whose largest score exceeds neuron_th, the inputs with more than feature_th times that score.
    """
    counts: dict[tuple[int, ...], int] = {}
    for score in input_scores(model, l):
        top = score.max()
        if top > neuron_th:
            features = tuple((score > top * feature_th).nonzero().flatten().tolist())
            counts[features] = counts.get(features, 0) + 1
    return counts


def lists(field: str, mean: bool) -> property:
    """The property of a model that reads a field of Scores; None before attribute."""

    def read(model: "KAN") -> list[Tensor] | None:
        if model.last_scores is None:
            return None
        values = getattr(model.last_scores, field)
        return [value.mean(0) for value in values] if mean else values

    doc = f"{field} of the last attribute, {'means over the outputs' if mean else 'for each output'}; None before."
    return property(read, doc=doc)
