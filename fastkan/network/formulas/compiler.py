"""compile_formulas: networks of symbolic edges that compute formulas, exact to rounding.

Source: Liu et al., KAN 2.0 (arXiv 2408.10205), section 3.3.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..layers.library import SYMBOLIC_LIB, get_symbolic
from .expression import import_sympy

if TYPE_CHECKING:
    from ..model import KAN

# Powers that are functions of the library.
POWERS = {
    1: "x", 2: "x^2", 3: "x^3", 4: "x^4", 5: "x^5", -1: "1/x", -2: "1/x^2", -3: "1/x^3", -4: "1/x^4", -5: "1/x^5",
    0.5: "sqrt", 1.5: "x^1.5", -0.5: "1/sqrt(x)",
}  # fmt: skip


class Node:
    """An input (index), or the product of sums (factors, one or more); level: number of layers of edges before it."""

    def __init__(self, index: int | None = None, factors: "tuple[Sum, ...]" = ()):
        self.index, self.factors = index, factors
        sources = [term.node.level for factor in factors for term in factor.terms]
        self.level = 0 if index is not None else 1 + max(sources, default=0)

    @property
    def origin(self) -> "Node":
        """The node that this node copies, directly or not; itself if it is no copy."""
        if len(self.factors) == 1 and len(self.factors[0].terms) == 1 and not self.factors[0].constant:
            ((term, scale),) = self.factors[0].terms.items()
            if term.name == "x" and scale == 1.0:
                return term.node.origin
        return self


class Term(NamedTuple):
    """f(a node + b) with the name of f in the library; "x" has a = 1 and b = 0."""

    name: str
    a: float
    b: float
    node: Node


class Sum:
    """constant + the sum of scale * term over {term: scale}."""

    def __init__(self, terms: dict[Term, float], constant: float = 0.0):
        self.terms, self.constant = {term: scale for term, scale in terms.items() if scale}, constant

    @classmethod
    def of(cls, node: Node) -> "Sum":
        return cls({Term("x", 1.0, 0.0, node): 1.0})

    @property
    def key(self) -> tuple:
        return frozenset(self.terms.items()), self.constant

    def __mul__(self, scale: float) -> "Sum":
        return Sum({term: scale * c for term, c in self.terms.items()}, scale * self.constant)

    def __add__(self, other: "Sum") -> "Sum":
        terms = dict(self.terms)
        for term, scale in other.terms.items():
            terms[term] = terms.get(term, 0.0) + scale
        return Sum(terms, self.constant + other.constant)


class Reader:
    """Converts expressions in some variables to Sums; repeated subexpressions share one node."""

    def __init__(self, variables: list):
        self.sympy = import_sympy()
        self.inputs = {variable: Node(index) for index, variable in enumerate(variables)}
        self.nodes: dict[tuple, Node] = {}
        self.sums: dict = {}
        self.functions = list(self._functions())

    def read(self, expr) -> Sum:
        """The Sum of an expression; ValueError names a part that can't be compiled."""
        if expr not in self.sums:
            self.sums[expr] = self._read(expr)
        return self.sums[expr]

    def node(self, factors: list[Sum]) -> Node:
        """The node for a product of sums."""
        factors = [self._one_edge_each(factor) for factor in factors]
        key = tuple(factor.key for factor in factors)
        if key not in self.nodes:
            self.nodes[key] = Node(factors=tuple(factors))
        return self.nodes[key]

    def group_shallow(self, total: Sum, level: int) -> Sum:
        """The same sum, for a node on this level, with the terms of shallower nodes moved to a node of their own."""
        shallow = {term: c for term, c in total.terms.items() if term.node.level < level - 1}
        if len(shallow) < 2:
            return total
        deep = {term: c for term, c in total.terms.items() if term not in shallow}
        node = self.node([Sum(shallow)])
        has_edge = any(term.node.origin is node.origin for term in deep)
        return total if has_edge else Sum({**deep, Term("x", 1.0, 0.0, node): 1.0}, total.constant)

    def _one_edge_each(self, total: Sum) -> Sum:
        """The same sum with one function of each node at most, as there is one edge; the others get their own nodes."""
        while True:
            sources: dict[Node, list[Term]] = {}
            for term in total.terms:
                sources.setdefault(term.node, []).append(term)
            parallel = [term for terms in sources.values() if len(terms) > 1 for term in terms]
            if not parallel:
                return total
            rest = Sum({term: c for term, c in total.terms.items() if term not in parallel}, total.constant)
            own = [Sum.of(self.node([Sum({term: 1.0})])) * total.terms[term] for term in parallel]
            total = reduce(Sum.__add__, own, rest)

    # Expressions

    def _read(self, expr) -> Sum:
        if not expr.free_symbols:
            return Sum({}, self._number(expr))
        if expr.is_Symbol:
            return Sum.of(self.inputs[expr])
        if expr.is_Add:
            return reduce(Sum.__add__, map(self.read, expr.args))
        if expr.is_Mul:
            return self.product([self.read(factor) for factor in expr.args])
        if expr.is_Pow:
            return self._power(*expr.args)
        for function, rest, position, name in self.functions:
            others = expr.args[:position] + expr.args[position + 1 :]
            if expr.func == function and others == rest:
                return self.apply(name, self.read(expr.args[position]))
        composed = _COMPOSED.get(expr.func.__name__)
        if composed is None:
            raise ValueError(f"expr has {expr}: expected sums, products, powers and functions in SYMBOLIC_LIB")
        return self.read(composed(self.sympy, *expr.args))

    def _number(self, expr) -> float:
        try:
            value = complex(expr.evalf(30))
        except (TypeError, ValueError, OverflowError):
            value = complex("nan")
        if value.imag or not math.isfinite(value.real):
            raise ValueError(f"expr has {expr}: expected real numbers that a float64 can hold")
        return value.real

    def product(self, factors: list[Sum]) -> Sum:
        scale = math.prod(factor.constant for factor in factors if not factor.terms)
        factors = [factor for factor in factors if factor.terms]
        if len(factors) < 2:
            return factors[0] * scale if factors else Sum({}, scale)
        return Sum.of(self.node(factors)) * scale

    def apply(self, name: str, of: Sum) -> Sum:
        """The library's function of this name, applied to a sum."""
        if name == "x":
            return of
        if not of.terms:
            return Sum({}, get_symbolic(name)(torch.tensor(of.constant, dtype=torch.float64, device="cpu")).item())
        if len(of.terms) > 1:
            return Sum({Term(name, 1.0, of.constant, self.node([Sum(of.terms)])): 1.0})
        ((term, scale),) = of.terms.items()
        if name == "exp" and term.name == "x^2" and scale < 0 and "gaussian" in SYMBOLIC_LIB:
            root = math.sqrt(-scale)  # exp(d - r^2 (a x + b)^2)
            return Sum({Term("gaussian", root * term.a, root * term.b, term.node): math.exp(of.constant)})
        node = term.node if term.name == "x" else self.node([Sum({term: 1.0})])
        return Sum({Term(name, scale, of.constant, node): 1.0})

    # Powers

    def _power(self, base, exponent) -> Sum:
        if exponent.free_symbols:
            if base.free_symbols:
                log = self.apply("log", self.read(base))
            elif self._number(base) > 0:
                log = Sum({}, self._number(self.sympy.log(base)))
            else:
                raise ValueError(f"expr has {base**exponent}: expected a base above 0 where the exponent is no number")
            return self.apply("exp", self.product([self.read(exponent), log]))
        number = self._number(exponent)
        numerator, denominator = number.as_integer_ratio()
        of = self.read(base)
        if denominator == 1:
            return self._integer_power(of, numerator)
        if number in POWERS:
            return self.apply(POWERS[number], of)
        if denominator in (2, 4, 8):
            for _ in range(denominator.bit_length() - 1):
                of = self.apply("sqrt", of)
            return self._integer_power(of, numerator)
        return self.apply("exp", self.apply("log", of) * number)

    def _integer_power(self, of: Sum, n: int) -> Sum:
        if n == 0:
            return Sum({}, 1.0)
        if n in POWERS:
            return self.apply(POWERS[n], of)
        sign = 1 if n > 0 else -1
        inner = next((m for m in (5, 4, 3, 2) if n % m == 0), 5)
        times, rest = divmod(abs(n), inner)  # x^n = (x^m)^t x^r
        outer = self._integer_power(self.apply(POWERS[inner], of), sign * times)
        return self.product([outer, self._integer_power(of, sign * rest)]) if rest else outer

    def _functions(self) -> Iterator[tuple[Any, tuple, int, str]]:
        """SymPy function, its other arguments, the position of the variable, and name of functions of the library."""
        variable = self.sympy.Dummy()
        for name, function in SYMBOLIC_LIB.items():
            try:
                form = function.sympy_fn(variable)
            except Exception:  # a user's function may fail for a symbol
                continue
            if isinstance(form, self.sympy.Function) and form.args.count(variable) == 1:
                position = form.args.index(variable)
                yield form.func, form.args[:position] + form.args[position + 1 :], position, name


