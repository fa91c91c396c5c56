"""Readable formulas: numbers rounded or replaced by fractions, simplification with a time limit."""

import math
import sys
import time
import warnings
from collections.abc import Callable
from functools import cmp_to_key

CHANCE = 1e-3  # probability that a random number is as near to a fraction
MAX_DENOMINATOR = 1000
MAX_TERMS = 200  # of a product that is multiplied out


def substitute(expr, table: dict):
    """expr with the keys of the table replaced by their values, without evaluating functions and powers around them.

    SymPy's own xreplace evaluates them again, which can take minutes.
    """
    import sympy

    if expr not in table:
        args = [substitute(arg, table) for arg in expr.args]
        if all(new is old for new, old in zip(args, expr.args, strict=True)):
            table[expr] = expr
        elif isinstance(expr, sympy.Function | sympy.Pow):
            table[expr] = expr.func(*args, evaluate=False)
        elif isinstance(expr, sympy.Add | sympy.Mul) and [a.func for a in args] == [a.func for a in expr.args]:
            table[expr] = expr.func._from_args(sorted(args, key=cmp_to_key(sympy.Basic.compare)))
        else:
            table[expr] = expr.func(*args)
    return table[expr]


def with_real_symbols(*exprs) -> tuple[list, dict]:
    """Expressions with real symbols, with which SymPy is faster, and a table to substitute the original symbols."""
    import sympy

    symbols = {s: s if s.is_extended_real else sympy.Symbol(s.name, real=True) for e in exprs for s in e.free_symbols}
    return [expr.xreplace(symbols) for expr in exprs], {new: old for old, new in symbols.items()}


def round_numbers(expr, digits: int):
    """expr with its floating-point numbers rounded to this many decimals; pykan's ex_round."""
    import sympy

    (expr,), back = with_real_symbols(expr)
    numbers = {f: sympy.Float(round(float(f), digits)) for f in expr.atoms(sympy.Float)}
    return substitute(expr.xreplace(numbers), back)


def nearest_fraction(value: float, tolerance: float):
    """The SymPy fraction, or fraction of pi, near a number; None where there is none.

    It is the fraction p/q with the smallest q at a distance e within the tolerance (relative above 1) that is unlikely
    by chance: a random number has one with a probability of about q^2 e.
    """
    import sympy

    if abs(value) <= tolerance:
        return sympy.S.Zero
    matches = []
    for unit, size in ((sympy.S.One, 1.0), (sympy.pi, math.pi)):
        fraction = _fraction(value / size, tolerance / size * max(1.0, abs(value)))
        if fraction is not None and fraction[0] != 0:
            matches.append((fraction[1] * max(1.0, size - 1), abs(fraction[0]), unit * sympy.Rational(*fraction)))
    return min(matches, key=lambda match: match[:2])[2] if matches else None


def _fraction(value: float, tolerance: float) -> tuple[int, int] | None:
    """The first convergent p, q of the continued fraction of value within the tolerance."""
    rest, (p, q), (p0, q0) = value, (1, 0), (0, 1)
    for _ in range(20):
        whole = math.floor(rest)
        (p, q), (p0, q0) = (whole * p + p0, whole * q + q0), (p, q)
        error = abs(value - p / q)
        if q > MAX_DENOMINATOR:
            return None
        if error <= tolerance and q * q * error <= CHANCE:
            return p, q
        if rest == whole:
            return None
        rest = 1 / (rest - whole)
    return None


def snap_numbers(expr, tolerance: float):
    """expr with numbers near fractions and fractions of pi replaced by these.

    Redundant numbers, as in c sqrt(a x + b) or c log(a x) + d, are moved to different places; the form with the fewest
    floating-point numbers is taken, then the shortest.
    """
    import sympy

    (expr,), back = with_real_symbols(expr)
    forms = [_snap(expr, tolerance)]
    for multinomial in (True, False):
        for inside in (True, False):
            forms.append(_snap(_collect(expr, multinomial, inside, tolerance), tolerance))
    return substitute(min(forms, key=lambda form: (len(form.atoms(sympy.Float)), sympy.count_ops(form))), back)


def _snap(expr, tolerance: float):
    import sympy

    fractions = {f: nearest_fraction(float(f), tolerance) for f in expr.atoms(sympy.Float)}
    return expr.xreplace({f: value for f, value in fractions.items() if value is not None})


