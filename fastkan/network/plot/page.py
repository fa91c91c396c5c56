"""to_html: the network as one self-contained page, to inspect every edge and to try pruning thresholds."""

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..checkpoint import atomic_write
from ..formulas.expression import statistics
from ..layers.shape import owners
from .edge import factor, formula_digits, term
from .edge_data import Edges, drawn_edges
from .layout import select_names
from .numbers import rounded
from .selection import MAX_EDGES, MIN_OPACITY

if TYPE_CHECKING:
    from ..layers.symbolic import SymbolicLayer
    from ..model import KAN


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
    """Write an interactive page of the network: one file for any browser that loads nothing from elsewhere.

    Hovering, tapping or selecting an edge by keyboard shows its function over the range of the data, its formula if it
    is symbolic, and its score. A slider fades the edges that prune_edge would switch off, and the nodes left unused.

    Args:
        path: the file; an existing one is replaced when the new one is complete.
        x: data [..., in_features] to draw for, by default the model's cache_data (from fit or get_act).
        metric: of the scores, see plot.
        in_vars, out_vars: names of all inputs or of the remaining ones, and of the outputs: plain text or SymPy
            expressions.
        title: of the page; caption: a text below it, such as the formula.
        normalizer, output_normalizer: (mean, std) of all inputs and of the outputs, see symbolic_formula: edges from
            inputs and to outputs are then shown in the units of the data.

    The model stays as it is. Raises ValueError for a wrong argument or without data, and OSError.
    """
    columns, total, outputs = model.input_id.tolist(), model.in_features, model.width_in[-1]
    inputs = [str(name) for name in select_names("in_vars", in_vars, columns, total)]
    inputs = inputs or [f"x_{n + 1}" for n in columns]
    results = [str(name) for name in select_names("out_vars", out_vars, range(outputs), outputs)]
    results = results or [f"y_{n + 1}" for n in range(outputs)]
    scales = _Scales(model, normalizer, output_normalizer)
    title = "A Kolmogorov-Arnold network" if title is None else str(title)
    content = {
        "most": MAX_EDGES,
        "least": MIN_OPACITY,
        "title": title,
        "caption": str(caption),
        "layers": [_layer(model, l, inputs, results) for l in range(model.depth + 1)],
        "edges": [
            edge for l, edges in enumerate(drawn_edges(model, x, metric)) for edge in _edges(model, l, edges, scales)
        ],
    }
    script = _template("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {"TITLE": html.escape(title), "DATA": _json(content), "SCRIPT": script, "POLICY": f"'sha256-{digest}'"}
    page = re.sub("@([A-Z]+)@", lambda match: parts[match[1]], _template("page.html"))
    with atomic_write(path) as file:
        file.write(page.encode("utf-8", "replace"))


def _template(name: str) -> str:
    return resources.files(__package__ or "").joinpath(name).read_text("utf-8")


def _json(content: dict) -> str:
    """JSON that is safe inside a script element."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _layer(model: "KAN", l: int, inputs: list[str], results: list[str]) -> dict:
    """The nodes of a layer, and the node that each subnode belongs to."""
    n_sum, product = model.width[l][0], bool(model.width[l][1])
    names = inputs if l == 0 else results if l == model.depth else [""] * model.width_in[l]
    first = "input" if l == 0 else "copy" if product else "sum"
    kinds = [first if n < n_sum else "product" for n in range(model.width_in[l])]
    return {
        "nodes": [{"name": name, "kind": kind} for name, kind in zip(names, kinds, strict=True)],
        "subnodes": owners(model.subnodes(l)),
        "product": product,
    }


class _Scales:
    """The units of an edge's input, (mean, std), and of its output, a factor; (0, 1) and 1 for hidden nodes."""

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
    """The data of every edge of layer l on the page."""
    numeric, symbolic = model.act_fun[l], model.symbolic_fun[l]
    owner = owners(model.subnodes(l + 1))
    spline = f"spline of degree {numeric.k}, {numeric.num} intervals"
    if numeric.linear.family != "bspline":
        spline = f"{numeric.num} functions of the family {numeric.linear.family}"
    kinds = {"n": spline, "s": "", "ns": f"{spline}, and a formula"}
    described = []
    for n, (i, j, mode) in enumerate(zip(edges.inputs, edges.outputs, edges.modes, strict=True)):
        mean, std, scale = scales.of(l, i, j)
        from_x, to_x = (edges.x[n, [0, -1]] * std + mean).tolist()
        low, high = sorted((scale * edges.low[n].item(), scale * edges.high[n].item()))
        y = (
            edges.y[n] * scale
            if low < high
            else torch.full_like(edges.y[n], low).where(edges.y[n].isfinite(), torch.nan)
        )
        described.append({
            "layer": l, "from": i, "to": j, "node": owner[j], "mode": mode, "detail": kinds[mode],
            "formula": _formula(symbolic, i, j, mean, std, scale, (from_x, to_x), (low, high)) if "s" in mode else "",
            "score": rounded([edges.scores[n].item()], 0.0, 0.0)[0] or 0.0,
            **dict(zip(("from_x", "to_x"), rounded([from_x, to_x], from_x, to_x), strict=True)),
            **dict(zip(("low", "high"), rounded([low, high], low, high), strict=True)),
            "y": rounded(y.tolist(), low, high),
            "data": rounded((edges.sample_x[n] * std + mean).tolist(), from_x, to_x),
        })  # fmt: skip
    return described


def _formula(
    symbolic: "SymbolicLayer", i: int, j: int, mean: float = 0.0, std: float = 1.0, scale: float = 1.0,
    x: tuple[float, float] = (0.0, 0.0), y: tuple[float, float] = (0.0, 0.0),
) -> str:  # fmt: skip
    """scale (c f(a (x - mean) / std + b) + d) as text, 0.5 sin(2 x + 1) - 3; x, y: ranges, for the digits."""
    a, b, c, d = symbolic.affine[j, i].tolist()
    a, b, c, d = a / std, b - a * mean / std, c * scale, d * scale
    name = symbolic.funs_name[j][i]
    inside, outside = formula_digits((c, d), x, y)
    if name == "0":
        return f"{d:.{outside}g}"
    if name == "x":
        c, d = a * c, b * c + d
        inside, outside = formula_digits((c * max(map(abs, x)), d), x, y)
        return f"{factor(c, inside)}x{term(d, outside)}"
    value = _apply(name, f"{factor(a, inside)}x{term(b, inside)}")
    outer = f"{c:.{outside}g}{value[1:]}" if value.startswith("1/") else f"{factor(c, outside)}{value}"
    return outer + term(d, outside)


def _apply(name: str, inside: str) -> str:
    """A function of the library with `inside` as its argument: 1/sqrt(x) as 1/sqrt(2 x + 1)."""
    if not re.search(r"\bx\b", name):
        return f"{name}({inside})"
    wrapped = inside if inside == "x" else f"({inside})"
    return re.sub(r"\bx\b", wrapped, name).replace("((", "(").replace("))", ")")
