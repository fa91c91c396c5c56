"""Formulas as a person would write them: numbers recognised or rounded, simplification that ends in time."""

import math
import sys
import time
import warnings
from functools import cmp_to_key

CHANCE = 1e-3  # of a number to be as near to a fraction as the one it is taken for
LARGEST = 1000  # denominator of a fraction
MOST_TERMS = 200  # to which a product is multiplied out


def replaced(expr, table: dict):
    """expr with the keys of the table as their values, functions and powers around them left as they are.

    SymPy's own xreplace looks for a simpler form of each anew, which can take minutes.
    """
    import sympy

    if expr not in table:
        args = [replaced(arg, table) for arg in expr.args]
        if all(new is old for new, old in zip(args, expr.args, strict=True)):
            table[expr] = expr
        elif isinstance(expr, sympy.Function | sympy.Pow):
            table[expr] = expr.func(*args, evaluate=False)
        elif isinstance(expr, sympy.Add | sympy.Mul) and [a.func for a in args] == [a.func for a in expr.args]:
            table[expr] = expr.func._from_args(sorted(args, key=cmp_to_key(sympy.Basic.compare)))
        else:
            table[expr] = expr.func(*args)
    return table[expr]


def real(*exprs) -> tuple[list, dict]:
    """Expressions with symbols that are known to be real, with which SymPy is faster; a table for the way back."""
    import sympy

    symbols = {s: s if s.is_extended_real else sympy.Symbol(s.name, real=True) for e in exprs for s in e.free_symbols}
    return [expr.xreplace(symbols) for expr in exprs], {new: old for old, new in symbols.items()}


def rounded(expr, digits: int):
    """expr with its floating-point numbers rounded to so many digits after the point; pykan's ex_round."""
    import sympy

    (expr,), back = real(expr)
    numbers = {f: sympy.Float(round(float(f), digits)) for f in expr.atoms(sympy.Float)}
    return replaced(expr.xreplace(numbers), back)


def recognised(value: float, tolerance: float):
    """The fraction, or fraction of pi, that a number is near to, as SymPy's; None where there is none.

    The fraction p/q of least q at a distance e of at most the tolerance (times the number, above 1), where one as near
    is no coincidence: numbers at random have one with a probability of about q^2 e.
    """
    import sympy

    if abs(value) <= tolerance:
        return sympy.S.Zero
    found = []
    for unit, size in ((sympy.S.One, 1.0), (sympy.pi, math.pi)):
        fraction = _fraction(value / size, tolerance / size * max(1.0, abs(value)))
        if fraction is not None and fraction[0] != 0:
            found.append((fraction[1] * max(1.0, size - 1), abs(fraction[0]), unit * sympy.Rational(*fraction)))
    return min(found, key=lambda f: f[:2])[2] if found else None


def _fraction(value: float, tolerance: float) -> tuple[int, int] | None:
    """The first convergent p, q of the continued fraction of value that is near enough."""
    rest, (p, q), (p0, q0) = value, (1, 0), (0, 1)
    for _ in range(20):
        whole = math.floor(rest)
        (p, q), (p0, q0) = (whole * p + p0, whole * q + q0), (p, q)
        error = abs(value - p / q)
        if q > LARGEST:
            return None
        if error <= tolerance and q * q * error <= CHANCE:
            return p, q
        if rest == whole:
            return None
        rest = 1 / (rest - whole)
    return None


def snapped(expr, tolerance: float):
    """expr with its numbers as fractions and multiples of pi, where they are near to them.

    Numbers that the function determines only together, as in c sqrt(a x + b) or c log(a x) + d, are put in different
    places, and that with the fewest numbers left unrecognised, then the shortest, is taken.
    """
    import sympy

    (expr,), back = real(expr)
    forms = [_snap(expr, tolerance)]
    for multinomial in (True, False):
        for inside in (True, False):
            forms.append(_snap(_gathered(expr, multinomial, inside, tolerance), tolerance))
    return replaced(min(forms, key=lambda form: (len(form.atoms(sympy.Float)), sympy.count_ops(form))), back)


def _snap(expr, tolerance: float):
    import sympy

    known = {f: recognised(float(f), tolerance) for f in expr.atoms(sympy.Float)}
    return expr.xreplace({f: value for f, value in known.items() if value is not None})


