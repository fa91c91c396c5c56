"""Moments of every edge's values phi[i,o](x[n,i]) and their backward, one input at a time: no [N, I, O] tensor."""

import triton
import triton.language as tl

from .base import base
from .kan_out import edge
from .tile import block, index, product, store


@triton.jit(do_not_specialize=["N", "F", "SPLITS"])
def moments(x_data, coef, base_weight, knots, parts, N, I, O, F, SPLITS, x_n, x_i, coef_i, coef_f, coef_o, base_i,
            base_o, knots_i, FAMILY: tl.constexpr, SPEC: tl.constexpr, BASE: tl.constexpr, INDEX: tl.constexpr,
            ACCUMULATOR: tl.constexpr, BN: tl.constexpr, BO: tl.constexpr):  # fmt: skip
    """parts[split, :, i, o] of a split of the rows: sum |phi| / N, mean of phi, sum (phi - mean)^2.

    Blocks of rows are merged as in Chan, Golub and LeVeque, COMPSTAT 1982; the mean starts at the first row's value, so
    that constant edges have exactly 0.
    """
    columns = tl.cdiv(O, BO)
    o = block(tl.program_id(0) % columns * BO, BO, INDEX)
    i = index(tl.program_id(0) // columns % I, INDEX)
    split = tl.program_id(0) // columns // I
    share = tl.cdiv(tl.cdiv(N, BN), SPLITS) * BN
    first = tl.full([BN], split * share, INDEX)
    x = tl.load(x_data + first * x_n + i * x_i, first < N, 0.0).to(ACCUMULATOR)
    phi = edge(x, coef + i * coef_i, base_weight, knots + i * knots_i, i * base_i, o, O, F, coef_f, coef_o, base_o,
               FAMILY, SPEC, 0, BASE, ACCUMULATOR)  # fmt: skip
    mean = tl.max(phi, 0)
    size = tl.zeros([BO], ACCUMULATOR)
    squares = tl.zeros([BO], ACCUMULATOR)
    for n0 in range(split * share, tl.minimum(split * share + share, N), BN):
        n = block(n0, BN, INDEX)
        x = tl.load(x_data + n * x_n + i * x_i, n < N, 0.0).to(ACCUMULATOR)
        phi = edge(x, coef + i * coef_i, base_weight, knots + i * knots_i, i * base_i, o, O, F, coef_f, coef_o, base_o,
                   FAMILY, SPEC, 0, BASE, ACCUMULATOR)  # fmt: skip
        live = (n < N)[:, None]
        before = (n0 - split * share).to(ACCUMULATOR)
        rows = tl.minimum(N - n0, BN).to(ACCUMULATOR)
        apart = tl.where(live, phi - mean[None, :], 0.0)
        total = tl.sum(apart, 0)
        apart = tl.where(live, apart - (total / rows)[None, :], 0.0)
        squares += tl.sum(apart * apart, 0) + total / rows * total * (before / (before + rows))
        mean += total / (before + rows)
        size += tl.sum(tl.where(live, tl.abs(phi), 0.0), 0)
    plane = index(I, INDEX) * O
    at = index(split, INDEX) * 3 * plane + i * O + o
    tl.store(parts + at, size / N, o < O)
    tl.store(parts + at + plane, mean, o < O)
    tl.store(parts + at + 2 * plane, squares, o < O)


@triton.jit(do_not_specialize=["N", "F"])
def grad_x(x_data, u_data, terms, coef, base_weight, knots, out, N, I, O, F, x_n, x_i, u_n, u_o, t_k, t_i, t_o, coef_i,
           coef_f, coef_o, base_i, base_o, knots_i, FAMILY: tl.constexpr, SPEC: tl.constexpr, BASE: tl.constexpr,
           INDEX: tl.constexpr, ACCUMULATOR: tl.constexpr, BN: tl.constexpr, BO: tl.constexpr):  # fmt: skip
    """out [N, I], a column of BN rows: sum_o v[n,o] phi'(x[n,i])."""
    tile = tl.program_id(0)
    i = index(tile % I, INDEX)
    n = block(tile // I * BN, BN, INDEX)
    x = tl.load(x_data + n * x_n + i * x_i, n < N, 0.0).to(ACCUMULATOR)
    total = tl.zeros([BN], ACCUMULATOR)
    for o0 in range(0, O, BO):
        o = block(o0, BO, INDEX)
        v = _cotangent(x, n, u_data, terms, coef, base_weight, knots, i, o, N, O, F, u_n, u_o, t_k, t_i, t_o, coef_i,
                       coef_f, coef_o, base_i, base_o, knots_i, FAMILY, SPEC, BASE, ACCUMULATOR)  # fmt: skip
        slope = edge(x, coef + i * coef_i, base_weight, knots + i * knots_i, i * base_i, o, O, F, coef_f, coef_o,
                     base_o, FAMILY, SPEC, 1, BASE, ACCUMULATOR)  # fmt: skip
        total += tl.sum(v * slope, 1)
    tl.store(out + n * I + i, total.to(out.dtype.element_ty), n < N)


@triton.jit(do_not_specialize=["N", "F"])
def grad_coef(x_data, u_data, terms, coef, base_weight, knots, out, out_base, N, I, O, F, x_n, x_i, u_n, u_o, t_k, t_i,
              t_o, coef_i, coef_f, coef_o, base_i, base_o, knots_i, FAMILY: tl.constexpr, SPEC: tl.constexpr,
              BASE: tl.constexpr, INDEX: tl.constexpr, OPERAND: tl.constexpr, ACCUMULATOR: tl.constexpr,
              PRECISION: tl.constexpr, BN: tl.constexpr, BO: tl.constexpr, BF: tl.constexpr):  # fmt: skip
    """A tile [BF, BO] of one input of out [I, F, O], and of out_base [I, O]: sum_n B_f(x[n,i]) v[n,o]."""
    tile = tl.program_id(0)
    columns, blocks = tl.cdiv(O, BO), tl.cdiv(F, BF)
    i = index(tile // (blocks * columns), INDEX)
    j = tile // columns % blocks
    f = j * BF + tl.arange(0, BF)
    o = block(tile % columns * BO, BO, INDEX)
    total = tl.zeros([BF, BO], ACCUMULATOR)
    of_base = tl.zeros([BO], ACCUMULATOR)
    for n0 in range(0, N, BN):
        n = block(n0, BN, INDEX)
        x = tl.load(x_data + n * x_n + i * x_i, n < N, 0.0).to(ACCUMULATOR)
        v = _cotangent(x, n, u_data, terms, coef, base_weight, knots, i, o, N, O, F, u_n, u_o, t_k, t_i, t_o, coef_i,
                       coef_f, coef_o, base_i, base_o, knots_i, FAMILY, SPEC, BASE, ACCUMULATOR)  # fmt: skip
        v = tl.where((n < N)[:, None], v, 0.0)
        a = FAMILY.feature(FAMILY.prepare(x[None, :], knots + i * knots_i, F, 0, SPEC), f[:, None], 0, SPEC)
        total = product(a, v, total, OPERAND, PRECISION)
        if base_weight is not None:
            of_base += tl.sum(base(x, 0, BASE)[:, None] * v, 0)
    store(out + i * F * O, total, f.to(INDEX), o, O, 1, F, O)
    if base_weight is not None:
        if j == 0:
            tl.store(out_base + i * O + o, of_base.to(out_base.dtype.element_ty), o < O)


@triton.jit
def _cotangent(x, n, u_data, terms, coef, base_weight, knots, i, o, N, O, F, u_n, u_o, t_k, t_i, t_o, coef_i, coef_f,
               coef_o, base_i, base_o, knots_i, FAMILY: tl.constexpr, SPEC: tl.constexpr, BASE: tl.constexpr,
               ACCUMULATOR: tl.constexpr):  # fmt: skip
    """u[n,o] + t0[i,o] sign(phi[n,o]) + t1[i,o] + t2[i,o] phi[n,o], where sign(0) = 0; NaN stays NaN."""
    phi = edge(x, coef + i * coef_i, base_weight, knots + i * knots_i, i * base_i, o, O, F, coef_f, coef_o, base_o,
               FAMILY, SPEC, 0, BASE, ACCUMULATOR)  # fmt: skip
    at = terms + i * t_i + o * t_o
    of_sign = tl.load(at, o < O, 0.0)[None, :]
    constant = tl.load(at + t_k, o < O, 0.0)[None, :]
    factor = tl.load(at + 2 * t_k, o < O, 0.0)[None, :]
    sign = tl.where(phi > 0, 1.0, tl.where(phi < 0, -1.0, 0.0)).to(ACCUMULATOR)
    v = sign * of_sign + (constant + factor * phi)
    if u_data is not None:
        here = (n < N)[:, None] & (o < O)[None, :]
        v += tl.load(u_data + n[:, None] * u_n + o[None, :] * u_o, here, 0.0).to(ACCUMULATOR)
    return v
