"""Figures: made without pyplot and its global state, in the colours of the user's style, written in one piece."""

import io
import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..checkpoint import atomic_write

DPI = 200  # of pictures in pixels


class Colours(NamedTuple):
    """What a drawing is made of, to be seen on its background."""

    ink: tuple
    paper: tuple
    symbolic: tuple
    both: tuple

    def mode(self, mode: str) -> tuple:
        """The colour of an edge that is numeric, "n", symbolic, "s", or both, "ns"."""
        return {"n": self.ink, "s": self.symbolic, "ns": self.both}[mode]

    def faded(self, opacity: float) -> tuple:
        """The ink at that opacity on the paper, as a colour that hides what lies behind."""
        return (*(opacity * a + (1 - opacity) * b for a, b in zip(self.ink[:3], self.paper[:3], strict=True)), 1.0)


def need_matplotlib() -> None:
    """Raises ImportError, with what to install, where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(f"plots need matplotlib ({error}): pip install fastkan[plot]") from error


def new_figure(size: tuple[float, float], layout: str | None = None):
    """An empty matplotlib Figure, size in inches, that pyplot knows nothing of; notebooks show it."""
    from matplotlib.figure import Figure

    figure = Figure(size, layout=layout)
    figure._repr_png_ = partial(_png, figure)
    return figure


def axes_of(figure, axes, size: tuple[float, float]):
    """Axes to draw on that measure size in inches: those given, or new ones on the figure given, or on a new one."""
    if axes is None:
        axes = (new_figure(size) if figure is None else figure).add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, size[0]), ylim=(0, size[1]), aspect="equal")
    axes.set_axis_off()
    return axes


def colours(figure) -> Colours:
    """pykan's black, red and purple where the figure is light; the text's colour and lighter ones where it is dark."""
    from matplotlib import rcParams
    from matplotlib.colors import to_rgba

    paper, ink = to_rgba(figure.get_facecolor()), to_rgba(rcParams["text.color"])
    if paper[3] < 0.5:  # nothing is behind: what the ink was chosen for
        paper = (*((1.0,) * 3 if _luminance(ink) < 0.5 else (0.0,) * 3), paper[3])
    if _luminance(paper) < 0.4:
        symbolic, both = "#ff6b6b", "#c792ff"
    else:
        symbolic, both = "red", "purple"
    return Colours(ink, paper, to_rgba(symbolic), to_rgba(both))


def write(figure, path: str | os.PathLike) -> None:
    """Write the figure to a file, of the kind that its suffix names: .pdf, .svg, .png, ...

    A file that is there stays as it was until the new one is whole. Raises as file_kind, and OSError.
    """
    kind = file_kind(path)
    with atomic_write(path) as file:
        figure.savefig(file, format=kind, dpi=DPI, facecolor=figure.get_facecolor())


def file_kind(path: str | os.PathLike) -> str:
    """The kind of file that a path's suffix names. Raises ValueError where matplotlib can't write it."""
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = FigureCanvasBase.get_supported_filetypes()
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in kinds:
        known = ", ".join(f".{name}" for name in sorted(kinds))
        raise ValueError(f"path={str(path)!r}: expected a file whose suffix is one of {known}")
    return kind


def _png(figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI, facecolor=figure.get_facecolor())
    return picture.getvalue()


def _luminance(colour: tuple) -> float:
    return 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]
