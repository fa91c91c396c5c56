"""The library of univariate functions that an edge can become: pykan's 29, and the user's."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .sympy_form import named_form, sympy_form


@dataclass(frozen=True, eq=False)
class SymbolicFunction:
    """A function of one variable: how it is computed, written down and weighed against others.

    name: under which it is found; a pickle holds this alone, so that a file can't bring code along.
    torch_fn: elementwise function of a tensor, NaN or infinite where the function is not defined. At the edge of its
        domain, where the slope of sqrt and its like is infinite, that of the library's is 0: see _edged.
    sympy_fn: the same of a SymPy expression.
    complexity: what it costs in a formula, in bits, at least 0.
    singular_torch_fn: (x, y_th) -> tensor, finite everywhere: as torch_fn, but held at (or led smoothly through) the
        threshold y_th > 0 where it would be larger, and continued by symmetry where it is not defined.
    domain: where it is defined, if it is finite at the ends, which data may then reach.
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
    """The function of this name. A SymbolicFunction is returned as it is. Raises KeyError with the known names."""
    if isinstance(name, SymbolicFunction):
        return name
    if not isinstance(name, str):
        raise TypeError(f"name={name!r}: expected the name of a function in SYMBOLIC_LIB")
    if name not in SYMBOLIC_LIB:
        known = ", ".join(map(repr, SYMBOLIC_LIB))
        raise KeyError(f"name={name!r}: expected one of {known}, or one that add_symbolic has added")
    return SYMBOLIC_LIB[name]


def select_symbolic(lib: "Iterable[str | SymbolicFunction] | None" = None) -> list[SymbolicFunction]:
    """The functions of these names, in this order; of the whole library by default. Raises as get_symbolic."""
    if isinstance(lib, str):
        raise TypeError(f"lib={lib!r}: expected a list of names, or None for all")
    chosen = [get_symbolic(name) for name in (SYMBOLIC_LIB if lib is None else lib)]
    if not chosen:
        raise ValueError(f"lib={lib!r}: expected at least one function")
    return chosen


def add_symbolic(
    name: str, fun: Callable[[Tensor], Tensor], c: float = 1, fun_singularity: Callable | None = None
) -> SymbolicFunction:
    """Adds a function to the library, or replaces it, and returns it.

    Args:
        name: a name in formulas.
        fun: elementwise function of a tensor.
        c: complexity, at least 0.
        fun_singularity: (x, y_th) -> values that are finite everywhere, or as in pykan a tuple whose last member these
            are; by default fun itself, whatever y_th is.

    The SymPy form is found from fun where fun is made of operators and functions that both libraries have; otherwise
    it is an undefined SymPy function of this name. Raises TypeError or ValueError for a wrong argument.
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
    probe = torch.linspace(0.25, 0.75, 3, dtype=torch.float64)
    value = fun(probe)
    if not isinstance(value, Tensor) or value.shape != probe.shape:
        raise ValueError(f"fun={fun!r} makes {value!r} of a tensor [3]: expected an elementwise function, a tensor [3]")
    singular = partial(_ignore_threshold, fun) if fun_singularity is None else partial(_last, fun_singularity)
    form = sympy_form(fun) or partial(named_form, _identifier(name))
    SYMBOLIC_LIB[name] = SymbolicFunction(name, EDGED.get(fun, fun), form, c, singular)
    return SYMBOLIC_LIB[name]


def in_library(fun: "str | SymbolicFunction | Callable[[Tensor], Tensor]") -> SymbolicFunction:
    """The library's entry of a name or of a function; a function that it lacks is added, by its __name__.

    Raises as get_symbolic and add_symbolic, and ValueError where the name is that of another function, or of none.
    """
    if isinstance(fun, str):
        return get_symbolic(fun)
    if not callable(fun):
        raise TypeError(f"fun={fun!r}: expected the name of a function in SYMBOLIC_LIB, or a function of a tensor")
    for entry in SYMBOLIC_LIB.values():
        if fun is entry or EDGED.get(fun, fun) is entry.torch_fn:
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


def _ignore_threshold(fun: Callable, x: Tensor, y_th: float) -> Tensor:
    return fun(x)


def _last(fun: Callable, x: Tensor, y_th: float) -> Tensor:
    value = fun(x, torch.as_tensor(y_th, dtype=x.dtype, device=x.device))
    return value[-1] if isinstance(value, tuple) else value


# Functions. Each is at the module's top level, so that a table row pickles whatever holds it.


def _power(n: int, x):
    return x**n


def _reciprocal(n: int, x):
    return 1 / x**n if n > 1 else 1 / x


def _reciprocal_sqrt(x: Tensor) -> Tensor:
    return 1 / torch.sqrt(x)


def _edged(fun: Callable[[Tensor], Tensor], edge: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """fun(x), with derivatives 0 where edge(x): where its slope is infinite, or more than numbers can hold.

    So a row at the edge of a domain does not take the gradient from all others. The branch that is not taken gets an
    argument at which nothing is infinite.
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return fun(x)
    at = edge(x)
    return torch.where(at, fun(x.detach()), fun(x.masked_fill(at, 0.5)))


