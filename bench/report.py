"""The report: tables and plots from the CSV files of a folder."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

from fastkan.measure.peers import BASELINE
from fastkan.measure.provenance import read_csv
from fastkan.measure.table import digits, duration, table

from . import plots
from . import tutorials as runs
from .convolutions import LABELS as CONVOLUTIONS
from .fit import LABELS as TRAININGS
from .formulas import LABELS as FORMULAS
from .peers import ON_GPU
from .rbf import LABELS as GAUSSIANS
from .stacks import LABELS as STACKS

Rows = list[dict[str, str]]
LABELS = {name: peer.label for name, peer in ON_GPU.items()} | {
    "zero-fill": "zero-filling the gradient of coef, alone", "forward-zero-fill": "native's forward, then zero-filling",
    "native-stack": "fastkan native, KANSequential",
}  # fmt: skip


def write(folder: Path) -> list[Path]:
    """Write report.md and the plots for the CSV files in the folder; returns their paths."""
    sections, written = [], []
    for name, section in SECTIONS.items():
        path = folder / f"{name}.csv"
        if path.exists():
            rows = read_csv(path)
            sections.append(f"{section(rows)}\n\n{provenance(rows)}\n")
            if name in plots.PLOTS:
                written.append(folder / f"{name}.png")
                plots.PLOTS[name](rows, LABELS, written[-1])
                sections.append(f"![{name}]({name}.png)\n")
    report = folder / "report.md"
    report.write_text("# Measurements\n\n" + "\n".join(sections))
    return [report, *written]


def provenance(rows: Rows) -> str:
    """Provenance of the rows, one line per distinct run."""
    return "\n\n".join(sorted({_run(r) for r in rows}))


def _run(r: dict[str, str]) -> str:
    gpu, triton = (f"{r['gpu']}; ", f"Triton {r['triton']}, ") if r.get("gpu") else ("", "")
    return (
        f"{gpu}{r['cpu']} ({r['isa']}), {r['cores']} cores, {r['threads']} threads; {r['system']}, "
        f"Python {r['python']}, torch {r['torch']}, {triton}fastkan {r['fastkan']} at {r['commit'] or 'no commit'}; "
        f"{r['date']}; `{r['command']}`"
    )


def layers(rows: Rows, where: str = "") -> str:
    """Ratios to the baseline: candidates down, cases across, one table per phase. `where` ends the title."""
    cases = list(dict.fromkeys(case(r) for r in rows))
    parts = [f"## A layer's time over that of {LABELS[BASELINE]}{where}"]
    for phase in dict.fromkeys(r["phase"] for r in rows):
        cells = {(r["peer"], case(r)): _ratio(r) for r in rows if r["phase"] == phase}
        peers = list(dict.fromkeys(peer for peer, _ in cells))
        lines = [[LABELS[peer], *(cells.get((peer, case), "") for case in cases)] for peer in peers]
        parts.append(f"### {phase.capitalize()}\n\n{table(['', *cases], lines)}")
    parts.append(_baseline_times(rows, cases))
    parts.append(reasons(rows, case))
    return "\n\n".join(filter(None, parts))


def by_dtype(rows: Rows) -> str:
    """`layers` of every dtype."""
    dtypes = list(dict.fromkeys(r["dtype"] for r in rows))
    return "\n\n".join(
        layers([r for r in rows if r["dtype"] == dtype], "" if dtype == "float32" else f", {dtype}") for dtype in dtypes
    )


def _ratio(row: dict[str, str]) -> str:
    return digits(float(row["ratio"])) if row["ratio"] else "-"


def _baseline_times(rows: Rows, cases: Sequence[str]) -> str:
    base = {(r["phase"], case(r)): r for r in rows if r["peer"] == BASELINE}
    lines = [
        [phase, *(_time(base.get((phase, c))) for c in cases)] for phase in dict.fromkeys(phase for phase, _ in base)
    ]
    return f"{LABELS[BASELINE]} itself took\n\n{table(['', *cases], lines)}"


def scaling(rows: Rows) -> str:
    """Times of forward and backward, one row per grid size, one column per candidate."""
    every, rows = rows, [r for r in rows if r["phase"] == "forward+backward"]
    grids = list(dict.fromkeys(r["grid_size"] for r in rows))
    cells = {(r["grid_size"], r["peer"]): r for r in rows}
    peers = list(dict.fromkeys(r["peer"] for r in rows))
    lines = [[g, *(_time(cells.get((g, p))) for p in peers)] for g in grids]
    first = rows[0]
    title = f"## Time against grid intervals: {first['batch']} rows, {first['in_features']} -> {first['out_features']}"
    parts = [
        title,
        table(["G", *(LABELS[p] for p in peers)], lines),
        _growth(every, grids),
        reasons(rows, lambda r: f"G={r['grid_size']}"),
    ]
    return "\n\n".join(filter(None, parts))


def _growth(rows: Rows, grids: Sequence[str]) -> str:
    """Time at the largest grid divided by that at the smallest, with and without zero-filling."""
    seconds = {(r["phase"], r["peer"], r["grid_size"]): float(r["seconds"]) for r in rows if r["seconds"]}

    def times(grid: str) -> tuple[float, float, float]:
        step, zeros, filled = (
            seconds["forward+backward", peer, grid] for peer in ("native", "zero-fill", "forward-zero-fill")
        )
        return step, step - zeros, step - (filled - seconds["forward", "native", grid])

    try:
        whole, alone, added = (digits(b / a) for a, b in zip(times(grids[0]), times(grids[-1]), strict=True))
    except KeyError:
        return ""
    return (
        f"{LABELS['native']}, time at G={grids[-1]} divided by that at G={grids[0]}: {whole}; without the time of "
        f"zero-filling alone: {alone}; without what it adds to a forward pass, when the coefficients fill the "
        f"caches: {added}."
    )


def accuracy(rows: Rows) -> str:
    """Largest errors in float32, one row per candidate, one column per grid size."""
    grids = list(dict.fromkeys(r["grid_size"] for r in rows))
    rows_of = {(r["peer"], r["grid_size"]): r for r in rows}
    peers = [p for p in dict.fromkeys(r["peer"] for r in rows) if any(rows_of[p, g]["feature_error"] for g in grids)]
    parts = ["## Largest errors in float32, against float64"]
    shape = f"{rows[0]['in_features']} -> {rows[0]['out_features']}"
    titles = {
        "feature_error": "of a spline's value",
        "slope_error": "of a signed sum of all splines' slopes, in units of one over the interval",
        "layer_error": f"of a layer {shape}, over the root mean square of its result",
    }
    for key, title in titles.items():
        lines = [[LABELS[p], *(rows_of[p, g][key] or "-" for g in grids)] for p in peers]
        parts.append(f"{title.capitalize()}\n\n{table(['', *(f'G={g}' for g in grids)], lines)}")
    return "\n\n".join(filter(None, [*parts, reasons(rows, lambda r: f"G={r['grid_size']}")]))


def memory(rows: Rows) -> str:
    """KiB saved for backward, one row per candidate, one column per case."""
    cases = list(dict.fromkeys(case(r) for r in rows))
    cells = {(r["peer"], case(r)): f"{int(r['saved_bytes']) / 1024:,.1f}" if r["saved_bytes"] else "-" for r in rows}
    lines = [[LABELS[p], *(cells[p, case] for case in cases)] for p in dict.fromkeys(r["peer"] for r in rows)]
    title = "## KiB saved for backward beyond input, parameters and constants"
    return "\n\n".join(filter(None, [title, table(["", *cases], lines), reasons(rows, case)]))


def startup(rows: Rows) -> str:
    """Times of imports and constructions."""
    lines = []
    for r in rows:
        size = f"{r['in_features']} -> {r['out_features']}, G={r['grid_size']}" if r["in_features"] else ""
        lines.append([r["what"], size, duration(float(r["seconds"])) if r["seconds"] else r["reason"]])
    return "## Start\n\n" + table(["what", "size", "takes"], lines, left=2)


def fit(rows: Rows) -> str:
    """Training steps, one row per network and candidate; then peak memory."""
    timed = [r for r in rows if r["seconds"]]
    lines = []
    for r in timed:
        update = "grid updates" if r["update_grid"] == "True" else ""
        setting = ", ".join(filter(None, (r["network"], f"lamb={r['lamb']}" if float(r["lamb"]) else "", update)))
        cells = duration(float(r["seconds"])), _ratio(r), r["evaluations"], r["train_loss"], r["reg"] or "-"
        lines.append([setting, TRAININGS[r["peer"]], *cells])
    head = ["", "", "a step", "over fastkan's", "evaluations a step", "loss reached", "penalty reached"]
    parts = ["## LBFGS steps of KAN.fit, 1000 rows", table(head, lines, left=2)]
    lines = [[r["network"], r["lamb"], TRAININGS[r["peer"]], r["peak_mib"]] for r in rows if r["peak_mib"]]
    if lines:
        parts.append(table(["", "lamb", "", "MiB that a step adds to the process"], lines, left=3))
    return "\n\n".join(parts)


def symbolic(rows: Rows) -> str:
    """auto_symbolic, one row per network and candidate."""
    lines = [
        [r["network"], r["edges"], r["peer"], r["edges_timed"], duration(float(r["seconds"])), _ratio(r)]
        for r in rows
        if r["seconds"]
    ]
    head = ["network", "edges", "", "edges timed", "all edges take", "over fastkan's"]
    return f"## auto_symbolic, {rows[0]['rows']} rows\n\n{table(head, lines, left=1)}"


def formulas(rows: Rows) -> str:
    """Recovered formulas, one row per target and candidate."""
    lines = []
    for r in rows:
        if int(r["seeds"]):
            count = f"{r['exact']} of {r['seeds']}"
            lines.append([r["target"], FORMULAS[r["peer"]], count, r["error"], duration(float(r["seconds"]))])
    head = ["", "", "exact", "median relative error", "median time"]
    failed = [f"- {FORMULAS[r['peer']]} ({r['target']}): {r['reason']}" for r in rows if r["reason"]]
    parts = ["## Seeds from which the exact formula is recovered", table(head, lines, left=2), "\n".join(failed)]
    return "\n\n".join(filter(None, parts))


def stacks(rows: Rows) -> str:
    """Loss and gradients of small networks: times, and ratios to the MLP's."""
    return f"## Loss and gradients of small networks: time, and ratio to the MLP's\n\n{_times(rows, 'network', STACKS)}"


