"""B-splines in Triton: knot span and basis functions for a tile of x.

`prepare` computes the part that depends on x alone, `feature` the rest for one function f. Both are elementwise: a tile
may have any shape, and x stays in registers in a loop over f. Names and conventions are those of csrc/basis/bspline.h.
"""

import triton
import triton.language as tl

from .family import Family, coordinate

# OUTSIDE, as in fastkan/basis/bspline.py
_ZERO = tl.constexpr(0)
_LINEAR = tl.constexpr(1)
# A coordinate at which all functions are zero.
_FAR = tl.constexpr(-1e6)
# max(c (2 - |t|), 0)^3 - max(d (1 - |t|), 0)^3 is the uniform cubic spline: c^3 = 1/6, d^3 = 4/6
_C = tl.constexpr(0.5503212081491045)
_D = tl.constexpr(0.8735804647362989)


@triton.constexpr_function
def is_closed(order, degree, uniform):
    """Whether to evaluate in closed form: uniform cubics, at orders at which they are continuous."""
    return uniform and degree == 3 and order < 3


@triton.jit
def prepare(x, knots, F, ORDER: tl.constexpr, SPEC: tl.constexpr):
    """The state for `feature` at that derivative order. x: in the coordinate's type; knots: pointers to the row of
    knots_of for each element."""
    if is_closed(ORDER, SPEC.degree, SPEC.uniform):
        z, inv_h = coordinate(x, knots)
        if SPEC.outside == _ZERO:
            return z, inv_h
        else:  # Triton compiles what follows a return
            end = tl.minimum(tl.maximum(z, SPEC.degree), F)
            beyond = z - end
            if ORDER >= (2 if SPEC.outside == _LINEAR else 1):
                end = tl.where(beyond == 0, end, _FAR)
            if SPEC.outside == _LINEAR and ORDER == 0:
                return end, inv_h, beyond
            else:
                return end, inv_h
    else:
        return window(x, knots, F, ORDER, SPEC)


@triton.jit
def feature(state, f, ORDER: tl.constexpr, SPEC: tl.constexpr):
    """d^ORDER/dx^ORDER of function f. The caller writes the NaN of a NaN x to the first degree + 1 functions."""
    if is_closed(ORDER, SPEC.degree, SPEC.uniform):
        t = state[0] - (f + 2)
        y = _cubic(t, ORDER)
        if SPEC.outside == _LINEAR and ORDER == 0:
            slope = _cubic(t, 1)
            y += tl.where(slope == 0, 0.0, state[2] * slope)
        for _ in tl.static_range(ORDER):
            y *= state[1]
        return y
    else:
        k = f - state[0]
        y = tl.where(k == 0, state[1], 0.0)
        for j in tl.static_range(1, SPEC.degree + 1):
            y = tl.where(k == j, state[j + 1], y)
        return y


@triton.jit
def _cubic(t, ORDER: tl.constexpr):
    a = tl.abs(t)
    if ORDER == 0:
        p = tl.maximum(2 * _C - _C * a, 0.0)
        q = tl.maximum(_D - _D * a, 0.0)
        return p * p * p - q * q * q
    else:
        p = tl.maximum(2 - a, 0.0)
        q = tl.maximum(1 - a, 0.0)
        if ORDER == 1:
            slope = 2 * q * q - 0.5 * p * p
            return tl.where(t < 0, -slope, slope)
        else:
            return p - 4 * q


