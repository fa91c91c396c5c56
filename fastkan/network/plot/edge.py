"""plot_edge: the function of one edge, with the data, the knots and its parts."""

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..layers.shape import check_edge
from .edge_data import activations
from .figure import check_matplotlib, colours, file_kind, new_figure, write
from .numbers import digits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..layers.symbolic import SymbolicLayer
    from ..model import KAN

POINTS = 400  # of a curve, beside its knots
MARKS = 300  # rows of data that are marked
MARK_HEIGHT = 0.05  # of the height of the axes


class Edge(NamedTuple):
    """One edge: its data [N], ascending, its knots, and values at x [P], in float64 on the CPU.

    mode: "n", "s", "ns", or "" where it is off. numeric and base are without the mask; total is the edge's output.
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
        """The summands of the function; for a symbolic edge the numeric branch, which is off."""
        if self.mode == "s":
            return {"numeric, off": self.numeric}
        mask = self.mask if self.mode else 1.0
        parts = {"base function": mask * self.base, "spline": mask * (self.numeric - self.base)}
        return parts | {self.formula: self.symbolic} if self.mode == "ns" else parts

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
    ax: Any = None,
) -> "Figure":
    """Draw the function on the edge from node i of layer l to subnode j of layer l + 1.

    The curve is black, red or purple as in plot; for an edge that is off, dashed, its numeric branch. The grid range is
    shaded, fine lines are the knots, marks at the bottom some of the data. The label shows the share of the data
    outside the grid range.

    Args:
        path: the file to write, in the format of its suffix; nothing is written by default.
        x: data [..., in_features], by default the model's cache_data (from fit or get_act).
        parts: also draw the base function, the spline and the symbolic function separately; for a symbolic edge its
            numeric branch, which is off.
        title: instead of the edge's indices.
        figsize: in inches; ax: matplotlib axes to draw on instead of a new figure.

    Returns:
        The matplotlib Figure, which is not registered with pyplot, see plot.

    Raises ImportError without matplotlib, IndexError where there is no such edge, ValueError without data.
    """
    check_matplotlib()
    if path is not None:
        file_kind(path)
    check_edge(model, l, i, j)
    edge = _edge(model, l, i, j, x)
    axes = new_figure(figsize, "constrained").add_subplot() if ax is None else ax
    if ax is None:
        axes.ticklabel_format(scilimits=(-3, 5), useMathText=True)
        axes.locator_params(axis="x", nbins=5)
    _background(axes, edge)
    paints = colours(axes.figure)
    colour = paints.mode(edge.mode or "n")
    names = {"": "off", "n": "numeric", "s": edge.formula, "ns": "numeric + symbolic"}
    if edge.mode:
        axes.plot(edge.x, edge.total, color=colour, lw=2, label=names[edge.mode], gid="function")
    else:
        axes.plot(edge.x, edge.numeric, color=colour, lw=2, ls="--", alpha=0.5, label="off", gid="function")
    for style, (name, y) in zip(("--", ":", "-."), edge.parts().items() if parts else (), strict=False):
        colour = paints.mode("s" if name == edge.formula else "n")
        axes.plot(edge.x, y, color=colour, lw=1.2, alpha=0.7, ls=style, label=name, gid=name)
    if parts or edge.mode != "n":
        axes.margins(y=0.2)
        axes.legend(fontsize="small", edgecolor="none", bbox_to_anchor=(0, MARK_HEIGHT, 1, 1 - MARK_HEIGHT))
    axes.set_title(f"layer {l}, edge {i} → {j}" if title is None else title, loc="left", fontsize="medium")
    axes.set(xlabel=f"input, {100 * edge.outside():.2g} % of it outside the grid", ylabel="output")
    if path is not None:
        write(axes.figure.figure, path)
    return axes.figure.figure


def _background(axes: Any, edge: Edge) -> None:
    """The grid range, knots and data, behind the curves."""
    ink = colours(axes.figure).ink
    across = axes.get_xaxis_transform()
    axes.axvspan(edge.knots[0], edge.knots[-1], color=ink, alpha=0.06, lw=0, zorder=0, gid="grid range")
    faint = min(0.35, 8 / len(edge.knots))
    axes.vlines(edge.knots, 0, 1, color=ink, alpha=faint, lw=0.5, transform=across, zorder=0.5, gid="knots")
    ranks = torch.linspace(0, len(edge.data) - 1, min(MARKS, len(edge.data)), device="cpu").round().long()
    strength = min(0.8, 40 / len(ranks))
    axes.vlines(edge.data[ranks], 0, MARK_HEIGHT, color=ink, alpha=strength, lw=0.8, transform=across, gid="data")
    axes.margins(x=0.03, y=0.1)


def _edge(model: "KAN", l: int, i: int, j: int, data: Tensor | None) -> Edge:
    record = activations(model, data)
    layer, symbolic_layer, rows = model.act_fun[l], model.symbolic_fun[l], record.acts[l]
    knots = layer.linear.exact_knots[i, layer.k : layer.k + layer.num + 1].cpu()
    inputs = rows[:, i].cpu().double().sort().values
    low, high = min(inputs[0].item(), knots[0].item()), max(inputs[-1].item(), knots[-1].item())
    x = torch.cat([torch.linspace(low, high, POINTS, dtype=torch.float64, device="cpu"), knots]).sort().values
    columns = x.to(rows)[:, None].expand(-1, model.width_in[l])
    at = torch.tensor([i], device=rows.device), torch.tensor([j], device=rows.device)
    numeric = layer.edge_values(columns, *at, masked=False)[:, 0]
    activation = layer.linear.base_activation
    base = torch.zeros_like(numeric) if activation is None else layer.scale_base[i, j] * activation(columns[:, i])
    mask, symbolic, on = layer.edge_mask[i, j].item(), torch.zeros_like(numeric), False
    if model.symbolic_enabled and bool(symbolic_layer.edge_mask[j, i]):
        to, source, values = symbolic_layer.edges(columns, **record.options)
        symbolic, on = values[:, (to == j) & (source == i)][:, 0], True
    numeric, base, symbolic = (y.cpu().double() for y in (numeric, base, symbolic))
    mode = ("n" if mask else "") + ("s" if on else "")
    total = mask * numeric + symbolic
    formula = _formula(symbolic_layer, i, j, x, symbolic)
    return Edge(mode, formula, inputs, knots, x, mask, numeric, base, symbolic, total)


def _formula(layer: "SymbolicLayer", i: int, j: int, x: Tensor, y: Tensor) -> str:
    """c f(a x + b) + d in numbers, with the digits that the ranges of x and y ask for."""
    a, b, c, d = layer.affine[j, i].tolist()
    inside, outside = formula_digits((c, d), (x.min().item(), x.max().item()), (y.min().item(), y.max().item()))
    inner, outer = f"f({factor(a, inside)}x{term(b, inside)})", (factor(c, outside), term(d, outside))
    return f"{outer[0]}{inner}{outer[1]},  f = {layer.funs_name[j][i]}"


def formula_digits(outer: tuple[float, float], x: tuple[float, float], y: tuple[float, float]) -> tuple[int, int]:
    """Digits of a and b, and of c and d, in c f(a x + b) + d: outer = (c, d), for the ranges of x and of the values."""
    return digits(max(map(abs, x)), x[1] - x[0]), digits(max(map(abs, outer)), y[1] - y[0])


def factor(value: float, places: int = 3) -> str:
    """A number as a factor, with a space after it; empty for 1."""
    return "" if value == 1.0 else f"{value:.{places}g} "


def term(value: float, places: int = 3) -> str:
    """A number as a summand, with its sign before it; empty for 0."""
    return "" if value == 0.0 else f" {'+' if value > 0 else '−'} {abs(value):.{places}g}"
