"""to_html: the network as one page that needs nothing else, to look at every edge and to try thresholds of pruning."""

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Sequence
from importlib import resources

from torch import Tensor

from ..checkpoint import atomic_write
from ..formulas.expression import statistics
from .edge import factor, term
from .edge_data import Edges, shown
from .layout import chosen


def to_html(
    model: "KAN",
    path: str | os.PathLike,
    *,
    x: Tensor | None = None,
    metric: str = "backward",
    in_vars: Sequence | None = None,
    out_vars: Sequence | None = None,
    title: str | None = None,
    caption: str = "",
    normalizer: Sequence | None = None,
    output_normalizer: Sequence | None = None,
) -> None:
    """Write an interactive page of the network, one file that opens in any browser and loads nothing from anywhere.

    An edge that is hovered, tapped or reached by keys shows its function over the range of the data, its formula where
    it is symbolic, and its score. A slider fades the edges that prune_edge would switch off, and what they leave idle.

    Args:
        path: the file; one that is there is replaced in one piece.
        x: data [..., in_features] to draw for, by default what the model has seen (fit, get_act).
        metric: of the scores, see plot.
        in_vars, out_vars: names of all inputs or of those that are left, and of the outputs: text, which is shown as it
            is, or SymPy expressions.
        title: of the page; caption: a text below it, such as the formula.
        normalizer, output_normalizer: (mean, std) of inputs and outputs, see symbolic_formula: edges from inputs and to
            outputs are then shown in the units of these. normalizer has all inputs.

    The model stays as it is. Raises ValueError for a wrong argument and where there is no data, OSError.
    """
    read, total, outputs = model.input_id.tolist(), model.in_features, model.width_in[-1]
    inputs = [str(name) for name in chosen("in_vars", in_vars, read, total)] or [f"x_{n + 1}" for n in read]
    results = [str(name) for name in chosen("out_vars", out_vars, range(outputs), outputs)]
    results = results or [f"y_{n + 1}" for n in range(outputs)]
    scales = _Scales(model, normalizer, output_normalizer)
    title = "A Kolmogorov-Arnold network" if title is None else str(title)
    content = {
        "title": title,
        "caption": str(caption),
        "layers": [_layer(model, l, inputs, results) for l in range(model.depth + 1)],
        "edges": [edge for l, edges in enumerate(shown(model, x, metric)) for edge in _edges(model, l, edges, scales)],
    }
    script = _part("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {"TITLE": html.escape(title), "DATA": _embedded(content), "SCRIPT": script, "POLICY": f"'sha256-{digest}'"}
    page = re.sub("@([A-Z]+)@", lambda found: parts[found[1]], _part("page.html"))
    with atomic_write(path) as file:
        file.write(page.encode("utf-8", "replace"))


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _embedded(content: dict) -> str:
    """As JSON in which nothing ends the element that it stands in."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _layer(model: "KAN", l: int, inputs: list[str], results: list[str]) -> dict:
    """The nodes of a layer, and the node that each subnode belongs to."""
    n_sum, product = model.width[l][0], bool(model.width[l][1])
    names = inputs if l == 0 else results if l == model.depth else [""] * model.width_in[l]
    first = "input" if l == 0 else "handed on" if product else "sum"
    kinds = [first if n < n_sum else "product" for n in range(model.width_in[l])]
    return {
        "nodes": [{"name": name, "kind": kind} for name, kind in zip(names, kinds, strict=True)],
        "subnodes": [node for node, group in enumerate(model.subnodes(l)) for _ in group],
        "product": product,
    }


class _Scales:
    """What an edge's input and output are in the units of the data: (mean, std) and a factor; (0, 1) and 1 within."""

    def __init__(self, model: "KAN", normalizer: Sequence | None, output_normalizer: Sequence | None):
        total, outputs, last = model.in_features, model.width_in[-1], model.depth - 1
        mean, std = ([0.0], [1.0]) if normalizer is None else statistics("normalizer", normalizer, total)
        self.inputs = [(mean[n % len(mean)], std[n % len(std)]) for n in model.input_id.tolist()]
        self.outputs = None
        if output_normalizer is not None and not model.width[-1][1]:
            _, self.outputs = statistics("output_normalizer", output_normalizer, outputs)
        self.last = last

    def of(self, l: int, i: int, j: int) -> tuple[float, float, float]:
        mean, std = self.inputs[i] if l == 0 else (0.0, 1.0)
        return mean, std, self.outputs[j] if l == self.last and self.outputs else 1.0


def _edges(model: "KAN", l: int, edges: Edges, scales: _Scales) -> list[dict]:
    """What is told of every edge of layer l."""
    numeric, symbolic = model.act_fun[l], model.symbolic_fun[l]
    owner = [node for node, group in enumerate(model.subnodes(l + 1)) for _ in group]
    spline = f"spline of degree {numeric.k}, {numeric.num} intervals"
    kinds = {"n": spline, "s": "", "ns": f"{spline}, and a formula"}
    found = []
    for n, (i, j, mode) in enumerate(zip(edges.inputs, edges.outputs, edges.modes, strict=True)):
        mean, std, scale = scales.of(l, i, j)
        x, data = edges.x[n, [0, -1]] * std + mean, edges.sample_x[n] * std + mean
        y = [_short(value) for value in (edges.y[n] * scale).tolist()]
        finite = [value for value in y if value is not None] or [0.0]
        found.append({
            "layer": l, "from": i, "to": j, "node": owner[j], "mode": mode, "detail": kinds[mode],
            "formula": _formula(symbolic, i, j, mean, std, scale) if "s" in mode else "",
            "score": _short(edges.scores[n].item()) or 0.0,
            "from_x": _short(x[0].item()), "to_x": _short(x[1].item()),
            "low": min(finite), "high": max(finite), "y": y,
            "data": [_short(value) for value in data.tolist()],
        })  # fmt: skip
    return found


def _short(value: float) -> float | None:
    """Five digits, which a screen does not show more of; None for what is no number."""
    value = float(f"{value:.5g}")
    return value if abs(value) < float("inf") else None


def _formula(symbolic, i: int, j: int, mean: float = 0.0, std: float = 1.0, scale: float = 1.0) -> str:
    """scale (c f(a (x - mean) / std + b) + d) in numbers, as 0.5 sin(2 x + 1) - 3."""
    a, b, c, d = symbolic.affine[j, i].tolist()
    a, b, c, d = a / std, b - a * mean / std, c * scale, d * scale
    name = symbolic.funs_name[j][i]
    if name == "0":
        return f"{d:.3g}"
    if name == "x":
        return f"{factor(a * c)}x{term(b * c + d)}"
    value = _applied(name, f"{factor(a)}x{term(b)}")
    return (f"{c:.3g}{value[1:]}" if value.startswith("1/") else f"{factor(c)}{value}") + term(d)


def _applied(name: str, inside: str) -> str:
    """A function of the library at what is inside: 1/sqrt(x) as 1/sqrt(2 x + 1)."""
    if not re.search(r"\bx\b", name):
        return f"{name}({inside})"
    wrapped = inside if inside == "x" else f"({inside})"
    return re.sub(r"\bx\b", wrapped, name).replace("((", "(").replace("))", ")")