def rbf(rows: Rows) -> str:
    """Forward and backward of FastKANLayer: times and ratios to nn.Linear's."""
    title = "## Forward and backward of fast-kan's layer: time, and ratio to nn.Linear's"
    return f"{title}\n\n{_times(rows, 'shape', GAUSSIANS)}"


def convolutions(rows: Rows) -> str:
    """Times of KANConv2d with their ratios to unfold and KANLinear's, and peak memory."""
    parts: list[str] = []
    for phase in dict.fromkeys(r["phase"] for r in rows):
        of = {(r["shape"], r["peer"]): r for r in rows if r["phase"] == phase}
        lines: list[list[str]] = []
        for shape in dict.fromkeys(name for name, _ in of):
            own = [of[shape, peer] for peer in CONVOLUTIONS]
            lines.append([shape, *(f"{duration(float(r['seconds']))} ({_ratio(r)}), {r['peak_mib']} MiB" for r in own)])
        parts.append(f"### {phase.capitalize()}\n\n{table(['', *CONVOLUTIONS.values()], lines)}")
    return "\n\n".join(["## Convolutions: time, ratio to unfold and KANLinear's, increase of peak memory", *parts])


def _times(rows: Rows, across: str, labels: dict[str, str]) -> str:
    names = list(dict.fromkeys(r[across] for r in rows))
    cells = {
        (r["peer"], r[across]): f"{duration(float(r['seconds']))} ({_ratio(r)})" if r["seconds"] else r["reason"]
        for r in rows
    }
    lines = [[label, *(cells.get((peer, n), "-") for n in names)] for peer, label in labels.items()]
    return table(["", *names], lines)


