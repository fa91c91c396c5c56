"""The library of symbolic functions for edges: pykan's 29, and the user's."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .sympy_form import sympy_form, undefined_form


@dataclass(frozen=True, eq=False)
class SymbolicFunction:
    """A function of one variable with its torch and SymPy forms and its complexity.

    name: its key in the library; a pickle contains the name only, so that a file can't run code.
    torch_fn: elementwise function of a tensor, NaN or infinite where the function is not defined. At the ends of its
        domain, where the slope of sqrt and similar functions is infinite, the library's slope is 0: see _flat_at.
    sympy_fn: the same function of a SymPy expression.
    complexity: its cost in a formula, in bits, at least 0.
    singular_torch_fn: (x, y_th) -> tensor, finite everywhere: torch_fn, but limited to the threshold y_th > 0, or
        passing smoothly through it, where it would be larger, and continued by symmetry where it is not defined.
    domain: the interval on which it is defined, if it is finite at the ends, so that data may reach them.
    """

    name: str
    torch_fn: Callable[[Tensor], Tensor]
    sympy_fn: Callable
    complexity: float
    singular_torch_fn: Callable[[Tensor, float], Tensor]
    domain: tuple[float, float] = (-math.inf, math.inf)

    def __call__(self, x: Tensor) -> Tensor:
        return self.torch_fn(x)

    def __reduce__(self):
        return get_symbolic, (self.name,)

    def __copy__(self) -> "SymbolicFunction":
        return self

    def __deepcopy__(self, memo) -> "SymbolicFunction":
        return self


def get_symbolic(name: "str | SymbolicFunction") -> SymbolicFunction:
    """The function of this name; a SymbolicFunction is returned unchanged. Raises KeyError that lists the names."""
    if isinstance(name, SymbolicFunction):
        return name
    if not isinstance(name, str):
        raise TypeError(f"name={name!r}: expected the name of a function in SYMBOLIC_LIB")
    if name not in SYMBOLIC_LIB:
        known = ", ".join(map(repr, SYMBOLIC_LIB))
        raise KeyError(f"name={name!r}: expected one of {known}, or a function added by add_symbolic")
    return SYMBOLIC_LIB[name]


def select_symbolic(lib: "Iterable[str | SymbolicFunction] | None" = None) -> list[SymbolicFunction]:
    """The functions of these names, in this order; by default the whole library. Raises as get_symbolic."""
    if isinstance(lib, str):
        raise TypeError(f"lib={lib!r}: expected a list of names, or None for all")
    chosen = [get_symbolic(name) for name in (SYMBOLIC_LIB if lib is None else lib)]
    if not chosen:
        raise ValueError(f"lib={lib!r}: expected at least one function")
    return chosen


def add_symbolic(
    name: str, fun: Callable[[Tensor], Tensor], c: float = 1, fun_singularity: Callable | None = None
) -> SymbolicFunction:
    """Add a function to the library, or replace one, and return it.

    Args:
        name: its name in formulas.
        fun: elementwise function of a tensor.
        c: complexity, at least 0.
        fun_singularity: (x, y_th) -> values that are finite everywhere, or as in pykan a tuple that ends with them; by
            default fun itself, whatever y_th is.

    The SymPy form is traced from fun if fun consists of operators and functions that both libraries have; otherwise it
    is an undefined SymPy function of this name. Raises TypeError or ValueError for a wrong argument.
    """
    if not isinstance(name, str) or not name.strip():
        raise TypeError(f"name={name!r}: expected a name")
    if not callable(fun):
        raise TypeError(f"fun={fun!r}: expected a function of a tensor")
    if isinstance(c, bool) or not isinstance(c, int | float) or not (math.isfinite(c) and c >= 0):
        raise ValueError(f"c={c!r}: expected a finite complexity, at least 0")
    if fun_singularity is not None and not callable(fun_singularity):
        raise TypeError(
            f"fun_singularity={fun_singularity!r}: expected a function of a tensor and a threshold, or None"
        )
    probe = torch.linspace(0.25, 0.75, 3, dtype=torch.float64, device="cpu")
    value = fun(probe)
    if not isinstance(value, Tensor) or value.shape != probe.shape:
        raise ValueError(f"fun={fun!r} returns {value!r} for a tensor [3]: expected an elementwise function")
    singular = partial(without_threshold, fun) if fun_singularity is None else partial(_last, fun_singularity)
    form = sympy_form(fun) or partial(undefined_form, _identifier(name))
    SYMBOLIC_LIB[name] = SymbolicFunction(name, FLAT_AT_ENDS.get(fun, fun), form, c, singular)
    return SYMBOLIC_LIB[name]


def in_library(fun: "str | SymbolicFunction | Callable[[Tensor], Tensor]") -> SymbolicFunction:
    """The library's entry for a name or a function; a function that it lacks is added under its __name__.

    Raises as get_symbolic and add_symbolic, and ValueError for a lambda or where another function has the name.
    """
    if isinstance(fun, str):
        return get_symbolic(fun)
    if not callable(fun):
        raise TypeError(f"fun={fun!r}: expected the name of a function in SYMBOLIC_LIB, or a function of a tensor")
    for entry in SYMBOLIC_LIB.values():
        if fun is entry or FLAT_AT_ENDS.get(fun, fun) is entry.torch_fn:
            return entry
    name = fun.name if isinstance(fun, SymbolicFunction) else getattr(fun, "__name__", "<lambda>")
    if name in SYMBOLIC_LIB or name == "<lambda>":
        raise ValueError(
            f"fun={fun!r}: expected a function with a name that is not yet in SYMBOLIC_LIB; add_symbolic gives it one"
        )
    if isinstance(fun, SymbolicFunction):
        SYMBOLIC_LIB[name] = fun
        return fun
    return add_symbolic(name, fun)


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name)


def without_threshold(fun: Callable, x: Tensor, y_th: float) -> Tensor:
    return fun(x)


def _last(fun: Callable, x: Tensor, y_th: float) -> Tensor:
    value = fun(x, torch.as_tensor(y_th, dtype=x.dtype, device=x.device))
    return value[-1] if isinstance(value, tuple) else value


# Functions. All are at the module's top level, so that objects that hold them can be pickled.


def _power(n: int, x):
    return x**n


def _reciprocal(n: int, x):
    return 1 / x**n if n > 1 else 1 / x


def _reciprocal_sqrt(x: Tensor) -> Tensor:
    return 1 / torch.sqrt(x)


def _flat_at(fun: Callable[[Tensor], Tensor], is_end: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """fun(x), with derivative 0 where is_end(x): where its slope is infinite or overflows.

    So one row at the end of a domain does not make the gradient of all rows infinite. The branch of torch.where that is
    not taken gets an argument at which nothing is infinite.
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return fun(x)
    at = is_end(x)
    return torch.where(at, fun(x.detach()), fun(x.masked_fill(at, 0.5)))


