"""Pruning: nodes, edges and inputs that account for little of the outputs are taken away.

Everything is scored by attribute on the data of get_act, or on x. The pruned model is the original with the edges of
what was pruned switched off, to rounding.
"""

import copy

import torch
from torch import Tensor

from ..arguments import indices, integer
from .edit import rearrange


def prune_node(
    model,
    threshold: float = 1e-2,
    mode: str = "auto",
    active_neurons_id: list | None = None,
    *,
    count: int | None = None,
    x: Tensor | None = None,
):
    """A copy of the model without the hidden nodes whose score is not above the threshold.

    active_neurons_id: instead, the nodes to keep in every hidden layer (mode="manual"); count: instead, how many to
    keep in every hidden layer, those of the highest scores.

    Raises ValueError where a layer would lose all its nodes.
    """
    if mode not in ("auto", "manual") or (mode == "manual" and active_neurons_id is None):
        raise ValueError(f"mode={mode!r}: expected 'auto', or 'manual' with active_neurons_id")
    pruned = _scored(model, x, active_neurons_id is None)
    if active_neurons_id is None:
        hidden = pruned.node_scores[1:-1]
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
    model,
    threshold: float = 1e-2,
    active_inputs: list[int] | None = None,
    *,
    count: int | None = None,
    x: Tensor | None = None,
):
    """A copy of the model without the inputs whose score is not above the threshold; or with active_inputs alone.

    It still takes the same x and reads only the columns input_id of it. count: instead, how many inputs to keep.
    """
    pruned = _scored(model, x, active_inputs is None)
    if active_inputs is None:
        keep = _above(pruned.node_scores[0], threshold, count, "the inputs")
    else:
        keep = indices("active_inputs", active_inputs, model.width_in[0])
        if not keep:
            raise ValueError(f"active_inputs={active_inputs!r}: expected at least one input")
    rearrange(pruned, 0, keep)
    return pruned


@torch.no_grad()
def prune_edge(model, threshold: float = 3e-2, *, count: int | None = None, x: Tensor | None = None) -> None:
    """Switch off, in place and in both branches, the edges whose score is not above the threshold.

    count: instead, how many edges to keep in the whole network: those of the best path from the inputs to every output,
    and then the ones of the highest scores.

    Raises ValueError where these paths have more edges than count.
    """
    _score(model, x)
    scores = [score.T for score in model.edge_scores]  # I O
    keep = [score > threshold for score in scores] if count is None else _best(model, scores, count)
    for numeric, symbolic, kept in zip(model.act_fun, model.symbolic_fun, keep, strict=True):
        numeric.mask *= kept
        symbolic.mask *= kept.T
    model.forget()


def prune(model, node_th: float = 1e-2, edge_th: float = 3e-2, *, x: Tensor | None = None):
    """A copy of the model without hidden nodes, and then without edges, of scores not above these thresholds."""
    pruned = prune_node(model, node_th, x=x)
    prune_edge(pruned, edge_th)
    return pruned


def _best(model, scores: list[Tensor], count: int) -> list[Tensor]:
    """Which edges to keep, [I, O] of every layer."""
    paths = torch.cat([path.flatten() for path in _paths(model, scores)])
    needed, count = int(paths.sum()), integer("count", count, 1)
    if count < needed:
        raise ValueError(f"count={count}: expected at least {needed}, the edges of the best path to every output")
    every = torch.cat([score.flatten() for score in scores]).masked_fill(paths, torch.inf)
    keep = torch.zeros_like(paths)
    keep[every.topk(min(count, len(every))).indices] = True
    parts = keep.split([score.numel() for score in scores])
    return [part.view_as(score) for part, score in zip(parts, scores, strict=True)]


def _paths(model, scores: list[Tensor]) -> list[Tensor]:
    """The edges, [I, O] of every layer, by which every output depends on an input with the largest sum of scores.

    A multiplication needs a path to each of its factors. Outputs that no path leads to have none.
    """
    best, value = [], scores[0].new_zeros(len(scores[0]))
    for l, score in enumerate(scores):
        off = (model.act_fun[l].edge_mask == 0) & (model.symbolic_fun[l].edge_mask.T == 0)
        top, source = (value[:, None] + score.masked_fill(off, -torch.inf)).max(0)
        best.append(source)
        value = torch.stack([top[group].sum() for group in model.subnodes(l + 1)])
    paths, wanted = [], (value > -torch.inf).tolist()
    for l in reversed(range(model.depth)):
        ends = [subnode for node, group in enumerate(model.subnodes(l + 1)) if wanted[node] for subnode in group]
        path = torch.zeros_like(scores[l], dtype=torch.bool)
        path[best[l][ends], ends] = True
        paths.insert(0, path)
        wanted = path.any(1).tolist()
    return paths


def _score(model, x: Tensor | None) -> None:
    model.get_act(x)
    model.attribute()


def _scored(model, x: Tensor | None, wanted: bool):
    copied = copy.deepcopy(model)
    if wanted:
        _score(copied, x)
    elif x is not None:
        copied.cache_data = x
    return copied


def _above(score: Tensor, threshold: float, count: int | None, where: str) -> list[int]:
    if count is not None:
        return sorted(score.topk(min(integer("count", count, 1), len(score))).indices.tolist())
    keep = (score > threshold).nonzero().flatten().tolist()
    if not keep:
        top = score.max().item()
        raise ValueError(f"threshold={threshold!r}: expected less than the largest score of {where}, {top:.3g}")
    return keep