def _gathered(expr, multinomial: bool, inside: bool, tolerance: float):
    """expr with redundant numbers in one place, from the innermost outwards; products multiplied out."""
    import sympy

    if not expr.args or not expr.has(sympy.Float):
        return expr
    expr = expr.func(*(_gathered(arg, multinomial, inside, tolerance) for arg in expr.args))
    if _terms(sympy, expr) <= MOST_TERMS:
        kinds = {"power_base": False, "power_exp": False, "log": False, "basic": False}
        expr = sympy.expand(expr, deep=False, mul=True, multinomial=multinomial, **kinds)
    expr = _without_rounding(sympy, expr, tolerance)
    terms = sympy.Add.make_args(sympy.Add(*(_gathered_term(sympy, t, inside) for t in sympy.Add.make_args(expr))))
    constant = sympy.Add(*(term for term in terms if term.is_number))
    rest = [term for term in terms if not term.is_number]
    logs = [n for n, term in enumerate(rest) if isinstance(term.as_coeff_Mul()[1], sympy.log)]
    if inside and len(logs) == 1 and constant:
        coefficient, log = rest[logs[0]].as_coeff_Mul()
        argument = sympy.expand(log.args[0] * sympy.exp(constant / coefficient).evalf())
        rest[logs[0]], constant = coefficient * sympy.log(argument), sympy.S.Zero
    return sympy.Add(*rest, constant)


def _terms(sympy, expr) -> int:
    """How many terms expr has when it is multiplied out."""
    if expr.is_Add:
        return sum(_terms(sympy, term) for term in expr.args)
    if expr.is_Mul:
        return math.prod(_terms(sympy, factor) for factor in expr.args)
    if expr.is_Pow and expr.exp.is_Integer and expr.exp > 1:
        return math.comb(_terms(sympy, expr.base) + int(expr.exp) - 1, int(expr.exp))
    return 1


def _without_rounding(sympy, expr, tolerance: float):
    """A sum without terms whose coefficient is next to nothing beside 1 and the others'."""
    return expr.xreplace({f: sympy.S.Zero for f in expr.atoms(sympy.Float) if abs(f) <= tolerance * 1e-2})


def _gathered_term(sympy, term, inside: bool):
    """c f(a (...)) for a power, |...| or log f: with a = +-1, or with c = +-1; exp(... + k) as exp(k) exp(...)."""
    number, rest = term.as_coeff_Mul()
    factors = []
    powers = [f for f in sympy.Mul.make_args(rest) if _homogeneous(sympy, f)]
    for factor in sympy.Mul.make_args(rest):
        if isinstance(factor, sympy.exp) and factor.args[0].is_Add:
            shift, exponent = factor.args[0].as_coeff_Add()
            number, factor = number * sympy.exp(shift).evalf(), sympy.exp(exponent)
        elif isinstance(factor, sympy.log) and factor.args[0].is_Add and rest is factor:
            leading = _leading(factor.args[0])
            return number * sympy.log(sympy.expand(factor.args[0] / leading)) + number * sympy.log(leading).evalf()
        elif _homogeneous(sympy, factor):
            base, exponent = (factor.args[0], sympy.S.One) if factor.is_Function else factor.as_base_exp()
            by = abs(number) ** (1 / exponent) if inside and len(powers) == 1 else 1 / _leading(base)
            number = number / by**exponent
            argument = sympy.expand(base * by)
            factor = factor.func(argument) if factor.is_Function else argument**exponent
        factors.append(factor)
    return number * sympy.Mul(*factors)


def _homogeneous(sympy, factor) -> bool:
    if isinstance(factor, sympy.Abs):
        return factor.args[0].is_Add
    return factor.is_Pow and factor.base.is_Add and factor.exp.is_Rational


def _leading(total):
    """The largest coefficient of a sum's terms, in size."""
    return max(abs(term.as_coeff_Mul()[0]) for term in total.args)


def simplified(expr, seconds: float):
    """The shortest of what SymPy's simplifications make of expr, for real variables, within so many seconds.

    Where the time is not enough, the shortest so far, with a warning.
    """
    import sympy

    (expr,), back = real(expr)
    ends = time.monotonic() + seconds
    best = expr
    steps = (
        sympy.factor_terms,
        sympy.simplify,
        lambda e: sympy.simplify(sympy.expand(e)),
        lambda e: sympy.simplify(sympy.expand_trig(e)),
    )
    for step in steps:
        try:
            found = _within(ends, step, expr)
        except _OutOfTime:
            message = f"simplify: {seconds:g} seconds were not enough; the formula is the shortest so far"
            warnings.warn(message, RuntimeWarning, stacklevel=3)
            break
        if count_operations(found) < count_operations(best):
            best = found
    return replaced(best, back)


def count_operations(expr) -> int:
    """The length of a formula: its operations, a function such as tanh counting as three."""
    import sympy

    return sympy.count_ops(expr) + 2 * sum(isinstance(part, sympy.Function) for part in sympy.preorder_traversal(expr))


class _OutOfTime(BaseException):  # not an Exception, which SymPy catches here and there
    pass


def _within(ends: float, fun, *args):
    """fun(*args), or _OutOfTime: raised at the first Python call after the end, in any thread, on any system.

    It takes the place of a profiler; where one is at work, there is no end.
    """

    def look(frame, event, argument):
        if time.monotonic() > ends:
            raise _OutOfTime

    if sys.getprofile() is not None:
        return fun(*args)
    sys.setprofile(look)
    try:
        return fun(*args)
    finally:
        sys.setprofile(None)
