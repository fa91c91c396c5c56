"""symbolic_formula: a symbolic network as SymPy expressions."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...arguments import integer, number
from ..layers.between import refuse_layer_norm
from ..layers.library import get_symbolic
from .simplify import round_numbers, shortest_form, snap_numbers, substitute, with_real_symbols

if TYPE_CHECKING:
    from ..model import KAN

SECONDS = 10.0  # of simplify=True
TOLERANCE = 1e-6  # of snap=True


def symbolic_formula(
    model: "KAN",
    var: Sequence | None = None,
    normalizer: Sequence | None = None,
    output_normalizer: Sequence | None = None,
    floating_digit: int | None = None,
    simplify: bool | float = False,
    *,
    snap: bool | float = False,
    numeric: str = "error",
) -> tuple[list, list]:
    """The outputs as SymPy expressions of the inputs; exact: lambdified, they equal the model to rounding.

        (formula,), inputs = model.symbolic_formula()
        sympy.latex(formula)                              # for a paper
        sympy.lambdify(inputs, formula)(*x.numpy().T)     # equals model(x)

    Args:
        var: the inputs: a name or a SymPy symbol or expression for each column of x, or for each column that is read
            (input_id, after prune_input). Names may be LaTeX, such as r"\\theta_0". By default x_1, x_2, ... Symbols
            keep their assumptions: SymPy simplifies more with sympy.symbols("x y", real=True), as simplify does itself.
        normalizer: (mean, std) of the inputs, if the model was trained on (x - mean) / std; lists as long as var.
        output_normalizer: (mean, std) of the outputs, if it was trained on (y - mean) / std.
        floating_digit: number of decimals to round numbers to.
        simplify: let SymPy simplify, for at most 10 or the given number of seconds.
        snap: replace numbers near a small fraction, or a small fraction of pi, by it, to 1e-6 or the given tolerance,
            relative above 1; redundant numbers, as in c sqrt(a x + b), are moved to where that succeeds.
        numeric: "error", or "function" for an undefined function phi_l_i_j on every edge with a numeric branch.

    Returns:
        the expressions, one for each output, and the inputs: var, or the symbols of all columns of x.

    Raises:
        ValueError: edges have a numeric branch (the message lists them), or a wrong argument.
        ImportError: SymPy is not installed.
    """
    sympy = import_sympy()
    if numeric not in ("error", "function"):
        raise ValueError(f"numeric={numeric!r}: expected 'error' or 'function'")
    if floating_digit is not None:
        floating_digit = integer("floating_digit", floating_digit, 0)
    seconds = number("simplify", SECONDS if simplify is True else float(simplify), 0.0)
    tolerance = number("snap", TOLERANCE if snap is True else float(snap), 0.0)
    if numeric == "error":
        _check_symbolic(model)
    inputs = named_inputs(var, [model.in_features, model.width_in[0]])
    acts, _, back = _node_values(sympy, model, inputs, normalizer, output_normalizer)
    values = [sympy.sympify(value) for value in acts[-1]]
    if tolerance:
        values = [snap_numbers(value, tolerance) for value in values]
    if seconds:
        values = [shortest_form(value, seconds / len(values)) for value in values]
    if floating_digit is not None:
        values = [round_numbers(value, floating_digit) for value in values]
    return [substitute(value, back) for value in values], inputs


def node_formulas(
    model: "KAN",
    var: Sequence | None = None,
    normalizer: Sequence | None = None,
    output_normalizer: Sequence | None = None,
) -> tuple[list[list], list[list]]:
    """All nodes as SymPy expressions; arguments and errors as symbolic_formula.

    Returns: the nodes of every layer, from the inputs to the outputs; and the subnodes of every layer but the first.
    """
    sympy = import_sympy()
    _check_symbolic(model)
    *parts, back = _node_values(
        sympy, model, named_inputs(var, [model.in_features, model.width_in[0]]), normalizer, output_normalizer
    )
    acts, premult = ([[substitute(sympy.sympify(v), back) for v in layer] for layer in part] for part in parts)
    return acts, premult


def import_sympy():
    """The module sympy; ImportError with how to install it."""
    try:
        import sympy
    except ImportError:
        raise ImportError("formulas need SymPy: pip install sympy numpy") from None
    return sympy


def _node_values(
    sympy, model: "KAN", inputs: list, normalizer: Sequence | None, output_normalizer: Sequence | None
) -> tuple[list[list], list[list], dict]:
    """The nodes and subnodes of every layer as expressions of real symbols, and a table of the original symbols."""
    refuse_layer_norm(model, "formulas")
    values, back = with_real_symbols(*inputs)
    if normalizer is not None:
        mean, std = statistics("normalizer", normalizer, len(inputs))
        values = [(x - sympy.Float(m)) / sympy.Float(s) for x, m, s in zip(values, mean, std, strict=True)]
    if len(values) == model.in_features:
        values = [values[column] for column in model.input_id.tolist()]
    acts, premult = [values], []
    for l in range(model.depth):
        subnodes = [_sum(sympy, model, l, j, acts[-1]) for j in range(model.width_out[l + 1])]
        premult.append(_affine(sympy, subnodes, model.subnode_scale[l], model.subnode_bias[l]))
        nodes = [sympy.Mul(*(premult[-1][j] for j in group)) for group in model.subnodes(l + 1)]
        acts.append(_affine(sympy, nodes, model.node_scale[l], model.node_bias[l]))
    if output_normalizer is not None:
        mean, std = statistics("output_normalizer", output_normalizer, len(acts[-1]))
        acts[-1] = [y * sympy.Float(s) + sympy.Float(m) for y, m, s in zip(acts[-1], mean, std, strict=True)]
    return acts, premult, back


def _sum(sympy, model: "KAN", l: int, j: int, values: list):
    """The sum over the edges of layer l into subnode j."""
    symbolic = model.symbolic_fun[l]
    on, mask = model.act_fun[l].edge_mask[:, j].tolist(), symbolic.edge_mask[j].tolist()
    terms = []
    for i, (x, affine) in enumerate(zip(values, symbolic.affine[j].tolist(), strict=True)):
        if on[i]:
            terms.append(sympy.Function(f"phi_{l}_{i}_{j}")(x))
        elif mask[i] and model.symbolic_enabled:
            a, b, c, d = affine
            name = symbolic.funs_name[j][i]
            value = sympy.S.Zero if name == "0" else _apply(sympy, name, _linear(sympy, x, a, b))
            terms.append(_linear(sympy, _linear(sympy, value, c, d), mask[i], 0.0))
    return sympy.Add(*terms)


def _apply(sympy, name: str, x):
    """A function of the library at x, not evaluated: SymPy's evaluation can take minutes."""
    z = sympy.Dummy(real=True)
    return substitute(get_symbolic(name).sympy_fn(z), {z: x})


