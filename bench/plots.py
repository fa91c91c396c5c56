"""Plots of measurements, from the rows of a CSV file."""

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import LogLocator, NullFormatter  # noqa: E402

Rows = list[dict[str, str]]

# Colour and marker of each peer; the same colour for the same formula, hollow markers if it is not compiled.
STYLES = {
    "native": ("#d62728", "D"),
    "triton": ("#b2182b", "*"),
    "dense": ("#17becf", "D"),
    "dense-compiled": ("#17becf", "s"),
    "linear": ("#444444", "|"),
    "linear-same-shape": ("#999999", "|"),
    "efficient-kan": ("#1f77b4", "o"),
    "efficient-kan-compiled": ("#1f77b4", "s"),
    "fast-kan": ("#2ca02c", "o"),
    "fast-kan-compiled": ("#2ca02c", "s"),
    "closed-cubic": ("#9467bd", "o"),
    "closed-cubic-compiled": ("#9467bd", "s"),
    "pykan": ("#8c564b", "^"),
    "inkan": ("#ff7f0e", "P"),
    "flashkan": ("#e377c2", "X"),
    "zero-fill": ("#bbbbbb", "."),
    "reference": ("#d6a0a0", "D"),
}
LEFT_OUT = ("reference",)
OURS = ("native", "triton", "dense", "dense-compiled")


def layers(rows: Rows, labels: dict[str, str], path: Path) -> None:
    """One line per case, one mark per peer: time of forward+backward divided by the baseline's."""
    rows = [r for r in rows if r["phase"] == "forward+backward" and r["ratio"] and r["peer"] not in LEFT_OUT]
    cases = list(dict.fromkeys(_case(r) for r in rows))
    figure, axes = plt.subplots(figsize=(9.5, 1.2 + 0.55 * len(cases)), layout="constrained")
    for k in range(len(cases)):
        axes.axhline(k, color="#e8e8e8", linewidth=0.8, zorder=0)
    for peer in dict.fromkeys(r["peer"] for r in rows):
        own = [r for r in rows if r["peer"] == peer]
        if peer == "linear":
            axes.axvline(1, color="#444444", linewidth=1.2, zorder=1, label=labels[peer])
            continue
        colour, marker = STYLES[peer]
        filled = "white" if marker == "o" else colour
        axes.plot(
            [float(r["ratio"]) for r in own], [cases.index(_case(r)) for r in own], linestyle="none", marker=marker,
            color=colour, markerfacecolor=filled, markersize=9 if peer in OURS else 7,
            markeredgewidth=1.5, label=labels[peer], zorder=3 if peer in OURS else 2,
        )  # fmt: skip
    axes.set_yticks(range(len(cases)), cases)
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"time of forward and backward over that of {labels['linear']} (left is faster)")
    axes.set_title(_where(rows), fontsize=8, color="#555555", loc="left")
    _finish(figure, axes, path)


def scaling(rows: Rows, labels: dict[str, str], path: Path) -> None:
    """Time of forward+backward against G, one line per candidate."""
    rows = [r for r in rows if r["phase"] == "forward+backward" and r["seconds"] and r["peer"] in STYLES]
    figure, axes = plt.subplots(figsize=(9.5, 4.5), layout="constrained")
    for peer in dict.fromkeys(r["peer"] for r in rows):
        own = [r for r in rows if r["peer"] == peer]
        colour, marker = STYLES[peer]
        axes.plot(
            [int(r["grid_size"]) for r in own], [1e3 * float(r["seconds"]) for r in own], color=colour,
            marker="." if marker == "|" else marker, linewidth=2 if peer in OURS else 1.3, label=labels[peer],
        )  # fmt: skip
    grids = sorted({int(r["grid_size"]) for r in rows})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(grids, map(str, grids))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="#eeeeee")
    axes.set_xlabel("grid intervals G")
    axes.set_ylabel("forward and backward, ms")
    first = rows[0]
    shape = f"{first['batch']} rows, {first['in_features']} -> {first['out_features']}, cubic"
    axes.set_title(f"{shape}\n{_where(rows)}", fontsize=8, color="#555555", loc="left")
    _finish(figure, axes, path)


PLOTS: dict[str, Callable[[Rows, dict[str, str], Path], None]] = {"layers": layers, "scaling": scaling}


def _finish(figure: plt.Figure, axes: plt.Axes, path: Path) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _case(row: dict[str, str]) -> str:
    dtype = "" if row["dtype"] == "float32" else f", {row['dtype']}"
    return f"{row['batch']}, {row['in_features']}→{row['out_features']}, G={row['grid_size']}{dtype}"


def _where(rows: Rows) -> str:
    r = rows[0]
    where = r.get("gpu") or f"{r['dtype']}; {r['cpu']}, {r['threads']} threads"
    return f"{where}; torch {r['torch']}, fastkan {r['fastkan']} ({r['commit']})"