@triton.jit
def window(x, knots, F, ORDER: tl.constexpr, SPEC: tl.constexpr):
    """Start of the window, and values of its degree + 1 functions.

    On the extended knots some of them lie outside 0..F-1 and do not exist. A NaN in x gives start 0 and NaN values.
    """
    intervals = F + SPEC.degree
    if SPEC.uniform:
        z, inv_h = coordinate(x, knots)
        inside = (z >= 0) & (z < intervals)
        if SPEC.outside == _ZERO:
            end = tl.minimum(tl.maximum(z, 0), intervals)
        else:
            end = tl.minimum(tl.maximum(z, SPEC.degree), F)
        at_end = (z if SPEC.outside == _ZERO else end) == F
        last = tl.where(at_end, F - 1, intervals - 1)
        m = tl.minimum(end.to(tl.int32), last)
        beyond = (z - end) / inv_h
        u = end - m
        w = _uniform_functions(u, inv_h, ORDER, SPEC.degree)
        if SPEC.outside == _LINEAR and ORDER == 0:
            slope = _uniform_functions(u, inv_h, 1, SPEC.degree)
    else:
        low = tl.load(knots + SPEC.degree)
        high = tl.load(knots + F)
        inside = (x >= tl.load(knots)) & (x < tl.load(knots + intervals))
        end = x
        if SPEC.outside != _ZERO:
            end = tl.minimum(tl.maximum(x, low), high)
        at_end = end == high
        beyond = x - end
        m = _interval(end, at_end, knots, intervals, SPEC.search)
        w = _functions(end, m, knots, intervals, ORDER, SPEC.degree)
        if SPEC.outside == _LINEAR and ORDER == 0:
            slope = _functions(end, m, knots, intervals, 1, SPEC.degree)
    if SPEC.outside == _ZERO:
        keep = inside | at_end
    elif ORDER >= (2 if SPEC.outside == _LINEAR else 1):
        keep = beyond == 0
    else:
        keep = x == x
    nan = x != x
    state = (tl.where(nan, 0, m - SPEC.degree),)
    for k in tl.static_range(SPEC.degree + 1):
        value = tl.where(keep, w[k], 0.0)
        if SPEC.outside == _LINEAR and ORDER == 0:
            value += tl.where(slope[k] == 0, 0.0, beyond * slope[k])
        state = state + (tl.where(nan, x, value),)
    return state


@triton.jit
def _interval(x, at_end, knots, intervals, SEARCH: tl.constexpr):
    """Index of the last knot, excluding the very last, at or below x; strictly below x at the end of the grid range."""
    m = tl.zeros(x.shape, tl.int32)
    for step in tl.static_range(SEARCH):
        probe = m + (1 << (SEARCH - 1 - step))
        within = probe < intervals
        t = tl.load(knots + tl.where(within, probe, 0))
        m = tl.where(within & tl.where(at_end, x > t, x >= t), probe, m)
    return m


# The local recurrence, r = 1..DEGREE, its last ORDER steps derivatives:
#   q_k = w_k / (t_{m+k+1} - t_{m-r+k+1})
#   value:      w_k <- left(r-k+1) q_{k-1} + right(k+1) q_k
#   derivative: w_k <- r (q_{k-1} - q_k)


@triton.jit
def _uniform_functions(u, inv_h, ORDER: tl.constexpr, DEGREE: tl.constexpr):
    """left(j) = u + j - 1, right(j) = j - u, every support r, in units of h."""
    one = u * 0 + 1
    w = (one,)
    for r in tl.static_range(1, DEGREE + 1):
        below = one * 0
        v = ()
        for k in tl.static_range(r):
            q = w[k] * (1 / r)
            if r > DEGREE - ORDER:
                v = v + (r * (below - q),)
            else:
                v = v + ((u + (r - k)) * below + ((k + 1) - u) * q,)
            below = q
        if r > DEGREE - ORDER:
            w = v + (r * below,)
        else:
            w = v + (u * below,)
    v = ()
    for k in tl.static_range(DEGREE + 1):
        y = w[k]
        if ORDER > DEGREE:
            y = one * 0
        for _ in tl.static_range(ORDER if ORDER <= DEGREE else 0):
            y = y * inv_h
        v = v + (y,)
    return v


@triton.jit
def _functions(x, m, knots, intervals, ORDER: tl.constexpr, DEGREE: tl.constexpr):
    """Any knots: left(j) = x - t_{m+1-j}, right(j) = t_{m+j} - x; indices beyond the ends belong to no function."""
    left = ()
    right = ()
    for j in tl.static_range(1, DEGREE + 1):
        left = left + (x - tl.load(knots + tl.maximum(m + 1 - j, 0)),)
        right = right + (tl.load(knots + tl.minimum(m + j, intervals)) - x,)
    one = x * 0 + 1
    w = (one,)
    for r in tl.static_range(1, DEGREE + 1):
        below = one * 0
        v = ()
        for k in tl.static_range(r):
            support = right[k] + left[r - k - 1]
            q = tl.where(support > 0, w[k] / support, 0.0)
            if r > DEGREE - ORDER:
                v = v + (r * (below - q),)
            elif k == 0:
                v = v + (right[k] * q,)
            else:
                v = v + (left[r - k] * below + right[k] * q,)
            below = q
        if r > DEGREE - ORDER:
            w = v + (r * below,)
        else:
            w = v + (left[0] * below,)
    if ORDER > DEGREE:
        w = (one * 0,)
        for _ in tl.static_range(DEGREE):
            w = w + (one * 0,)
        return w
    else:
        return w


FAMILY = Family.of(prepare, feature, window)