def tutorials(rows: Rows) -> str:
    """pykan's tutorials: CPU seconds and results with both packages, from the same seeds."""
    of = {(r["tutorial"], r["peer"]): r for r in rows}
    lines, slower, better, close, worse = [], [], [], [], []
    for name in dict.fromkeys(r["tutorial"] for r in rows):
        ours, theirs = both = of[name, "fastkan"], of[name, "pykan"]
        times = [duration(float(r["cpu_seconds"])) if r["cpu_seconds"] else r["reason"] for r in both]
        reached = [f"{r['result']} (of {r['seeds']})" if r["result"] else "" for r in both]
        shown = ["-", "-"]
        if all(r["cpu_seconds"] for r in both):
            slower.append(float(theirs["cpu_seconds"]) / float(ours["cpu_seconds"]))
            known = runs.ratios(*(runs.each(r) for r in both))
            ratio = median(known)
            shown = [digits(slower[-1]), digits(ratio)]
            (better if ratio <= 1.01 else close if ratio <= runs.chance(known, len(known)) else worse).append(name)
        lines.append([name, *times, *shown, *reached])
    head = ["", "fastkan", "pykan", "over fastkan's", "result over pykan's", "fastkan reaches", "pykan reaches"]
    title = "## pykan's tutorials: the same code with both packages, CPU time, medians over seeds"
    parts = [title, table(head, lines, left=1)]
    if slower:
        parts.append(
            f"Of the {len(slower)} that both finish, pykan takes {digits(min(slower))} to {digits(max(slower))} times "
            f"as long; the median is {digits(median(slower))}. By the median ratio of results from the same seed, "
            f"fastkan's result is as good or better in {len(better)}; worse, within chance, in {len(close)}"
            f"{_listed(close)}; and worse by more than that in {len(worse)}{_listed(worse)}."
        )
    return "\n\n".join(parts)


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


SECTIONS: dict[str, Callable[[Rows], str]] = {
    "layers": by_dtype, "scaling": scaling, "accuracy": accuracy, "memory": memory, "startup": startup, "fit": fit,
    "symbolic": symbolic, "formulas": formulas, "stacks": stacks, "tutorials": tutorials, "rbf": rbf,
    "convolutions": convolutions,
}  # fmt: skip


def case(row: dict[str, str]) -> str:
    return f"{row['batch']}, {row['in_features']}->{row['out_features']}, G={row['grid_size']}"


def _time(row: dict[str, str] | None) -> str:
    return duration(float(row["seconds"])) if row and row["seconds"] else "-"


def reasons(rows: Iterable[dict[str, str]], where: Callable[[dict[str, str]], str]) -> str:
    """One line per candidate and reason, with the cases it applies to."""
    by_reason: dict[tuple[str, str], dict[str, None]] = {}
    for r in rows:
        if r["reason"]:
            by_reason.setdefault((LABELS[r["peer"]], r["reason"]), {})[where(r)] = None
    return "\n".join(f"- {label} ({'; '.join(places)}): {reason}" for (label, reason), places in by_reason.items())