def _near_zero(power: float, x: Tensor) -> Tensor:
    """Whether |x|^-power overflows in this dtype."""
    return x.abs() <= torch.finfo(x.dtype).max ** (-1 / power)


def _at_one(x: Tensor) -> Tensor:
    return x.abs() == 1


def _flat_at_zero(power: float, fun: Callable) -> Callable[[Tensor], Tensor]:
    return partial(_flat_at, fun, partial(_near_zero, power))


# torch's functions with a domain that ends, and the library's forms of them.
FLAT_AT_ENDS: dict[Callable, Callable[[Tensor], Tensor]] = {
    **{f: _flat_at_zero(1.0, f) for f in (torch.sqrt, torch.log, torch.log2, torch.log10)},
    **{f: _flat_at_zero(p, f) for f, p in ((torch.rsqrt, 1.5), (torch.reciprocal, 2.0))},
    **{
        f: partial(_flat_at, f, _at_one)
        for f in (torch.arcsin, torch.asin, torch.arccos, torch.acos, torch.arctanh, torch.atanh)
    },
}


def _power_3_2(x: Tensor) -> Tensor:
    return FLAT_AT_ENDS[torch.sqrt](x) ** 3


def _gaussian(x: Tensor) -> Tensor:
    return torch.exp(-(x**2))