# Functions that are compositions of others; `s` is the module sympy.
_COMPOSED: dict[str, Callable] = {
    "sec": lambda s, x: 1 / s.cos(x),
    "csc": lambda s, x: 1 / s.sin(x),
    "cot": lambda s, x: 1 / s.tan(x),
    "sinh": lambda s, x: (s.exp(x) - s.exp(-x)) / 2,
    "cosh": lambda s, x: (s.exp(x) + s.exp(-x)) / 2,
    "sech": lambda s, x: 2 / (s.exp(x) + s.exp(-x)),
    "csch": lambda s, x: 2 / (s.exp(x) - s.exp(-x)),
    "coth": lambda s, x: 1 / s.tanh(x),
    "asinh": lambda s, x: s.sign(x) * s.log(s.Abs(x) + s.sqrt(x**2 + 1)),
    "acosh": lambda s, x: s.log(x + s.sqrt(x - 1) * s.sqrt(x + 1)),
    "Max": lambda s, *args: reduce(lambda a, b: (a + b + s.Abs(a - b)) / 2, args),
    "Min": lambda s, *args: reduce(lambda a, b: (a + b - s.Abs(a - b)) / 2, args),
}


def compile_formulas(cls: "type[KAN]", variables: Sequence, expr: Any, grid: Any, k: Any, **options: Any) -> "KAN":
    """A KAN of this class that computes SymPy expressions of the variables; see kanpiler."""
    sympy = import_sympy()
    variables = _variables(sympy, variables)
    expressions = [
        _checked(sympy, e, variables) for e in (expr if isinstance(expr, list | tuple | sympy.Tuple) else [expr])
    ]
    if not expressions:
        raise ValueError(f"expr={expr!r}: expected an expression, or a list of at least one")
    reader = Reader(variables)
    layers = _layers(reader, _outputs(reader, [reader.read(e) for e in expressions]))
    arity = [[len(unit.factors) for unit in layer if len(unit.factors) > 1] for layer in layers]
    width = [[len(layer) - len(products), len(products)] for layer, products in zip(layers, arity, strict=True)]
    model = cls(width, grid, k, arity, **options)
    for l, (before, layer) in enumerate(zip(layers, layers[1:], strict=False)):
        _set_edges(model, l, {unit.node: i for i, unit in enumerate(before)}, layer)
    return model


