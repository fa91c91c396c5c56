"""Rare input values: inputs that mostly have one value, such as binary ones, are scored by their measured effect.

The function of a rare value is hardly constrained by training, and a large change of a hidden node may have little
effect on the outputs. Such an input is set, row by row, to its most frequent value; the resulting change of the outputs
is an upper bound on its score.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...devices import exact
from ..activations import Activations
from .outliers import padded_std

if TYPE_CHECKING:
    from ..model import KAN

MIN_SHARE = 0.4  # share of the rows that the most frequent value must have
SAMPLE = 4096  # rows from which that value is taken
MAX_ROWS, MIN_ROWS, TOTAL_ROWS = 1024, 32, 1 << 16  # changed rows of an input, of each of many inputs, in all


@torch.no_grad()
def limit_scores(model: "KAN", record: Activations, last: int, start: Tensor, edges: Tensor) -> Tensor:
    """Scores of the first layer's edges [M, O, I], limited for each input to the effect of its rare values on layer
    `last`.

    start [M, width_in[last]]: the scores of that layer's nodes.
    """
    x = record.acts[0]
    usual = x[:: max(1, len(x) // SAMPLE)].median(0).values  # the most frequent value, if most rows have it
    is_rare = x != usual
    share = is_rare.sum(0).cpu().double() / len(x)
    columns = ((share > 0) & (share <= 1 - MIN_SHARE)).nonzero().flatten().tolist()
    if not columns:
        return edges
    size = padded_std(exact(record.acts[last].detach()).std(0))
    total, edges = edges.sum(1), edges.clone()
    for i in columns:
        rows = is_rare[:, i].nonzero().flatten()
        rows = rows[:: -(-len(rows) // min(MAX_ROWS, max(MIN_ROWS, TOTAL_ROWS // len(columns))))]
        change = _effect(model, record, last, rows, i, usual[i]) / size
        part = share[i]  # of the rows; the others change by 0
        variance = part * change.square().mean(0) - (part * change.mean(0)).square()
        std = (variance.clamp_min(0.0) * len(x) / (len(x) - 1)).sqrt()
        bound = (exact(start.abs()) @ std).to(edges)
        edges[..., i] *= torch.where(total[:, i] > bound, bound / total[:, i], 1.0)[:, None]
    return edges


def _effect(model: "KAN", record: Activations, last: int, rows: Tensor, i: int, value: Tensor) -> Tensor:
    """The change of layer `last` when input i is set to this value: [R, width_in[last]]."""
    x = record.acts[0][rows].detach().clone()
    x[:, i] = value
    for l in range(last):
        x = model.nodes(l, model.sums(l, x, **record.options))
    return exact(record.acts[last][rows].detach() - x)