def _identity(x):
    return x


def _zero(x):
    return x * 0


def _by_sympy(function: str, x):
    import sympy

    return getattr(sympy, function)(x)


def _sympy_power_3_2(x):
    return _by_sympy("sqrt", x) ** 3


def _sympy_reciprocal_sqrt(x):
    return 1 / _by_sympy("sqrt", x)


def _sympy_gaussian(x):
    return _by_sympy("exp", -(x**2))


# Forms without singularities. A branch that is not taken gets an argument at which its gradient is finite.


def _singular_reciprocal(n: int, x: Tensor, y_th: float) -> Tensor:
    """x^-n; below |x| = y_th^(-1/n) a straight line through 0 for odd n, y_th for even n."""
    x_th = y_th ** (-1 / n)
    near = x.abs() < x_th
    return torch.where(near, y_th / x_th * x if n % 2 else y_th, 1 / torch.where(near, x_th, x) ** n)


def _singular_sqrt(x: Tensor, y_th: float) -> Tensor:
    """sign(x) sqrt|x|; a straight line through 0 where that is steep, below |x| = y_th^-2."""
    x_th = y_th**-2.0
    near = x.abs() < x_th
    far = torch.where(near, x_th, x)
    return torch.where(near, y_th * x, far.abs().sqrt() * far.sign())


def _singular_power_3_2(x: Tensor, y_th: float) -> Tensor:
    return _power_3_2(x.abs())


def _singular_reciprocal_sqrt(x: Tensor, y_th: float) -> Tensor:
    x_th = y_th**-2.0
    near = x.abs() < x_th
    return torch.where(near, y_th, torch.where(near, x_th, x).abs().rsqrt())


def _singular_log(x: Tensor, y_th: float) -> Tensor:
    x_th = max(math.exp(-y_th), torch.finfo(x.dtype).tiny)
    near = x.abs() < x_th
    return torch.where(near, math.log(x_th), torch.where(near, 1.0, x).abs().log())


def _singular_exp(x: Tensor, y_th: float) -> Tensor:
    beyond = x > math.log(y_th)
    return torch.where(beyond, y_th, torch.where(beyond, 0.0, x).exp())


def _singular_tan(x: Tensor, y_th: float) -> Tensor:
    """tan; near a pole a straight line from y_th down to -y_th."""
    from_pole = x % math.pi - math.pi / 2
    delta = math.pi / 2 - math.atan(y_th)
    near = from_pole.abs() < delta
    return torch.where(near, -y_th / delta * from_pole, torch.where(near, 0.0, x).tan())


def _singular_arctanh(x: Tensor, y_th: float) -> Tensor:
    beyond = x.abs() >= min(math.tanh(y_th), 1 - torch.finfo(x.dtype).eps)
    return torch.where(beyond, y_th * x.sign(), torch.where(beyond, 0.0, x).atanh())


def _singular_arcsin(x: Tensor, y_th: float) -> Tensor:
    beyond = x.abs() >= 1
    return torch.where(beyond, math.pi / 2 * x.sign(), torch.where(beyond, 0.0, x).asin())


def _singular_arccos(x: Tensor, y_th: float) -> Tensor:
    beyond = x.abs() >= 1
    return torch.where(beyond, math.pi / 2 * (1 - x.sign()), torch.where(beyond, 0.0, x).acos())


