"""plot_edge: the function of one edge, with the data, the knots and what it is made of."""

import os
from typing import NamedTuple

import torch
from torch import Tensor

from ...arguments import index
from .edge_data import activations
from .figure import colours, file_kind, need_matplotlib, new_figure, write

POINTS = 400  # of a curve, beside its knots
MARKS = 300  # of the data
DATA = 0.05  # the height that they take, a share of the axes'


class Edge(NamedTuple):
    """One edge over its data [N], in order, and its grid range: values at x [P], in float64 on the CPU.

    mode: "n", "s", "ns", or "" where it is off. numeric and base leave the mask out; total is what the network adds up.
    """

    mode: str
    formula: str
    data: Tensor
    knots: Tensor
    x: Tensor
    mask: float
    numeric: Tensor
    base: Tensor
    symbolic: Tensor
    total: Tensor

    def parts(self) -> dict[str, Tensor]:
        """What the function is made of; of a symbolic edge the numeric branch, which is off."""
        if self.mode == "s":
            return {"numeric, off": self.numeric}
        mask = self.mask if self.mode else 1.0
        found = {"base function": mask * self.base, "spline": mask * (self.numeric - self.base)}
        return found | {self.formula: self.symbolic} if self.mode == "ns" else found

    def outside(self) -> float:
        """The share of the data outside the grid range."""
        return ((self.data < self.knots[0]) | (self.data > self.knots[-1])).double().mean().item()


@torch.no_grad()
def plot_edge(
    model: "KAN",
    l: int,
    i: int,
    j: int,
    path: str | os.PathLike | None = None,
    *,
    x: Tensor | None = None,
    parts: bool = False,
    title: str | None = None,
    figsize: tuple[float, float] = (4.8, 3.4),
    ax=None,
):
    """Draw the function on the edge from node i of layer l to subnode j of layer l + 1.

    The curve is black, red or purple as in plot; dashed, as the numeric branch was, where the edge is off. The grid
    range is shaded, fine lines in it are the knots, strokes along the bottom some of the data. The label tells how
    much of the data is outside the grid range.

    Args:
        path: the file to write, of the kind that its suffix names; nothing is written by default.
        x: data [..., in_features], by default what the model has seen (fit, get_act).
        parts: also the base function, the spline and the symbolic function by themselves; of a symbolic edge its
            numeric branch, which is off.
        title: instead of the edge's indices.
        figsize: in inches; ax: matplotlib axes to draw on instead of a new figure.

    Returns:
        The matplotlib Figure, which is not one of pyplot's, see plot.

    Raises ImportError without matplotlib, IndexError where there is no such edge, ValueError where there is no data.
    """
    need_matplotlib()
    if path is not None:
        file_kind(path)
    index("l", l, model.depth)
    edge = _edge(model, l, index("i", i, model.width_in[l]), index("j", j, model.width_out[l + 1]), x)
    axes = new_figure(figsize, "constrained").add_subplot() if ax is None else ax
    if ax is None:
        axes.ticklabel_format(scilimits=(-3, 5), useMathText=True)
        axes.locator_params(axis="x", nbins=5)
    _ground(axes, edge)
    paints = colours(axes.figure)
    colour = paints.mode(edge.mode or "n")
    names = {"": "off", "n": "numeric", "s": edge.formula, "ns": "numeric + symbolic"}
    if edge.mode:
        axes.plot(edge.x, edge.total, color=colour, lw=2, label=names[edge.mode], gid="function")
    else:
        axes.plot(edge.x, edge.numeric, color=colour, lw=2, ls="--", alpha=0.5, label="off", gid="function")
    for style, (name, y) in zip(("--", ":", "-."), edge.parts().items() if parts else (), strict=False):
        axes.plot(
            edge.x,
            y,
            color=paints.mode("s" if name == edge.formula else "n"),
            lw=1.2,
            alpha=0.7,
            ls=style,
            label=name,
            gid=name,
        )
    if parts or edge.mode != "n":
        axes.margins(y=0.2)
        axes.legend(fontsize="small", edgecolor="none", bbox_to_anchor=(0, DATA, 1, 1 - DATA))
    axes.set_title(f"layer {l}, edge {i} → {j}" if title is None else title, loc="left", fontsize="medium")
    axes.set(xlabel=f"input, {100 * edge.outside():.2g} % of it outside the grid", ylabel="output")
    if path is not None:
        write(axes.figure.figure, path)
    return axes.figure.figure


def _ground(axes, edge: Edge) -> None:
    """Grid range, knots and data, behind the curves."""
    ink = colours(axes.figure).ink
    across = axes.get_xaxis_transform()
    axes.axvspan(edge.knots[0], edge.knots[-1], color=ink, alpha=0.06, lw=0, zorder=0, gid="grid range")
    faint = min(0.35, 8 / len(edge.knots))
    axes.vlines(edge.knots, 0, 1, color=ink, alpha=faint, lw=0.5, transform=across, zorder=0.5, gid="knots")
    ranks = torch.linspace(0, len(edge.data) - 1, min(MARKS, len(edge.data))).round().long()
    strength = min(0.8, 40 / len(ranks))
    axes.vlines(edge.data[ranks], 0, DATA, color=ink, alpha=strength, lw=0.8, transform=across, gid="data")
    axes.margins(x=0.03, y=0.1)


def _edge(model: "KAN", l: int, i: int, j: int, data: Tensor | None) -> Edge:
    record = activations(model, data)
    layer, symbols, rows = model.act_fun[l], model.symbolic_fun[l], record.acts[l]
    knots = layer.grid[i, layer.k : layer.k + layer.num + 1].double().cpu()
    seen = rows[:, i].double().cpu().sort().values
    low, high = min(seen[0], knots[0]).item(), max(seen[-1], knots[-1]).item()
    x = torch.cat([torch.linspace(low, high, POINTS, dtype=torch.float64), knots]).sort().values
    columns = x.to(rows)[:, None].expand(-1, model.width_in[l])
    at = torch.tensor([i], device=rows.device), torch.tensor([j], device=rows.device)
    numeric = layer.edge_values(columns, *at, masked=False)[:, 0]
    activation = layer.linear.base_activation
    base = torch.zeros_like(numeric) if activation is None else layer.scale_base[i, j] * activation(columns[:, i])
    mask, symbolic, on = layer.edge_mask[i, j].item(), torch.zeros_like(numeric), False
    if model.symbolic_enabled and bool(symbols.edge_mask[j, i]):
        outputs, inputs, values = symbols.edges(columns, **record.options)
        symbolic, on = values[:, (outputs == j) & (inputs == i)][:, 0], True
    numeric, base, symbolic = (y.double().cpu() for y in (numeric, base, symbolic))
    mode = ("n" if mask else "") + ("s" if on else "")
    return Edge(mode, _formula(symbols, i, j), seen, knots, x, mask, numeric, base, symbolic, mask * numeric + symbolic)


def _formula(symbols, i: int, j: int) -> str:
    """c f(a x + b) + d in numbers."""
    a, b, c, d = symbols.affine[j, i].tolist()
    return f"{factor(c)}f({factor(a)}x{term(b)}){term(d)},  f = {symbols.funs_name[j][i]}"


def factor(value: float) -> str:
    """A number before what it multiplies; nothing for 1."""
    return "" if value == 1.0 else f"{value:.3g} "


def term(value: float) -> str:
    """A number after what it is added to; nothing for 0."""
    return "" if value == 0.0 else f" {'+' if value > 0 else '−'} {abs(value):.3g}"
