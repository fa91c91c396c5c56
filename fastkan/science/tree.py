"""plot_tree: draw a function as a tree that shows how its variables combine.

Source: Liu et al., KAN 2.0 (arXiv 2408.10205), section 4.3 and figure 11.
"""

import os
from collections.abc import Callable, Sequence

from torch import Tensor

from ..arguments import number
from ..network.plot.figure import axes_of, check_matplotlib, colours, file_kind, write
from ..network.plot.layout import Row, fit_texts, texts
from .molecule import get_molecule, get_tree_node

STYLES = ("tree", "box")
STEP = 0.9  # inches between levels
BOX = 0.42  # height of a node
SLOT = 0.75  # width of a variable


def plot_tree(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    in_var: Sequence | None = None,
    style: str = "tree",
    sym_th: float = 5e-2,
    sep_th: float = 1e-1,
    skip_sep_test: bool = False,
    verbose: bool = False,
    *,
    path: str | os.PathLike | None = None,
    fig=None,
    ax=None,
):
    """Draw how the variables combine: variables at the bottom, the function at the top.

    Args:
        model: a function with one output, x [N, n] -> [N, 1]; x: representative data.
        in_var: names of the variables, as text or SymPy expressions; x_1, x_2, ... by default.
        style: "tree": branches (blue) join for a function of a sum of functions of them, with a + or x at the top for a
            sum or product, and end in a box for other combinations. "box": boxes only, labelled GS, Add or Mul.
        sym_th, sep_th, verbose: see get_molecule and get_tree_node; skip_sep_test: do not test how variables combine.
        path: the file to write; fig, ax: the figure or axes to draw on; as in KAN.plot.

    Returns the matplotlib Figure. Raises ImportError without matplotlib, ValueError for a wrong argument and if the
    model is not finite.
    """
    check_matplotlib()
    if style not in STYLES:
        raise ValueError(f"style={style!r}: expected one of {', '.join(map(repr, STYLES))}")
    if path is not None:
        file_kind(path)
    molecules = get_molecule(model, x, sym_th, verbose)
    names = texts("in_var", in_var or _default(x.shape[1]), range(x.shape[1]), x.shape[1])
    arities, properties = get_tree_node(model, x, molecules, number("sep_th", sep_th, 0.0), skip_sep_test)
    row = fit_texts(names, 16, SLOT, STEP)
    bottom = row.height + 0.15
    width, height = SLOT * max(2, len(names)), bottom + STEP * (len(molecules) - 1) + 0.05
    axes = axes_of(fig, ax, (width, height))
    artist = _TreeArtist(axes, width / len(names), bottom, style)
    artist.leaves(row, [group[0] for group in molecules[0]])
    for level, kinds in enumerate(properties):
        artist.level(level, molecules[level], molecules[level + 1], kinds)
    if path is not None:
        write(axes.figure.figure, path)
    return axes.figure.figure


class _TreeArtist:
    """Draws lines and boxes, in inches; level l of nodes spans heights bottom + l STEP to bottom + (l + 1) STEP."""

    def __init__(self, axes, slot: float, bottom: float, style: str):
        self.axes, self.slot, self.bottom, self.style = axes, slot, bottom, style
        self.ink = colours(axes.figure).ink
        self.positions: dict[int, float] = {}

    def leaves(self, row: Row, order: list[int]) -> None:
        """The variables, in the order of the tree."""
        for n, variable in enumerate(order):
            self.positions[variable] = (n + 0.5) * self.slot
            self.axes.text(
                self.positions[variable], self.bottom - 0.1, row.texts[variable], fontsize=row.points, ha="center",
                va="top", rotation=90 if row.upright else 0, color=self.ink,
            )  # fmt: skip

    def level(self, level: int, below: list[list[int]], molecules: list[list[int]], kinds: list[str]) -> None:
        """The nodes of a level, with their incoming lines."""
        start = self.bottom + level * STEP
        low, high = start + (STEP - BOX) / 2, start + (STEP + BOX) / 2
        for molecule, kind in zip(molecules, kinds, strict=True):
            parts = [self._x(part) for part in below if set(part) <= set(molecule)]
            centre = self._x(molecule)
            for part in parts:
                self._line((part, start), (part, low))
            if kind == "Id":
                self._line((centre, low), (centre, high))
            elif self.style == "box" or not kind:
                self._box(parts, low, kind)
            else:
                for part in parts:
                    self._line((part, low), (centre, high), "tab:blue")
            if kind in ("Add", "Mul") and self.style == "tree":
                self._sign(centre, high, "+" if kind == "Add" else "×")
            self._line((centre, high), (centre, start + STEP))

    def _x(self, molecule: list[int]) -> float:
        positions = [self.positions[variable] for variable in molecule]
        return (min(positions) + max(positions)) / 2

    def _line(self, start: tuple[float, float], end: tuple[float, float], colour=None) -> None:
        self.axes.plot(*zip(start, end, strict=True), color=colour or self.ink, lw=1.6, solid_capstyle="round")

    def _box(self, parts: list[float], low: float, text: str) -> None:
        from matplotlib.patches import Rectangle

        left, right = min(parts) - 0.3 * self.slot, max(parts) + 0.3 * self.slot
        box = Rectangle((left, low), right - left, BOX, fill=False, edgecolor=self.ink, lw=1.6, gid=f"box {text}")
        self.axes.add_patch(box)
        middle = (left + right) / 2, low + BOX / 2
        self.axes.text(*middle, text, fontsize=12, ha="center", va="center", color=self.ink)

    def _sign(self, x: float, y: float, sign: str) -> None:
        from matplotlib.patches import Circle

        paper = colours(self.axes.figure).paper
        self.axes.add_patch(Circle((x, y), 0.15, facecolor=paper, edgecolor="tab:red", lw=1.6, zorder=3, gid=sign))
        self.axes.text(x, y, sign, fontsize=16, ha="center", va="center_baseline", color="tab:red", zorder=4)


def _default(inputs: int) -> list[str]:
    return [f"$x_{{{n}}}$" for n in range(1, inputs + 1)]