# name, complexity, torch, sympy, form without singularities (None for a function without singularities)
_TABLE = (
    ("x", 1, _identity, _identity, None),
    ("x^2", 2, partial(_power, 2), partial(_power, 2), None),
    ("x^3", 3, partial(_power, 3), partial(_power, 3), None),
    ("x^4", 3, partial(_power, 4), partial(_power, 4), None),
    ("x^5", 3, partial(_power, 5), partial(_power, 5), None),
    ("1/x", 2, _flat_at_zero(2, partial(_reciprocal, 1)), partial(_reciprocal, 1), partial(_singular_reciprocal, 1)),
    ("1/x^2", 2, _flat_at_zero(4, partial(_reciprocal, 2)), partial(_reciprocal, 2), partial(_singular_reciprocal, 2)),
    ("1/x^3", 3, _flat_at_zero(6, partial(_reciprocal, 3)), partial(_reciprocal, 3), partial(_singular_reciprocal, 3)),
    ("1/x^4", 4, _flat_at_zero(8, partial(_reciprocal, 4)), partial(_reciprocal, 4), partial(_singular_reciprocal, 4)),
    ("1/x^5", 5, _flat_at_zero(10, partial(_reciprocal, 5)), partial(_reciprocal, 5), partial(_singular_reciprocal, 5)),
    ("sqrt", 2, FLAT_AT_ENDS[torch.sqrt], partial(_by_sympy, "sqrt"), _singular_sqrt),
    ("x^0.5", 2, FLAT_AT_ENDS[torch.sqrt], partial(_by_sympy, "sqrt"), _singular_sqrt),
    ("x^1.5", 4, _power_3_2, _sympy_power_3_2, _singular_power_3_2),
    ("1/sqrt(x)", 2, _flat_at_zero(1.5, _reciprocal_sqrt), _sympy_reciprocal_sqrt, _singular_reciprocal_sqrt),
    ("1/x^0.5", 2, _flat_at_zero(1.5, _reciprocal_sqrt), _sympy_reciprocal_sqrt, _singular_reciprocal_sqrt),
    ("exp", 2, torch.exp, partial(_by_sympy, "exp"), _singular_exp),
    ("log", 2, FLAT_AT_ENDS[torch.log], partial(_by_sympy, "log"), _singular_log),
    ("abs", 3, torch.abs, partial(_by_sympy, "Abs"), None),
    ("sin", 2, torch.sin, partial(_by_sympy, "sin"), None),
    ("cos", 2, torch.cos, partial(_by_sympy, "cos"), None),
    ("tan", 3, torch.tan, partial(_by_sympy, "tan"), _singular_tan),
    ("tanh", 3, torch.tanh, partial(_by_sympy, "tanh"), None),
    ("sgn", 3, torch.sign, partial(_by_sympy, "sign"), None),
    ("arcsin", 4, FLAT_AT_ENDS[torch.arcsin], partial(_by_sympy, "asin"), _singular_arcsin),
    ("arccos", 4, FLAT_AT_ENDS[torch.arccos], partial(_by_sympy, "acos"), _singular_arccos),
    ("arctan", 4, torch.arctan, partial(_by_sympy, "atan"), None),
    ("arctanh", 4, FLAT_AT_ENDS[torch.arctanh], partial(_by_sympy, "atanh"), _singular_arctanh),
    ("0", 0, _zero, _zero, None),
    ("gaussian", 3, _gaussian, _sympy_gaussian, None),
)

_DOMAINS = {
    **dict.fromkeys(("sqrt", "x^0.5", "x^1.5"), (0.0, math.inf)),
    **dict.fromkeys(("arcsin", "arccos"), (-1.0, 1.0)),
}
_EVERYWHERE = -math.inf, math.inf

# By name. Names and complexities are pykan's (0.2.8); unlike pykan's, the singularity-avoiding sqrt and arctanh are
# continuous at the threshold.
SYMBOLIC_LIB: dict[str, SymbolicFunction] = {
    name: SymbolicFunction(
        name, fun, form, complexity, singular or partial(without_threshold, fun), _DOMAINS.get(name, _EVERYWHERE)
    )
    for name, complexity, fun, form, singular in _TABLE
}