def _collect(expr, multinomial: bool, inside: bool, tolerance: float):
    """expr with redundant numbers in one place, from the innermost outwards; products multiplied out."""
    import sympy

    if not expr.args or not expr.has(sympy.Float):
        return expr
    expr = expr.func(*(_collect(arg, multinomial, inside, tolerance) for arg in expr.args))
    if _count_terms(sympy, expr) <= MAX_TERMS:
        kinds = {"power_base": False, "power_exp": False, "log": False, "basic": False}
        expr = sympy.expand(expr, deep=False, mul=True, multinomial=multinomial, **kinds)
    expr = _drop_rounding(sympy, expr, tolerance)
    terms = sympy.Add.make_args(sympy.Add(*(_collect_term(sympy, t, inside) for t in sympy.Add.make_args(expr))))
    constant = sympy.Add(*(term for term in terms if term.is_number))
    rest = [term for term in terms if not term.is_number]
    logs = [n for n, term in enumerate(rest) if isinstance(term.as_coeff_Mul()[1], sympy.log)]
    if inside and len(logs) == 1 and constant:
        coefficient, log = rest[logs[0]].as_coeff_Mul()
        argument = sympy.expand(log.args[0] * sympy.exp(constant / coefficient).evalf())
        rest[logs[0]], constant = coefficient * sympy.log(argument), sympy.S.Zero
    return sympy.Add(*rest, constant)


def _count_terms(sympy, expr) -> int:
    """The number of terms of expr when it is multiplied out."""
    if expr.is_Add:
        return sum(_count_terms(sympy, term) for term in expr.args)
    if expr.is_Mul:
        return math.prod(_count_terms(sympy, factor) for factor in expr.args)
    if expr.is_Pow and expr.exp.is_Integer and expr.exp > 1:
        return math.comb(_count_terms(sympy, expr.base) + int(expr.exp) - 1, int(expr.exp))
    return 1


def _drop_rounding(sympy, expr, tolerance: float):
    """A sum without terms whose coefficients are negligible."""
    return expr.xreplace({f: sympy.S.Zero for f in expr.atoms(sympy.Float) if abs(f) <= tolerance * 1e-2})


def _collect_term(sympy, term, inside: bool):
    """c f(a (...)) for a power, |...| or log f with a = +-1, or c = +-1; exp(... + k) as exp(k) exp(...)."""
    number, rest = term.as_coeff_Mul()
    factors = []
    powers = [f for f in sympy.Mul.make_args(rest) if _is_homogeneous(sympy, f)]
    for factor in sympy.Mul.make_args(rest):
        if isinstance(factor, sympy.exp) and factor.args[0].is_Add:
            shift, exponent = factor.args[0].as_coeff_Add()
            number, factor = number * sympy.exp(shift).evalf(), sympy.exp(exponent)
        elif isinstance(factor, sympy.log) and factor.args[0].is_Add and rest is factor:
            leading = _leading(factor.args[0])
            return number * sympy.log(sympy.expand(factor.args[0] / leading)) + number * sympy.log(leading).evalf()
        elif _is_homogeneous(sympy, factor):
            base, exponent = (factor.args[0], sympy.S.One) if factor.is_Function else factor.as_base_exp()
            by = abs(number) ** (1 / exponent) if inside and len(powers) == 1 else 1 / _leading(base)
            number = number / by**exponent
            argument = sympy.expand(base * by)
            factor = factor.func(argument) if factor.is_Function else argument**exponent
        factors.append(factor)
    return number * sympy.Mul(*factors)


def _is_homogeneous(sympy, factor) -> bool:
    if isinstance(factor, sympy.Abs):
        return factor.args[0].is_Add
    return factor.is_Pow and factor.base.is_Add and factor.exp.is_Rational


def _leading(total):
    """The largest absolute coefficient of a sum's terms."""
    return max(abs(term.as_coeff_Mul()[0]) for term in total.args)


def shortest_form(expr, seconds: float):
    """The shortest result of several SymPy simplifications of expr, for real variables, within a time limit.

    At the limit, the shortest form so far, with a warning.
    """
    import sympy

    (expr,), back = with_real_symbols(expr)
    deadline = time.monotonic() + seconds
    best = expr
    steps = (
        sympy.factor_terms,
        sympy.simplify,
        lambda e: sympy.simplify(sympy.expand(e)),
        lambda e: sympy.simplify(sympy.expand_trig(e)),
    )
    for step in steps:
        try:
            form = _run_until(deadline, step, expr)
        except _OutOfTime:
            message = f"simplify: {seconds:g} seconds were not enough; the formula is the shortest so far"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
            break
        if count_operations(form) < count_operations(best):
            best = form
    return substitute(best, back)


def count_operations(expr) -> int:
    """The length of a formula: its operations, where a function such as tanh counts as three."""
    import sympy

    return sympy.count_ops(expr) + 2 * sum(isinstance(part, sympy.Function) for part in sympy.preorder_traversal(expr))


class _OutOfTime(BaseException):  # not an Exception, since SymPy catches these
    pass


def _run_until(deadline: float, fun: Callable, *args):
    """fun(*args); raises _OutOfTime at the first Python call after the deadline, in any thread, on any system.

    Uses the profiler hook of Python; without effect while a profiler is active.
    """

    def check(frame, event, argument):
        if time.monotonic() > deadline:
            raise _OutOfTime

    if sys.getprofile() is not None:
        return fun(*args)
    sys.setprofile(check)
    try:
        return fun(*args)
    finally:
        sys.setprofile(None)
