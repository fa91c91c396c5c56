"""Figures created without pyplot and its global state, in the colours of the user's style, and written atomically."""

import io
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..checkpoint import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 200  # of bitmap files


class Colours(NamedTuple):
    """The colours of a drawing, chosen for its background."""

    ink: tuple
    paper: tuple
    symbolic: tuple
    both: tuple

    def mode(self, mode: str) -> tuple:
        """The colour of an edge that is numeric, "n", symbolic, "s", or both, "ns"."""
        return {"n": self.ink, "s": self.symbolic, "ns": self.both}[mode]

    def faded(self, opacity: float, mode: str = "n") -> tuple:
        """The opaque colour of an edge's mode at this opacity on the paper: lines that cross add nothing up."""
        colour = self.mode(mode)
        return (*(opacity * a + (1 - opacity) * b for a, b in zip(colour[:3], self.paper[:3], strict=True)), 1.0)


def check_matplotlib() -> None:
    """ImportError with how to install matplotlib where it is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(f"plots need matplotlib ({error}): pip install matplotlib") from error


def new_figure(size: tuple[float, float], layout: Literal["constrained"] | None = None) -> "Figure":
    """An empty matplotlib Figure, size in inches, not registered with pyplot; notebooks show it."""
    from matplotlib.figure import Figure

    figure = Figure(size, layout=layout)
    figure.__dict__["_repr_png_"] = partial(_png, figure)
    return figure


def axes_of(figure: Any, axes: Any, size: tuple[float, float]) -> Any:
    """Axes in units of inches with this size: the given ones, or new ones on the given figure or a new one."""
    if axes is None:
        axes = (new_figure(size) if figure is None else figure).add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, size[0]), ylim=(0, size[1]), aspect="equal")
    axes.set_axis_off()
    return axes


def colours(figure: Any) -> Colours:
    """The text colour with red and purple as in pykan on a light figure, with lighter ones on a dark figure."""
    from matplotlib import rcParams
    from matplotlib.colors import to_rgba

    paper, ink = to_rgba(figure.get_facecolor()), to_rgba(rcParams["text.color"])
    if paper[3] < 0.5:  # transparent: take the background for which the text colour was chosen
        paper = (*((1.0,) * 3 if _luminance(ink) < 0.5 else (0.0,) * 3), paper[3])
    if _luminance(paper) < 0.4:
        symbolic, both = "#ff6b6b", "#c792ff"
    else:
        symbolic, both = "red", "purple"
    return Colours(ink, paper, to_rgba(symbolic), to_rgba(both))


def write(figure: Any, path: str | os.PathLike) -> None:
    """Write the figure to a file in the format of its suffix: .pdf, .svg, .png, ...

    An existing file is replaced when the new one is complete. Raises as file_kind, and OSError.
    """
    kind = file_kind(path)
    with atomic_write(path) as file:
        figure.savefig(file, format=kind, dpi=DPI, facecolor=figure.get_facecolor())


def file_kind(path: str | os.PathLike) -> str:
    """The format of a path's suffix. ValueError where matplotlib can't write it."""
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = FigureCanvasBase.get_supported_filetypes()
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in kinds:
        known = ", ".join(f".{name}" for name in sorted(kinds))
        raise ValueError(f"path={str(path)!r}: expected a file whose suffix is one of {known}")
    return kind


def _png(figure: Any) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI, facecolor=figure.get_facecolor())
    return picture.getvalue()


def _luminance(colour: tuple) -> float:
    return 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]
