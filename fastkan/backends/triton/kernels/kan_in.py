"""dT/ds: s[n,i] (b^(d)(x) base_slope[n,i] + sum_f B_f^(d)(x) slope_f[n,i]), slope_f[n,i] = sum_o u[n,o] coef[i,f,o].

The gradient of the input is this at one order more. Either a matrix product [N, O] x [O, I] for every function, or, for
each element, a gather of the DEGREE + 1 rows of coefficients of its window. Absent s: 1.
"""

import triton
import triton.language as tl

from .base import base
from .kan_out import edge
from .tile import block, index, load, product, store


@triton.jit(do_not_specialize=["N", "F"])
def matrix(x_data, s_data, u_data, coef, base_weight, knots, grad_x, N, I, O, F, x_n, x_i, s_n, s_i, u_n, u_o, coef_i,
           coef_f, coef_o, base_i, base_o, knots_i, FAMILY: tl.constexpr, SPEC: tl.constexpr, ORDER: tl.constexpr,
           BASE: tl.constexpr, BUCKET: tl.constexpr, INDEX: tl.constexpr, OPERAND: tl.constexpr,
           ACCUMULATOR: tl.constexpr, PRECISION: tl.constexpr, BN: tl.constexpr, BI: tl.constexpr,
           BO: tl.constexpr):  # fmt: skip
    tile = tl.program_id(0)
    columns = tl.cdiv(I, BI)
    n = block(tile // columns * BN, BN, INDEX)
    i = block(tile % columns * BI, BI, INDEX)
    x = load(x_data, n, i, x_n, x_i, N, I).to(ACCUMULATOR)
    state = FAMILY.prepare(x, knots + tl.minimum(i, I - 1)[None, :] * knots_i, F, ORDER, SPEC)
    total = tl.zeros([BN, BI], ACCUMULATOR)
    for f in range(F):
        slope = _slope(u_data, coef + index(f, INDEX) * coef_f, n, i, N, I, O, u_n, u_o, coef_i, coef_o, OPERAND,
                       ACCUMULATOR, PRECISION, BO)  # fmt: skip
        total += FAMILY.feature(state, f, ORDER, SPEC) * slope
    if base_weight is not None:
        slope = _slope(u_data, base_weight, n, i, N, I, O, u_n, u_o, base_i, base_o, OPERAND, ACCUMULATOR, PRECISION,
                       BO)  # fmt: skip
        total += base(x, ORDER, BASE) * slope
    if s_data is not None:
        total *= load(s_data, n, i, s_n, s_i, N, I).to(ACCUMULATOR)
    store(grad_x, tl.where(x != x, float("nan"), total), n, i, I, 1, N, I)


@triton.jit
def _slope(u_data, weight, n, i, N, I, O, u_n, u_o, w_i, w_o, OPERAND: tl.constexpr, ACCUMULATOR: tl.constexpr,
           PRECISION: tl.constexpr, BO: tl.constexpr):  # fmt: skip
    """sum_o u[n,o] weight[i,o]"""
    total = tl.zeros([n.shape[0], i.shape[0]], ACCUMULATOR)
    for o0 in range(0, O, BO):
        o = (o0 + tl.arange(0, BO)).to(n.dtype)
        u = load(u_data, n, o, u_n, u_o, N, O)
        total = product(u, load(weight, o, i, w_o, w_i, O, I), total, OPERAND, PRECISION)
    return total


@triton.jit(do_not_specialize=["N", "F"])
def gather(x_data, s_data, u_data, coef, base_weight, knots, grad_x, N, I, O, F, x_n, x_i, s_n, s_i, u_n, u_o, coef_i,
           coef_f, coef_o, base_i, base_o, knots_i, FAMILY: tl.constexpr, SPEC: tl.constexpr, ORDER: tl.constexpr,
           BASE: tl.constexpr, INDEX: tl.constexpr, ACCUMULATOR: tl.constexpr, BN: tl.constexpr, BI: tl.constexpr,
           BO: tl.constexpr):  # fmt: skip
    tile = tl.program_id(0)
    columns = tl.cdiv(I, BI)
    n = block(tile // columns * BN, BN, INDEX)
    i = block(tile % columns * BI, BI, INDEX)
    total = tl.zeros([BN, BI], ACCUMULATOR)
    for o0 in range(0, O, BO):
        o = block(o0, BO, INDEX)
        u = load(u_data, n, o, u_n, u_o, N, O).to(ACCUMULATOR)
        for k in range(BI):
            j = tl.minimum(index(tile % columns * BI + k, INDEX), I - 1)
            x = tl.load(x_data + n * x_n + j * x_i, n < N, 0.0).to(ACCUMULATOR)
            slope = edge(x, coef + j * coef_i, base_weight, knots + j * knots_i, j * base_i, o, O, F, coef_f, coef_o,
                         base_o, FAMILY, SPEC, ORDER, BASE, ACCUMULATOR)  # fmt: skip
            total += tl.where((tl.arange(0, BI) == k)[None, :], tl.sum(u * slope, 1)[:, None], 0.0)
    if s_data is not None:
        total *= load(s_data, n, i, s_n, s_i, N, I).to(ACCUMULATOR)
    store(grad_x, total, n, i, I, 1, N, I)
