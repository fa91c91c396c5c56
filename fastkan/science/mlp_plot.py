"""plot: draw an MLP with its weights as lines whose opacity shows their importance."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..arguments import number
from ..devices import exact
from ..network.plot.figure import axes_of, check_matplotlib, colours, file_kind, write
from ..network.plot.layout import fit_texts, texts

if TYPE_CHECKING:
    from .mlp import MLP

METRICS = {"w": "w", "act": "wa_forward", "fa": "wa_backward"}
POSITIVE, NEGATIVE = "#1f5fd0", "#d0361f"


def plot(
    model: "MLP",
    beta: float = 3.0,
    scale: float = 1.0,
    metric: str = "w",
    *,
    in_vars: Sequence | None = None,
    out_vars: Sequence | None = None,
    path: str | os.PathLike | None = None,
    fig=None,
    ax=None,
) -> Any:
    """Draw the network: nodes as dots, weights as lines, positive blue and negative red; inputs at the bottom.

    Args:
        beta: a line's opacity is tanh(beta * |value|).
        scale: of the whole figure.
        metric: the values: "w", the weights; "act", wa_forward; "fa", the scores of attribute; on the data of get_act,
            or cache_data.
        in_vars, out_vars: names, as text or SymPy expressions; path: the file to write; fig, ax: the figure or axes to
            draw on; all as in KAN.plot.

    Returns the matplotlib Figure. Raises ImportError without matplotlib, ValueError for a wrong argument and without
    data.
    """
    check_matplotlib()
    from matplotlib.collections import LineCollection

    if metric not in METRICS:
        raise ValueError(f"metric={metric!r}: expected one of {', '.join(map(repr, METRICS))}")
    if path is not None:
        file_kind(path)
    beta, scale = number("beta", beta, 0.0), number("scale", scale, 0.0)
    names = [texts("in_vars", in_vars, range(model.width[0]), model.width[0])]
    names.append(texts("out_vars", out_vars, range(model.width[-1]), model.width[-1]))
    if metric != "w" and model.acts is None:
        model.get_act()
    if metric == "fa":
        model.attribute()
    width, step = 3 * scale, 1.5 * scale
    rows = [
        fit_texts(row, 14 * scale, width / n, step) for row, n in zip(names, model.width[:: model.depth], strict=True)
    ]
    bottom = rows[0].height + 0.15 * scale
    height = bottom + model.depth * step + rows[1].height + 0.15 * scale
    axes = axes_of(fig, ax, (width, height))
    ink = colours(axes.figure).ink
    nodes = [[((i + 0.5) / n * width, bottom + l * step) for i in range(n)] for l, n in enumerate(model.width)]
    for l, values in enumerate(getattr(model, METRICS[metric])):
        values = exact(values.detach()).cpu()
        opacity = torch.tanh(beta * values.abs()).flatten().tolist()
        lines = [(above, below) for above in nodes[l + 1] for below in nodes[l]]
        signs = [POSITIVE if value > 0 else NEGATIVE for value in values.flatten().tolist()]
        axes.add_collection(LineCollection(lines, colors=signs, alpha=opacity, linewidths=scale, gid=f"weights-{l}"))
    size = (2 * 72 * min(0.08 * scale, 0.3 * width / max(model.width))) ** 2 / 4
    every = [point for layer in nodes for point in layer]
    axes.scatter(*zip(*every, strict=True), s=size, color=[ink], zorder=3, gid="nodes")
    for row, points, side in ((rows[0], nodes[0], -1), (rows[1], nodes[-1], 1)):
        for text, (x, y) in zip(row.texts, points, strict=False):
            axes.text(
                x, y + side * 0.12 * scale, text, fontsize=row.points, ha="center", va="top" if side < 0 else "bottom",
                rotation=90 if row.upright else 0,
            )  # fmt: skip
    if path is not None:
        write(axes.figure.figure, path)
    return axes.figure.figure
