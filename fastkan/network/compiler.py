"""kanpiler: a formula as a network whose edges are all symbolic, exact to rounding.

Source: Liu et al., KAN 2.0 (arXiv 2408.10205), section 3.3.
"""

import os
from collections.abc import Sequence
from numbers import Real

import torch

from .formula import import_sympy
from .history import History
from .model import KAN
from .terms import Node, Reader, Sum


def kanpiler(
    input_variables: Sequence,
    expr,
    grid: int | Sequence[int] = 5,
    k: int | Sequence[int] = 3,
    auto_save: bool = False,
    *,
    history: History | str | bool | None = None,
    ckpt_path: str | os.PathLike = "./model",
    **options,
) -> KAN:
    """A KAN that computes a SymPy expression, or a list of them: with one symbolic function on every edge.

    Sums become nodes that sum, products nodes that multiply. What occurs twice is computed once; edges "x" hand
    values on to deeper layers. The numeric branch is off; expand_width, expand_depth and perturb make room to train in.

    Args:
        input_variables: the symbols, in the order of the network's inputs.
        expr: made of numbers, these symbols, +, *, powers, the functions in library.SYMBOLIC_LIB (to which add_symbolic
            adds), sec, csc, cot, the hyperbolic functions and their inverses asinh and acosh, Max and Min. Where an
            exponent has a variable, the base has to be positive.
        grid, k, options: of KAN. In float64 (dtype=torch.float64) it is the expression to float64's rounding; dtypes
            with fewer digits round the formula's numbers.
        auto_save, history, ckpt_path: as in KAN.

    Raises:
        ImportError: SymPy is not installed.
        TypeError, ValueError: an argument, or a part of the expression, that can't be; the message names it.
    """
    sympy = import_sympy()
    variables = _variables(sympy, input_variables)
    expressions = [
        _checked(sympy, e, variables) for e in (expr if isinstance(expr, list | tuple | sympy.Tuple) else [expr])
    ]
    if not expressions:
        raise ValueError(f"expr={expr!r}: expected an expression, or a list of at least one")
    reader = Reader(variables)
    layers = _layers(reader, _outputs(reader, [reader.read(e) for e in expressions]))
    arity = [[len(place.factors) for place in layer if len(place.factors) > 1] for layer in layers]
    width = [[len(layer) - len(products), len(products)] for layer, products in zip(layers, arity, strict=True)]
    model = KAN(width, grid, k, arity, **options)
    for l, (before, layer) in enumerate(zip(layers, layers[1:], strict=False)):
        _wire(model, l, {place.value: i for i, place in enumerate(before)}, layer)
    model.history = ckpt_path if auto_save and history is None else history
    return model


class _Place:
    """A node of the network: the value that it holds, and the sums whose product plus bias that is."""

    def __init__(self, value: Node | None, factors: Sequence[Sum], bias: float = 0.0):
        self.value, self.factors, self.bias = value, factors, bias

    def sources(self) -> list[Node]:
        return [term.node.origin for factor in self.factors for term in factor.terms]


def _outputs(reader: Reader, sums: list[Sum]) -> list[_Place]:
    """Nodes for the outputs, in this order. A product can be one where no sum follows: sums stand before products."""
    places: list[_Place] = []
    for total in reversed(sums):
        product = _as_product(total) if all(len(place.factors) > 1 for place in places) else None
        places.insert(0, product or _Place(None, reader.node([total]).factors))
    return places


def _as_product(total: Sum) -> _Place | None:
    if len(total.terms) != 1:
        return None
    ((term, scale),) = total.terms.items()
    first, *others = term.node.factors or (None,)
    if term.name != "x" or not others:
        return None
    return _Place(None, [first * scale, *others], total.constant)


def _layers(reader: Reader, outputs: list[_Place]) -> list[list[_Place]]:
    """The nodes of every layer, sums first: each on its level, and from there handed on to where it is needed."""
    factors = [factor for place in outputs for factor in place.factors]
    depth = 1 + max((term.node.level for factor in factors for term in factor.terms), default=0)
    layers = [outputs]
    for level in range(depth - 1, 0, -1):
        for place in layers[0]:
            place.factors = [reader.gathered(factor, level + 1) for factor in place.factors]
        needed = dict.fromkeys(node for place in layers[0] for node in place.sources())
        places = [_Place(node, node.factors if node.level == level else [Sum.of(node)]) for node in needed]
        layers.insert(0, sorted(places, key=lambda place: len(place.factors) > 1))
    return [[_Place(node, ()) for node in reader.inputs.values()], *layers]


@torch.no_grad()
def _wire(model: KAN, l: int, start: dict[Node, int], layer: list[_Place]) -> None:
    """Put the functions on the edges of layer l. A constant goes with the first edge; where there is none, a bias."""
    numeric, symbolic = model.act_fun[l], model.symbolic_fun[l]
    numeric.mask.zero_()
    names = [["0"] * numeric.in_dim for _ in range(numeric.out_dim)]
    affine, on = symbolic.affine.new_zeros(symbolic.affine.shape).double(), torch.zeros_like(symbolic.edge_mask)
    factors = [factor for place in layer for factor in place.factors]
    for j, factor in enumerate(factors):
        constant = factor.constant
        for term, scale in factor.terms.items():
            i = start[term.node.origin]
            names[j][i], on[j, i] = term.name, 1.0
            affine[j, i] = torch.tensor([term.a, term.b, scale, constant], dtype=torch.float64)
            constant = 0.0
        model.subnode_bias[l][j] = constant
    symbolic.affine.copy_(affine)
    symbolic.funs_name, symbolic.mask = names, on
    model.node_bias[l].copy_(torch.tensor([place.bias for place in layer], dtype=torch.float64))
    symbolic.active  # noqa: B018  decides whether its affine takes a gradient


def _variables(sympy, variables) -> list:
    if not isinstance(variables, Sequence | sympy.Tuple) or isinstance(variables, str):
        raise TypeError(f"input_variables={variables!r}: expected a list of SymPy symbols")
    for variable in variables:
        if not isinstance(variable, sympy.Symbol):
            raise TypeError(f"input_variables={variables!r} has {variable!r}: expected SymPy symbols")
    if not variables or len(set(variables)) != len(variables):
        raise ValueError(f"input_variables={variables!r}: expected different symbols, at least one")
    return list(variables)


def _checked(sympy, expr, variables: list):
    """expr as a SymPy expression in these variables. Text is not read: reading it would run it."""
    expr = sympy.sympify(expr) if isinstance(expr, Real) and not isinstance(expr, bool) else expr
    if not isinstance(expr, sympy.Expr):
        raise TypeError(f"expr={expr!r}: expected a SymPy expression, or a list of them")
    unknown = sorted(map(str, expr.free_symbols - set(variables)))
    if unknown:
        raise ValueError(
            f"expr has {', '.join(unknown)}: expected the input variables alone, {', '.join(map(str, variables))} "
            "(a symbol of that name with other assumptions is another symbol)"
        )
    return expr
