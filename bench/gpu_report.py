"""The report of bench.gpu: tables and a plot from the CSV files of a folder."""

from pathlib import Path

from fastkan.measure.provenance import read_csv
from fastkan.measure.table import digits, duration, table

from . import plots, report
from .report import LABELS, Rows


def write(folder: Path) -> list[Path]:
    """Write report.md and layers.png; returns their paths."""
    found = {name: read_csv(path) for name in SECTIONS if (path := folder / f"{name}.csv").exists()}
    some = found["limits"]
    title = f"Measurements on {some[0]['gpu']}" if some[0]["gpu"] else "Dry run on a CPU: these are no measurements"
    parts, written = [f"# {title}"], []
    for name, rows in found.items():
        parts += [SECTIONS[name](rows), report.provenance(rows)]
    if any(r["ratio"] for r in found.get("layers", ())):
        written.append(folder / "layers.png")
        plots.layers(found["layers"], LABELS, written[-1])
        parts.append("![layers](layers.png)")
    path = folder / "report.md"
    path.write_text("\n\n".join(filter(None, parts)) + "\n")
    return [path, *written]


def limits(rows: Rows) -> str:
    """Measured rates in TB/s and TFLOP/s."""
    lines = [[r["limit"], digits(float(r["rate"]) / 1e12), f"T{r['unit']}"] for r in rows]
    return "## Measured limits of this device\n\n" + table(["", "rate", "unit"], lines)


def layers(rows: Rows) -> str:
    """Ratios to the baseline, shares of the limit, and memory; one part per dtype."""
    parts = []
    for dtype in dict.fromkeys(r["dtype"] for r in rows):
        own = [r for r in rows if r["dtype"] == dtype]
        timed = [r for r in own if r["seconds"]]
        parts.append(report.layers(own, f", {dtype}"))
        if timed:
            parts += [_shares(timed), _peaks(timed)]
    return "\n\n".join(filter(None, parts))


def _shares(rows: Rows) -> str:
    """Minimum time by the device's limits, divided by the measured time."""
    cells = {
        (r["peer"], r["phase"], report.case(r)): f"{float(r['floor_seconds']) / float(r['seconds']):.0%}" for r in rows
    }  # fmt: skip
    cases = list(dict.fromkeys(case for _, _, case in cells))
    lines = [
        [f"{LABELS[peer]}, {phase}", *(cells.get((peer, phase, case), "") for case in cases)]
        for peer, phase in dict.fromkeys((peer, phase) for peer, phase, _ in cells)
    ]
    return f"Share of the limit (of a KAN layer: counting non-zero basis functions)\n\n{table(['', *cases], lines)}"


def _peaks(rows: Rows) -> str:
    """Peak memory of a step in MiB, beyond input and parameters."""
    cells = {(r["peer"], report.case(r)): f"{int(r['peak_bytes']) / 2**20:,.1f}" for r in rows if r["peak_bytes"]}
    if not cells:
        return ""
    cases = list(dict.fromkeys(case for _, case in cells))
    lines = [[LABELS[p], *(cells.get((p, case), "") for case in cases)] for p in dict.fromkeys(p for p, _ in cells)]
    return f"Peak memory of forward and backward in MiB, gradients included\n\n{table(['', *cases], lines)}"


def steps(rows: Rows) -> str:
    """Times of a training step, and ratios to the MLP's in the same mode."""
    cells = {
        (r["peer"], r["mode"], r["network"]): f"{duration(float(r['seconds']))} ({digits(float(r['ratio']))})"
        for r in rows
        if r["seconds"] and r["ratio"]
    }
    networks = list(dict.fromkeys(r["network"] for r in rows))
    lines = [
        [f"{LABELS[peer]}, {mode}", *(cells.get((peer, mode, n), "-") for n in networks)]
        for peer, mode in dict.fromkeys((r["peer"], r["mode"]) for r in rows)
    ]
    title = "## Training step with Adam: time, and ratio to the equal-parameter MLP's"
    reasons = report.reasons(rows, lambda r: r["network"])
    return "\n\n".join(filter(None, [title, table(["", *networks], lines), reasons]))


SECTIONS = {"limits": limits, "layers": layers, "steps": steps}
