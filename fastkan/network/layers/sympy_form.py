"""The SymPy form of an elementwise torch function, from a trace of its operations."""

import math
import operator
from collections.abc import Callable
from functools import partial

import torch
from torch import fx

# torch's name -> SymPy's, for functions of one argument.
_SAME = {
    name: name for name in "exp log sqrt sin cos tan sinh cosh tanh asin acos atan asinh acosh atanh erf erfc".split()
} | {
    "abs": "Abs", "absolute": "Abs", "sign": "sign", "sgn": "sign", "arcsin": "asin", "arccos": "acos",
    "arctan": "atan", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
    "special_erf": "erf", "special_erfc": "erfc", "floor": "floor", "ceil": "ceiling", "lgamma": "loggamma",
    "special_gammaln": "loggamma", "digamma": "digamma", "special_digamma": "digamma",
}  # fmt: skip
# Functions that SymPy expresses by operators or other functions; `s` is the module sympy.
_COMPOSED = {
    "square": lambda s, x: x**2,
    "reciprocal": lambda s, x: 1 / x,
    "rsqrt": lambda s, x: 1 / s.sqrt(x),
    "neg": lambda s, x: -x,
    "exp2": lambda s, x: 2**x,
    "special_exp2": lambda s, x: 2**x,
    "expm1": lambda s, x: s.exp(x) - 1,
    "special_expm1": lambda s, x: s.exp(x) - 1,
    "log1p": lambda s, x: s.log(1 + x),
    "special_log1p": lambda s, x: s.log(1 + x),
    "log2": lambda s, x: s.log(x, 2),
    "log10": lambda s, x: s.log(x, 10),
    "sigmoid": lambda s, x: 1 / (1 + s.exp(-x)),
    "special_expit": lambda s, x: 1 / (1 + s.exp(-x)),
    "silu": lambda s, x: x / (1 + s.exp(-x)),
    "softplus": lambda s, x: s.log(1 + s.exp(x)),
    "relu": lambda s, x: s.Max(x, 0),
    "sinc": lambda s, x: s.sinc(s.pi * x),
    "special_sinc": lambda s, x: s.sinc(s.pi * x),
    "special_bessel_j0": lambda s, x: s.besselj(0, x),
    "special_bessel_j1": lambda s, x: s.besselj(1, x),
    "special_bessel_y0": lambda s, x: s.bessely(0, x),
    "special_bessel_y1": lambda s, x: s.bessely(1, x),
    "special_modified_bessel_i0": lambda s, x: s.besseli(0, x),
    "special_modified_bessel_i1": lambda s, x: s.besseli(1, x),
    "i0": lambda s, x: s.besseli(0, x),
    "special_i0": lambda s, x: s.besseli(0, x),
    "special_i1": lambda s, x: s.besseli(1, x),
}
_OPERATORS = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv, "pow": operator.pow,
    "div": operator.truediv, "true_divide": operator.truediv, "multiply": operator.mul, "subtract": operator.sub,
    "neg": operator.neg, "pos": operator.pos,
}  # fmt: skip
_PROBES = (-1.7, -0.6, 0.3, 0.45, 0.8, 1.9)


def undefined_form(name: str, x):
    """An undefined SymPy function of this name, at x."""
    import sympy

    return sympy.Function(name)(x)


def sympy_form(fun: Callable) -> Callable | None:
    """expr -> fun(expr) in SymPy; None where fun has operations that SymPy lacks, or branches on values.

    The form is compared with fun at a few points; None where they differ.
    """
    try:
        graph = fx.Tracer().trace(lambda x: fun(x))
        form = partial(_evaluate, [(n.op, n.target, n.args, n.kwargs, n.name) for n in graph.nodes])
        return form if _agrees(fun, form) else None
    except Exception:  # the user's function may raise anything for a tracer's proxy
        return None


def _evaluate(nodes: list, x):
    """The value of a traced graph at the SymPy expression x."""
    import sympy

    values = {}

    def value(argument):
        argument = values[argument.name] if isinstance(argument, fx.Node) else argument
        return int(argument) if isinstance(argument, float) and argument.is_integer() else argument

    for op, target, args, kwargs, name in nodes:
        if op == "placeholder":
            values[name] = sympy.sympify(x)
        elif op == "output":
            return value(args[0])
        elif op in ("call_function", "call_method") and not any(kwargs.values()):
            values[name] = _apply(sympy, target if op == "call_method" else target.__name__, [value(a) for a in args])
        else:
            raise ValueError(f"{op} {target}: not an operation of a formula")
    raise ValueError("a graph without an output")


def _apply(sympy, name: str, args: list):
    if len(args) == 1 and _SAME.get(name):
        return getattr(sympy, _SAME[name])(args[0])
    if len(args) == 1 and name in _COMPOSED:
        return _COMPOSED[name](sympy, args[0])
    return _OPERATORS[name](*map(sympy.sympify, args))


def _agrees(fun: Callable, form: Callable) -> bool:
    values = fun(torch.tensor(_PROBES, dtype=torch.float64, device="cpu")).tolist()
    count = 0
    for probe, expected in zip(_PROBES, values, strict=True):
        if not math.isfinite(expected):
            continue
        if not abs(complex(form(probe)) - expected) <= 1e-9 * max(1.0, abs(expected)):
            return False
        count += 1
    return count >= 2
