"""plot_training: the results of fit as curves, with the grid sizes."""

import math
import os
import textwrap
from typing import TYPE_CHECKING, Any

from .figure import check_matplotlib, colours, file_kind, new_figure, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_training(
    results: dict,
    path: str | os.PathLike | None = None,
    *,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
    fig: Any = None,
) -> "Figure":
    """Draw a training: train and test loss, below them the penalty, if there is one, and every metric.

    Axes are logarithmic where values are positive and differ in magnitude. Dotted lines mark changes of the grid size,
    which is written above. The reason for an early end of the training is written below.

    Args:
        results: of KAN.fit; or of pykan's fit, which lacks the grid sizes.
        path: the file to write, in the format of its suffix; nothing is written by default.
        title: above the curves.
        figsize: in inches; fig: a matplotlib figure to draw on instead of a new one.

    Returns:
        The matplotlib Figure, which is not registered with pyplot, see KAN.plot.

    Raises ImportError without matplotlib, ValueError for results without a step.
    """
    check_matplotlib()
    if path is not None:
        file_kind(path)
    panels, changes = _panels(results), _grid_changes(results)
    heights = [2.2] + [1.0] * (len(panels) - 1)
    size = (5.2, 1.0 + 1.1 * sum(heights)) if figsize is None else figsize
    figure = new_figure(size, "constrained") if fig is None else fig
    ink = colours(figure).ink
    ratios = {"height_ratios": heights}
    every = figure.subplots(len(panels), sharex=True, squeeze=False, gridspec_kw=ratios)[:, 0]
    for axes, (name, curves) in zip(every, panels.items(), strict=True):
        for label, values in curves.items():
            style = "--" if label == "test" else "-"
            axes.plot(range(len(values)), values, style, lw=1.5, marker="." if len(values) < 3 else None, label=label)
        axes.set(ylabel=name, yscale="log" if _logarithmic(curves, 3.0 if name == "loss" else 20.0) else "linear")
        for step, _ in changes[1:]:
            axes.axvline(step, color=ink, lw=0.8, ls=":", alpha=0.6, gid="grid")
    _name_grids(every[0], changes, len(results["train_loss"]))
    every[0].legend(frameon=False)
    every[-1].set_xlabel("step")
    every[-1].xaxis.get_major_locator().set_params(integer=True)
    if title is not None:
        figure.suptitle(title)
    if results.get("stopped"):
        characters = max(20, int(10 * figure.bbox.width / figure.dpi))
        every[-1].set_xlabel("step\n\n" + textwrap.fill(f"stopped: {results['stopped']}", characters))
    if path is not None:
        write(figure.figure, path)
    return figure.figure


def _panels(results: dict) -> dict[str, dict[str, list[float]]]:
    """Curves by their names for every axes, by its label."""
    if not results.get("train_loss"):
        raise ValueError(
            f"results has the train_loss {results.get('train_loss')!r}: expected the results of fit, with steps"
        )
    curves = {name: [float(v) for v in values] for name, values in results.items() if name not in ("grid", "stopped")}
    panels = {"loss": {"train": curves.pop("train_loss")}}
    if "test_loss" in curves:
        panels["loss"]["test"] = curves.pop("test_loss")
    if any(curves.pop("reg", ())):
        panels["penalty"] = {"penalty": [float(v) for v in results["reg"]]}
    return panels | {name: {name: values} for name, values in curves.items()}


def _grid_changes(results: dict) -> list[tuple[int, object]]:
    """The steps at which the grid size changes and the new sizes, the first step included; empty without changes."""
    sizes = results.get("grid") or []
    changes = [(n, size) for n, size in enumerate(sizes) if n == 0 or size != sizes[n - 1]]
    return changes if len(changes) > 1 else []


def _name_grids(axes: Any, changes: list[tuple[int, object]], steps: int) -> None:
    """Grid sizes above the axes, omitted where they would overlap."""
    free = -math.inf
    for n, (step, size) in enumerate(changes):
        text = f"grid {size}" if n == 0 else str(size)
        if step >= free:
            axes.annotate(
                text, (step, 1), (0, 3), xycoords=axes.get_xaxis_transform(), textcoords="offset points",
                fontsize="small", annotation_clip=False,
            )  # fmt: skip
            free = step + (len(text) + 1) * 0.017 * steps


def _logarithmic(curves: dict[str, list[float]], ratio: float) -> bool:
    """Whether the finite values of the curves are positive and differ by at least this ratio."""
    values = [v for curve in curves.values() for v in curve if math.isfinite(v)]
    return bool(values) and min(values) > 0 and max(values) >= ratio * min(values)