def _near_zero(power: float, x: Tensor) -> Tensor:
    """Where |x|^-power is more than numbers of this type can hold."""
    return x.abs() <= torch.finfo(x.dtype).max ** (-1 / power)


def _at_one(x: Tensor) -> Tensor:
    return x.abs() == 1


def _near(power: float, fun: Callable) -> Callable[[Tensor], Tensor]:
    return partial(_edged, fun, partial(_near_zero, power))


# torch's functions with edges, as the library has them.
EDGED: dict[Callable, Callable[[Tensor], Tensor]] = {
    **{f: _near(1.0, f) for f in (torch.sqrt, torch.log, torch.log2, torch.log10)},
    **{f: _near(p, f) for f, p in ((torch.rsqrt, 1.5), (torch.reciprocal, 2.0))},
    **{
        f: partial(_edged, f, _at_one)
        for f in (torch.arcsin, torch.asin, torch.arccos, torch.acos, torch.arctanh, torch.atanh)
    },
}


def _power_3_2(x: Tensor) -> Tensor:
    return EDGED[torch.sqrt](x) ** 3


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


# Forms without singularities. A branch that is not taken gets a harmless argument, so that its gradient is finite too.


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


# name, complexity, torch, sympy, without singularities (none where the function has no singularity)
_TABLE = (
    ("x", 1, _identity, _identity, None),
    ("x^2", 2, partial(_power, 2), partial(_power, 2), None),
    ("x^3", 3, partial(_power, 3), partial(_power, 3), None),
    ("x^4", 3, partial(_power, 4), partial(_power, 4), None),
    ("x^5", 3, partial(_power, 5), partial(_power, 5), None),
    ("1/x", 2, _near(2, partial(_reciprocal, 1)), partial(_reciprocal, 1), partial(_singular_reciprocal, 1)),
    ("1/x^2", 2, _near(4, partial(_reciprocal, 2)), partial(_reciprocal, 2), partial(_singular_reciprocal, 2)),
    ("1/x^3", 3, _near(6, partial(_reciprocal, 3)), partial(_reciprocal, 3), partial(_singular_reciprocal, 3)),
    ("1/x^4", 4, _near(8, partial(_reciprocal, 4)), partial(_reciprocal, 4), partial(_singular_reciprocal, 4)),
    ("1/x^5", 5, _near(10, partial(_reciprocal, 5)), partial(_reciprocal, 5), partial(_singular_reciprocal, 5)),
    ("sqrt", 2, EDGED[torch.sqrt], partial(_by_sympy, "sqrt"), _singular_sqrt),
    ("x^0.5", 2, EDGED[torch.sqrt], partial(_by_sympy, "sqrt"), _singular_sqrt),
    ("x^1.5", 4, _power_3_2, _sympy_power_3_2, _singular_power_3_2),
    ("1/sqrt(x)", 2, _near(1.5, _reciprocal_sqrt), _sympy_reciprocal_sqrt, _singular_reciprocal_sqrt),
    ("1/x^0.5", 2, _near(1.5, _reciprocal_sqrt), _sympy_reciprocal_sqrt, _singular_reciprocal_sqrt),
    ("exp", 2, torch.exp, partial(_by_sympy, "exp"), _singular_exp),
    ("log", 2, EDGED[torch.log], partial(_by_sympy, "log"), _singular_log),
    ("abs", 3, torch.abs, partial(_by_sympy, "Abs"), None),
    ("sin", 2, torch.sin, partial(_by_sympy, "sin"), None),
    ("cos", 2, torch.cos, partial(_by_sympy, "cos"), None),
    ("tan", 3, torch.tan, partial(_by_sympy, "tan"), _singular_tan),
    ("tanh", 3, torch.tanh, partial(_by_sympy, "tanh"), None),
    ("sgn", 3, torch.sign, partial(_by_sympy, "sign"), None),
    ("arcsin", 4, EDGED[torch.arcsin], partial(_by_sympy, "asin"), _singular_arcsin),
    ("arccos", 4, EDGED[torch.arccos], partial(_by_sympy, "acos"), _singular_arccos),
    ("arctan", 4, torch.arctan, partial(_by_sympy, "atan"), None),
    ("arctanh", 4, EDGED[torch.arctanh], partial(_by_sympy, "atanh"), _singular_arctanh),
    ("0", 0, _zero, _zero, None),
    ("gaussian", 3, _gaussian, _sympy_gaussian, None),
)

_DOMAINS = {
    **dict.fromkeys(("sqrt", "x^0.5", "x^1.5"), (0.0, math.inf)),
    **dict.fromkeys(("arcsin", "arccos"), (-1.0, 1.0)),
}
_EVERYWHERE = -math.inf, math.inf

# By name. Names and complexities are pykan's (0.2.8); its singularity-avoiding sqrt and arctanh jump at the threshold,
# these are continuous.
SYMBOLIC_LIB: dict[str, SymbolicFunction] = {
    name: SymbolicFunction(
        name, fun, form, complexity, singular or partial(_ignore_threshold, fun), _DOMAINS.get(name, _EVERYWHERE)
    )
    for name, complexity, fun, form, singular in _TABLE
}
