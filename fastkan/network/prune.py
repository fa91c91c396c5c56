"""Pruning: nodes, edges and inputs with low scores are removed.

Scores are those of attribute on the data of get_act, or on x. Up to rounding, the pruned model computes the same as the
original with the pruned edges switched off.
"""

import copy
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from ..arguments import indices, integer
from ..devices import on_host
from .edit import rearrange
from .layers.shape import edges_on

if TYPE_CHECKING:
    from .model import KAN

Model = TypeVar("Model", bound="KAN")


def prune_node(
    model: Model,
    threshold: float = 1e-2,
    mode: str = "auto",
    active_neurons_id: list | None = None,
    *,
    count: int | None = None,
    x: Tensor | None = None,
) -> Model:
    """A copy of the model without the hidden nodes whose score is at most the threshold.

    active_neurons_id: instead, the nodes to keep in every hidden layer (mode="manual"); count: instead, the number of
    nodes to keep in every hidden layer, those with the highest scores.

    Raises ValueError where a layer would lose all its nodes.
    """
    if mode not in ("auto", "manual") or (mode == "manual" and active_neurons_id is None):
        raise ValueError(f"mode={mode!r}: expected 'auto', or 'manual' with active_neurons_id")
    pruned = _scored_copy(model, x, active_neurons_id is None)
    if active_neurons_id is None:
        hidden = on_host(*pruned.node_scores[1:-1])
        keep = [_above(score, threshold, count, f"layer {l}") for l, score in enumerate(hidden, 1)]
    else:
        if len(active_neurons_id) != model.depth - 1:
            raise ValueError(f"active_neurons_id={active_neurons_id!r}: expected a list for each hidden layer")
        keep = [
            sorted(indices(f"active_neurons_id[{l}]", nodes, model.width_in[l + 1]))
            for l, nodes in enumerate(active_neurons_id)
        ]
        if not all(keep):
            raise ValueError(f"active_neurons_id={active_neurons_id!r}: expected at least one node for each layer")
    for l, nodes in enumerate(keep, 1):
        if len(nodes) < model.width_in[l]:
            rearrange(pruned, l, nodes)
    return pruned


def prune_input(
    model: Model,
    threshold: float = 1e-2,
    active_inputs: list[int] | None = None,
    *,
    count: int | None = None,
    x: Tensor | None = None,
) -> Model:
    """A copy of the model without the inputs whose score is at most the threshold; or with active_inputs only.

    It takes the same x as before and reads its columns input_id only. count: instead, the number of inputs to keep.
    """
    pruned = _scored_copy(model, x, active_inputs is None)
    if active_inputs is None:
        keep = _above(pruned.node_scores[0], threshold, count, "the inputs")
    else:
        keep = indices("active_inputs", active_inputs, model.width_in[0])
        if not keep:
            raise ValueError(f"active_inputs={active_inputs!r}: expected at least one input")
    rearrange(pruned, 0, keep)
    return pruned


@torch.no_grad()
def prune_edge(model: "KAN", threshold: float = 3e-2, *, count: int | None = None, x: Tensor | None = None) -> None:
    """Switch off, in place and in both branches, the edges whose score is at most the threshold.

    count: instead, the number of edges to keep in the whole network: those on the best path from the inputs to every
    output, then those with the highest scores.

    Raises ValueError where these paths have more edges than count.
    """
    _score(model, x)
    scores = [score.T for score in model.edge_scores]  # I O
    keep = [score > threshold for score in scores] if count is None else _best(model, scores, count)
    for numeric, symbolic, on in zip(model.act_fun, model.symbolic_fun, keep, strict=True):
        numeric.mask *= on
        symbolic.mask *= on.T
    model.forget()


def prune(model: Model, node_th: float = 1e-2, edge_th: float = 3e-2, *, x: Tensor | None = None) -> Model:
    """A copy of the model without the hidden nodes, and then the edges, whose scores are at most these thresholds."""
    pruned = prune_node(model, node_th, x=x)
    prune_edge(pruned, edge_th)
    return pruned


def _best(model: "KAN", scores: list[Tensor], count: int) -> list[Tensor]:
    """The mask [I, O] of every layer that keeps the `count` best edges, see prune_edge."""
    paths = torch.cat([path.flatten() for path in _paths(model, scores)])
    needed, count = int(paths.sum()), integer("count", count, 1)
    if count < needed:
        raise ValueError(f"count={count}: expected at least {needed}, the edges of the best path to every output")
    every = torch.cat([score.flatten() for score in scores]).masked_fill(paths, torch.inf)
    keep = torch.zeros_like(paths)
    keep[every.topk(min(count, len(every))).indices] = True
    parts = keep.split([score.numel() for score in scores])
    return [part.view_as(score) for part, score in zip(parts, scores, strict=True)]


def _paths(model: "KAN", scores: list[Tensor]) -> list[Tensor]:
    """Masks [I, O] of the path with the largest sum of scores from an input to every output.

    A multiplication needs a path to each of its factors. Outputs that no input reaches have none.
    """
    best, value = [], scores[0].new_zeros(len(scores[0]))
    for l, score in enumerate(scores):
        top, source = (value[:, None] + score.masked_fill(~edges_on(model, l), -torch.inf)).max(0)
        best.append(source)
        value = torch.stack([top[group].sum() for group in model.subnodes(l + 1)])
    paths, on_path = [], (value > -torch.inf).tolist()
    for l in reversed(range(model.depth)):
        ends = [subnode for node, group in enumerate(model.subnodes(l + 1)) if on_path[node] for subnode in group]
        path = torch.zeros_like(scores[l], dtype=torch.bool)
        path[best[l][ends], ends] = True
        paths.insert(0, path)
        on_path = path.any(1).tolist()
    return paths


def _score(model: "KAN", x: Tensor | None) -> None:
    model.get_act(x)
    model.attribute()


def _scored_copy(model: Model, x: Tensor | None, needs_scores: bool) -> Model:
    copied = copy.deepcopy(model)
    if needs_scores:
        _score(copied, x)
    elif x is not None:
        copied.cache_data = x
    return copied


def _above(score: Tensor, threshold: float, count: int | None, where: str) -> list[int]:
    """The indices of the scores above the threshold, or of the `count` highest, ascending."""
    if count is not None:
        return sorted(score.topk(min(integer("count", count, 1), len(score))).indices.tolist())
    keep = [node for node, above in enumerate((score > threshold).tolist()) if above]
    if not keep:
        top = score.max().item()
        raise ValueError(f"threshold={threshold!r}: expected less than the largest score of {where}, {top:.3g}")
    return keep
