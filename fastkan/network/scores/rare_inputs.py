"""Inputs that mostly have one value, rare and binary ones: what they do to the outputs is measured.

A network is free in what it makes of a value that is rare, and hidden nodes carry much of which little arrives. Such an
input is switched, row by row, to the value that it mostly has; what that changes is the most it can account for.
"""

import torch
from torch import Tensor

from .outliers import guarded

MOSTLY = 0.4  # the share of rows from which a value is what an input mostly has
LOOKED_AT = 4096  # rows in which that value is looked for
MOST, LEAST, ROWS = 1024, 32, 1 << 16  # rows that are switched: of an input, of one among many, and in all


@torch.no_grad()
def bounded(model, record, last: int, start: Tensor, edges: Tensor) -> Tensor:
    """Scores of the first layer's edges [M, O, I], with no more from an input than switching it does to layer `last`.

    start [M, width_in[last]]: the scores of that layer's nodes.
    """
    x = record.acts[0]
    usual = x[:: max(1, len(x) // LOOKED_AT)].median(0).values  # which is the value of more than half of the rows
    switched = x != usual
    share = switched.double().mean(0)
    columns = ((share > 0) & (share <= 1 - MOSTLY)).nonzero().flatten().tolist()
    if not columns:
        return edges
    size = guarded(record.acts[last].detach().double().std(0))
    found, edges = edges.sum(1), edges.clone()
    for i in columns:
        rows = switched[:, i].nonzero().flatten()
        rows = rows[:: -(-len(rows) // min(MOST, max(LEAST, ROWS // len(columns))))]
        change = _changes(model, record, last, rows, i, usual[i]) / size
        part = share[i]  # of the rows; the others change by 0
        variance = part * change.square().mean(0) - (part * change.mean(0)).square()
        std = (variance.clamp_min(0.0) * len(x) / (len(x) - 1)).sqrt()
        bound = (start.abs().double() @ std).to(edges)
        edges[..., i] *= torch.where(found[:, i] > bound, bound / found[:, i], 1.0)[:, None]
    return edges


def _changes(model, record, last: int, rows: Tensor, i: int, value: Tensor) -> Tensor:
    """What input i at this value changes in layer `last`: [R, width_in[last]]."""
    x = record.acts[0][rows].detach().clone()
    x[:, i] = value
    for l in range(last):
        x = model.nodes(l, model.sums(l, x, **record.options))
    return (record.acts[last][rows].detach() - x).double()