class _Unit:
    """A node of the network: the Node that it computes, None for an output, and its value: product of sums + bias."""

    def __init__(self, node: Node | None, factors: Sequence[Sum], bias: float = 0.0):
        self.node, self.factors, self.bias = node, factors, bias

    def sources(self) -> list[Node]:
        return [term.node.origin for factor in self.factors for term in factor.terms]


def _outputs(reader: Reader, sums: list[Sum]) -> list[_Unit]:
    """The output nodes, in this order. A product needs an "x" edge of its own unless all later outputs are products,
    since layers have their sums first."""
    units: list[_Unit] = []
    for total in reversed(sums):
        product = _as_product(total) if all(len(unit.factors) > 1 for unit in units) else None
        units.insert(0, product or _Unit(None, reader.node([total]).factors))
    return units


def _as_product(total: Sum) -> _Unit | None:
    if len(total.terms) != 1:
        return None
    ((term, scale),) = total.terms.items()
    if term.name != "x" or len(term.node.factors) < 2:
        return None
    first, *others = term.node.factors
    return _Unit(None, [first * scale, *others], total.constant)


def _layers(reader: Reader, outputs: list[_Unit]) -> list[list[_Unit]]:
    """The nodes of every layer, sums first: each on its level, then copied to the layers before its last use."""
    factors = [factor for unit in outputs for factor in unit.factors]
    depth = 1 + max((term.node.level for factor in factors for term in factor.terms), default=0)
    layers = [outputs]
    for level in range(depth - 1, 0, -1):
        for unit in layers[0]:
            unit.factors = [reader.group_shallow(factor, level + 1) for factor in unit.factors]
        needed = dict.fromkeys(node for unit in layers[0] for node in unit.sources())
        units = [_Unit(node, node.factors if node.level == level else [Sum.of(node)]) for node in needed]
        layers.insert(0, sorted(units, key=lambda unit: len(unit.factors) > 1))
    return [[_Unit(node, ()) for node in reader.inputs.values()], *layers]


