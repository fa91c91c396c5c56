"""dT/du: y[n,o] = sum_i s[n,i] (base_weight[i,o] b^(d)(x) + sum_f coef[i,f,o] B_f^(d)(x)) + bias[o].

Either a matrix product [N, I F] x [I F, O] whose left operand is computed in registers from a tile of x, one function
at a time; or, for each row, a gather of the DEGREE + 1 rows of coefficients of its window.
"""

import triton
import triton.language as tl

from .base import base
from .tile import block, index, load, product, store, swizzle

_GROUP = tl.constexpr(8)  # rows of tiles scheduled together


@triton.jit(do_not_specialize=["N", "F"])
def matrix(x_data, s_data, coef, base_weight, bias, knots, y, N, I, O, F, x_n, x_i, s_n, s_i, coef_i, coef_f, coef_o,
           base_i, base_o, bias_o, knots_i, FAMILY: tl.constexpr, SPEC: tl.constexpr, ORDER: tl.constexpr,
           BASE: tl.constexpr, BUCKET: tl.constexpr, INDEX: tl.constexpr, OPERAND: tl.constexpr,
           ACCUMULATOR: tl.constexpr, PRECISION: tl.constexpr, BN: tl.constexpr, BI: tl.constexpr,
           BO: tl.constexpr):  # fmt: skip
    rows, columns = tl.cdiv(N, BN), tl.cdiv(O, BO)
    row, column = swizzle(tl.program_id(0), rows, columns, _GROUP)
    n = block(row * BN, BN, INDEX)
    o = block(column * BO, BO, INDEX)
    total = tl.zeros([BN, BO], ACCUMULATOR)
    nan = tl.zeros([BN], tl.int32)
    for i0 in range(0, I, BI):
        i = block(i0, BI, INDEX)
        x = load(x_data, n, i, x_n, x_i, N, I).to(ACCUMULATOR)
        if s_data is not None:
            s = load(s_data, n, i, s_n, s_i, N, I).to(ACCUMULATOR)
        state = FAMILY.prepare(x, knots + tl.minimum(i, I - 1)[None, :] * knots_i, F, ORDER, SPEC)
        for f in range(F):
            a = FAMILY.feature(state, f, ORDER, SPEC)
            if s_data is not None:
                a *= s
            c = load(coef + index(f, INDEX) * coef_f, i, o, coef_i, coef_o, I, O)
            total = product(a, c, total, OPERAND, PRECISION)
        if base_weight is not None:
            a = base(x, ORDER, BASE)
            if s_data is not None:
                a *= s
            total = product(a, load(base_weight, i, o, base_i, base_o, I, O), total, OPERAND, PRECISION)
        nan |= tl.max((x != x).to(tl.int32), 1)
    if bias is not None:
        total += tl.load(bias + o * bias_o, o < O, 0.0)[None, :].to(ACCUMULATOR)
    total = tl.where(nan[:, None] > 0, float("nan"), total)
    store(y, total, n, o, O, 1, N, O)


@triton.jit(do_not_specialize=["N", "F"])
def gather(x_data, s_data, coef, base_weight, bias, knots, y, N, I, O, F, x_n, x_i, s_n, s_i, coef_i, coef_f, coef_o,
           base_i, base_o, bias_o, knots_i, FAMILY: tl.constexpr, SPEC: tl.constexpr, ORDER: tl.constexpr,
           BASE: tl.constexpr, INDEX: tl.constexpr, ACCUMULATOR: tl.constexpr, BN: tl.constexpr,
           BO: tl.constexpr):  # fmt: skip
    columns = tl.cdiv(O, BO)
    n = block(tl.program_id(0) // columns * BN, BN, INDEX)
    o = block(tl.program_id(0) % columns * BO, BO, INDEX)
    total = tl.zeros([BN, BO], ACCUMULATOR)
    for i0 in range(I):
        i = index(i0, INDEX)
        x = tl.load(x_data + n * x_n + i * x_i, n < N, 0.0).to(ACCUMULATOR)
        phi = edge(x, coef + i * coef_i, base_weight, knots + i * knots_i, i * base_i, o, O, F, coef_f, coef_o, base_o,
                   FAMILY, SPEC, ORDER, BASE, ACCUMULATOR)  # fmt: skip
        if s_data is not None:
            phi *= tl.load(s_data + n * s_n + i * s_i, n < N, 0.0)[:, None].to(ACCUMULATOR)
        total += phi
    if bias is not None:
        total += tl.load(bias + o * bias_o, o < O, 0.0)[None, :].to(ACCUMULATOR)
    store(y, total, n, o, O, 1, N, O)


@triton.jit
def edge(x, coef, base_weight, knots, base_offset, o, O, F, coef_f, coef_o, base_o, FAMILY: tl.constexpr,
         SPEC: tl.constexpr, ORDER: tl.constexpr, BASE: tl.constexpr, ACCUMULATOR: tl.constexpr):  # fmt: skip
    """phi^(ORDER)(x) of the edges from one input to the outputs o, [BN, BO]: x [BN]."""
    live = (o < O)[None, :]
    if FAMILY.window is not None:
        state = FAMILY.window(x, knots, F, ORDER, SPEC)
        row = state[0]
        y = tl.zeros([x.shape[0], o.shape[0]], ACCUMULATOR)
        for k in tl.static_range(SPEC.degree + 1):
            f = row + k
            at = coef + f[:, None].to(o.dtype) * coef_f + o[None, :] * coef_o
            c = tl.load(at, ((f >= 0) & (f < F))[:, None] & live, 0.0)
            y += state[k + 1][:, None] * c.to(ACCUMULATOR)
    else:
        state = FAMILY.prepare(x, knots, F, ORDER, SPEC)
        y = tl.zeros([x.shape[0], o.shape[0]], ACCUMULATOR)
        for f in range(F):
            c = tl.load(coef + index(f, o.dtype) * coef_f + o * coef_o, o < O, 0.0)
            y += FAMILY.feature(state, f, ORDER, SPEC)[:, None] * c[None, :].to(ACCUMULATOR)
    if base_weight is not None:
        c = tl.load(base_weight + base_offset + o * base_o, o < O, 0.0)
        y += base(x, ORDER, BASE)[:, None] * c[None, :].to(ACCUMULATOR)
    return y
