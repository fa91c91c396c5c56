"""A SymPy expression as what a KAN is made of: products of sums of functions of one variable.

node = product of sums;  sum = constant + sum_t c_t f_t(a_t node_t + b_t),  f_t in the library
"""

import math
from functools import reduce
from typing import NamedTuple

import torch

from .formula import import_sympy
from .library import SYMBOLIC_LIB, get_symbolic

# Integer and half-integer powers that are functions of the library.
POWERS = {
    1: "x", 2: "x^2", 3: "x^3", 4: "x^4", 5: "x^5", -1: "1/x", -2: "1/x^2", -3: "1/x^3", -4: "1/x^4", -5: "1/x^5",
    0.5: "sqrt", 1.5: "x^1.5", -0.5: "1/sqrt(x)",
}  # fmt: skip


class Node:
    """An input (index), or the product of sums (factors, one or more); level: the layers of edges before it."""

    def __init__(self, index: int | None = None, factors: "tuple[Sum, ...]" = ()):
        self.index, self.factors = index, factors
        sources = [term.node.level for factor in factors for term in factor.terms]
        self.level = 0 if index is not None else 1 + max(sources, default=0)

    @property
    def origin(self) -> "Node":
        """The node whose value it is, where it only hands that on."""
        if len(self.factors) == 1 and len(self.factors[0].terms) == 1 and not self.factors[0].constant:
            ((term, scale),) = self.factors[0].terms.items()
            if term.name == "x" and scale == 1.0:
                return term.node.origin
        return self


class Term(NamedTuple):
    """f(a node + b), f by its name in the library; "x" has a = 1 and b = 0."""

    name: str
    a: float
    b: float
    node: Node


class Sum:
    """constant + the sum of terms, each times its scale: {term: scale}."""

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
    """Makes Sums of expressions in some variables; what occurs twice becomes one node."""

    def __init__(self, variables: list):
        self.sympy = import_sympy()
        self.inputs = {variable: Node(index) for index, variable in enumerate(variables)}
        self.nodes: dict[tuple, Node] = {}
        self.sums: dict = {}
        self.functions = list(self._functions())

    def read(self, expr) -> Sum:
        """ValueError names what is not expressible."""
        if expr not in self.sums:
            self.sums[expr] = self._read(expr)
        return self.sums[expr]

    def node(self, factors: list[Sum]) -> Node:
        factors = [self._resolved(factor) for factor in factors]
        key = tuple(factor.key for factor in factors)
        if key not in self.nodes:
            self.nodes[key] = Node(factors=tuple(factors))
        return self.nodes[key]

    def gathered(self, total: Sum, level: int) -> Sum:
        """The same sum, for a node on this level, with the terms of less deep nodes gathered in a node of their own."""
        shallow = {term: c for term, c in total.terms.items() if term.node.level < level - 1}
        if len(shallow) < 2:
            return total
        deep = {term: c for term, c in total.terms.items() if term not in shallow}
        node = self.node([Sum(shallow)])
        taken = any(term.node.origin is node.origin for term in deep)
        return total if taken else Sum({**deep, Term("x", 1.0, 0.0, node): 1.0}, total.constant)

    def _resolved(self, total: Sum) -> Sum:
        """The same sum with at most one function of each node, as there is one edge from it: others get own nodes."""
        while True:
            sources: dict[Node, list[Term]] = {}
            for term in total.terms:
                sources.setdefault(term.node, []).append(term)
            crowded = [term for terms in sources.values() if len(terms) > 1 for term in terms]
            if not crowded:
                return total
            rest = Sum({term: c for term, c in total.terms.items() if term not in crowded}, total.constant)
            own = [Sum.of(self.node([Sum({term: 1.0})])) * total.terms[term] for term in crowded]
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
        """The function of this name in the library, of a sum."""
        if name == "x":
            return of
        if not of.terms:
            return Sum({}, get_symbolic(name)(torch.tensor(of.constant, dtype=torch.float64)).item())
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

    def _functions(self):
        """(SymPy function, its other arguments, the variable's place among them, name) of functions in the library."""
        variable = self.sympy.Dummy()
        for name, function in SYMBOLIC_LIB.items():
            try:
                form = function.sympy_fn(variable)
            except Exception:  # a user's function may fail on what is not a number
                continue
            if isinstance(form, self.sympy.Function) and form.args.count(variable) == 1:
                position = form.args.index(variable)
                yield form.func, form.args[:position] + form.args[position + 1 :], position, name


# Functions that are made of others; `s` is SymPy.
_COMPOSED = {
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
