"""dT/dcoef: grad_coef[i,f,o] = sum_n s[n,i] B_f^(d)(x[n,i]) u[n,o]; the base function is one more f.

Either over all rows, or, of rows sorted by window, over those whose windows meet a tile of functions. Each split of the
rows has its own result; the launcher adds them. No atomics: results repeat bit for bit.
"""

import triton
import triton.language as tl

from .base import base
from .tile import block, index, load, product, store


@triton.jit(do_not_specialize=["N", "F", "SPLITS"])
def matrix(x_data, s_data, u_data, knots, grad_coef, grad_base, N, I, O, F, SPLITS, x_n, x_i, s_n, s_i, u_n, u_o,
           knots_i, FAMILY: tl.constexpr, SPEC: tl.constexpr, ORDER: tl.constexpr, BASE: tl.constexpr,
           BUCKET: tl.constexpr, INDEX: tl.constexpr, OPERAND: tl.constexpr, ACCUMULATOR: tl.constexpr,
           PRECISION: tl.constexpr, BN: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr):  # fmt: skip
    """A tile [BI, BO] of one function of grad_coef [SPLITS, I, F, O], or of grad_base [SPLITS, I, O]."""
    functions = 0
    if grad_coef is not None:
        functions += F
    count = functions
    if grad_base is not None:
        count += 1
    columns = tl.cdiv(O, BO)
    tiles = tl.cdiv(I, BI) * count * columns
    split, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    i = block(tile // (count * columns) * BI, BI, INDEX)
    f = tile // columns % count
    o = block(tile % columns * BO, BO, INDEX)
    share = tl.cdiv(tl.cdiv(N, BN), SPLITS) * BN
    begin = split * share
    end = tl.minimum(begin + share, N)
    plane = index(split, INDEX) * I * O
    if grad_coef is not None:
        if f < functions:
            total = _sum(x_data, s_data, u_data, knots, i, o, begin, end, N, I, O, F, f, x_n, x_i, s_n, s_i, u_n, u_o,
                         knots_i, FAMILY, SPEC, ORDER, BASE, False, INDEX, OPERAND, ACCUMULATOR, PRECISION, BN, BI,
                         BO)  # fmt: skip
            store(grad_coef + plane * F + index(f, INDEX) * O, total, i, o, index(F, INDEX) * O, 1, I, O)
    if grad_base is not None:
        if f == functions:
            total = _sum(x_data, s_data, u_data, knots, i, o, begin, end, N, I, O, F, f, x_n, x_i, s_n, s_i, u_n, u_o,
                         knots_i, FAMILY, SPEC, ORDER, BASE, True, INDEX, OPERAND, ACCUMULATOR, PRECISION, BN, BI,
                         BO)  # fmt: skip
            store(grad_base + plane, total, i, o, O, 1, I, O)


@triton.jit
def _sum(x_data, s_data, u_data, knots, i, o, begin, end, N, I, O, F, f, x_n, x_i, s_n, s_i, u_n, u_o, knots_i,
         FAMILY: tl.constexpr, SPEC: tl.constexpr, ORDER: tl.constexpr, BASE: tl.constexpr, IS_BASE: tl.constexpr,
         INDEX: tl.constexpr, OPERAND: tl.constexpr, ACCUMULATOR: tl.constexpr, PRECISION: tl.constexpr,
         BN: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr):  # fmt: skip
    """sum_n s[n,i] B_f(x[n,i]) u[n,o] over the rows from begin to end, [BI, BO]."""
    total = tl.zeros([BI, BO], ACCUMULATOR)
    nan = tl.zeros([BI], tl.int32)
    knots += tl.minimum(i, I - 1)[:, None] * knots_i
    for n0 in range(begin, end, BN):
        n = block(n0, BN, INDEX)
        x = load(x_data, i, n, x_i, x_n, I, N).to(ACCUMULATOR)
        if IS_BASE:
            a = base(x, ORDER, BASE)
        else:
            a = FAMILY.feature(FAMILY.prepare(x, knots, F, ORDER, SPEC), f, ORDER, SPEC)
            nan |= tl.max((x != x).to(tl.int32), 1)
        if s_data is not None:
            a *= load(s_data, i, n, s_i, s_n, I, N).to(ACCUMULATOR)
        total = product(a, load(u_data, n, o, u_n, u_o, N, O), total, OPERAND, PRECISION)
    if not IS_BASE:
        total = tl.where((nan[:, None] > 0) & (f <= SPEC.degree), float("nan"), total)
    return total


@triton.jit(do_not_specialize=["N", "F"])
def windowed(x_data, s_data, u_data, knots, grad_coef, keys, ranges, N, O, F, x_n, x_i, s_n, s_i, u_n, u_o, knots_i,
             FAMILY: tl.constexpr, SPEC: tl.constexpr, ORDER: tl.constexpr, INDEX: tl.constexpr, OPERAND: tl.constexpr,
             ACCUMULATOR: tl.constexpr, PRECISION: tl.constexpr, CHUNK: tl.constexpr, BN: tl.constexpr,
             BF: tl.constexpr, BO: tl.constexpr):  # fmt: skip
    """A tile [BF, BO] of one input, from the rows whose windows meet its functions: see order.py."""
    columns, blocks, chunks = tl.cdiv(O, BO), tl.cdiv(F, BF), tl.cdiv(N, CHUNK)
    tile = tl.program_id(0)
    i = index(tile // (blocks * columns), INDEX)
    j = tile // columns % blocks
    f = j * BF + tl.arange(0, BF)
    o = block(tile % columns * BO, BO, INDEX)
    total = tl.zeros([BF, BO], ACCUMULATOR)
    for chunk in range(chunks):
        at = i * chunks + chunk
        begin = tl.load(ranges + (at * blocks + j) * 2)
        end = tl.load(ranges + (at * blocks + j) * 2 + 1)
        for r0 in range(begin, end, BN):
            r = r0 + tl.arange(0, BN)
            key = tl.load(keys + at * CHUNK + r, r < end, 0)
            n = (chunk * CHUNK + key % CHUNK).to(INDEX)
            x = tl.load(x_data + n * x_n + i * x_i, r < end, 0.0).to(ACCUMULATOR)
            state = FAMILY.window(x[None, :], knots + i * knots_i, F, ORDER, SPEC)
            k = f[:, None] - state[0]
            a = tl.zeros([BF, BN], ACCUMULATOR)
            for w in tl.static_range(SPEC.degree + 1):
                a = tl.where(k == w, state[w + 1], a)
            if s_data is not None:
                a *= tl.load(s_data + n * s_n + i * s_i, r < end, 0.0)[None, :].to(ACCUMULATOR)
            u = tl.load(u_data + n[:, None] * u_n + o[None, :] * u_o, (r < end)[:, None] & (o < O)[None, :], 0.0)
            total = product(a, u, total, OPERAND, PRECISION)
    store(grad_coef + i * F * O, total, f.to(INDEX), o, O, 1, F, O)