@torch.no_grad()
def _set_edges(model: "KAN", l: int, index: dict[Node | None, int], layer: list[_Unit]) -> None:
    """Set the functions on the edges of layer l. A constant is the d of the first edge, without edges a bias.

    index: of the nodes of layer l; layer: the nodes of layer l + 1.
    """
    numeric, symbolic = model.act_fun[l], model.symbolic_fun[l]
    numeric.mask.zero_()
    names = [["0"] * numeric.in_dim for _ in range(numeric.out_dim)]
    affine = torch.zeros(symbolic.affine.shape, dtype=torch.float64, device="cpu")
    on = torch.zeros_like(symbolic.edge_mask)
    factors = [factor for unit in layer for factor in unit.factors]
    for j, factor in enumerate(factors):
        constant = factor.constant
        for term, scale in factor.terms.items():
            i = index[term.node.origin]
            names[j][i], on[j, i] = term.name, 1.0
            affine[j, i] = torch.tensor([term.a, term.b, scale, constant], dtype=torch.float64, device="cpu")
            constant = 0.0
        model.subnode_bias[l][j] = constant
    symbolic.affine.copy_(affine)
    symbolic.funs_name, symbolic.mask = names, on
    model.node_bias[l].copy_(torch.tensor([unit.bias for unit in layer], dtype=torch.float64, device="cpu"))
    symbolic.active  # noqa: B018  updates requires_grad of its affine


def _variables(sympy, variables: Any) -> list:
    if not isinstance(variables, Sequence | sympy.Tuple) or isinstance(variables, str):
        raise TypeError(f"input_variables={variables!r}: expected a list of SymPy symbols")
    for variable in variables:
        if not isinstance(variable, sympy.Symbol):
            raise TypeError(f"input_variables={variables!r} has {variable!r}: expected SymPy symbols")
    if not variables or len(set(variables)) != len(variables):
        raise ValueError(f"input_variables={variables!r}: expected different symbols, at least one")
    return list(variables)


def _checked(sympy, expr: Any, variables: list):
    """expr as a SymPy expression in these variables. Text is refused: parsing it could run code."""
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