def _affine(sympy, values: list, scale, bias) -> list:
    numbers = zip(values, scale.tolist(), bias.tolist(), strict=True)
    return [_linear(sympy, value, s, b) for value, s, b in numbers]


def _linear(sympy, x, a: float, b: float):
    """a x + b, without a factor 1 or a summand 0."""
    scaled = x if a == 1 else sympy.Float(a) * x if a else sympy.S.Zero
    return scaled + sympy.Float(b) if b else scaled


def named_inputs(var: Sequence | None, widths: Sequence[int]) -> list:
    """The symbols of the inputs: x_1, x_2, ... for the first width, or var, which is as long as one of the widths."""
    sympy = import_sympy()
    if var is None:
        return [sympy.Symbol(f"x_{column + 1}") for column in range(widths[0])]
    names = list(var)
    if len(names) not in widths:
        allowed = " or ".join(map(str, sorted(set(widths), reverse=True)))
        raise ValueError(f"var={var!r}: expected {allowed} variables, one for each input")
    for name in names:
        if not isinstance(name, str | sympy.Expr):
            raise TypeError(f"var has {name!r}: expected names or SymPy expressions")
    return [sympy.Symbol(name) if isinstance(name, str) else name for name in names]


def statistics(name: str, pair: Sequence, count: int) -> tuple[list[float], list[float]]:
    """(mean, std) as lists of `count` finite numbers, no std 0; ValueError otherwise."""
    if len(pair) != 2:
        raise ValueError(f"{name}={pair!r}: expected (mean, std)")
    mean, std = ([float(value) for value in part] for part in pair)
    if len(mean) != count or len(std) != count or not all(map(math.isfinite, mean + std)) or not all(std):
        raise ValueError(f"{name}={pair!r}: expected {count} finite means and {count} standard deviations other than 0")
    return mean, std


def _check_symbolic(model: "KAN") -> None:
    numeric = [(l, i, j) for l, layer in enumerate(model.act_fun) for i, j in (layer.edge_mask != 0).nonzero().tolist()]
    if numeric:
        shown = ", ".join(map(str, numeric[:10])) + (f" and {len(numeric) - 10} more" if len(numeric) > 10 else "")
        raise ValueError(
            f"edges (l, i, j) {shown} have a numeric branch: expected symbolic edges only; use fix_symbolic or "
            "auto_symbolic, remove the edges by remove_edge or prune, or keep them as functions by numeric='function'"
        )
