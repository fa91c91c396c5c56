"""dT/ds at X_ORDER, times s (the gradient of the input), and dT/dcoef at ORDER, in one launch:

    grad_x[n,i]      = s[n,i] sum_f B'_f(x[n,i]) sum_o u[n,o] coef[i,f,o]
    grad_coef[i,f,o] = sum_n s[n,i] B_f(x[n,i]) u[n,o]

The base function is an additional f. The first programs compute tiles of grad_x, the others tiles of grad_coef.
Features are recomputed from x. No floating-point atomics: with split-K over the rows, the program that finishes last on
a tile of grad_coef adds the partial sums in a fixed order.
"""

import triton
import triton.language as tl

from .base import base
from .kan_out import edge
from .tile import block, load, product, store


@triton.jit
def backward(x_data, s_data, u_data, coef, base_weight, grid, grad_x, grad_coef, grad_base, parts, arrived, keys,
             ranges, N, I, O, F, x_n, x_i, s_n, s_i, u_n, u_o, coef_i, coef_f, coef_o, base_i, base_o,
             grid_i, FAMILY: tl.constexpr, SPEC: tl.constexpr, X_ORDER: tl.constexpr, ORDER: tl.constexpr,
             BASE: tl.constexpr, GATHER: tl.constexpr, SORTED: tl.constexpr, SPLITS: tl.constexpr, CHUNK: tl.constexpr,
             BUCKET: tl.constexpr, INDEX: tl.constexpr, COORDINATE: tl.constexpr, OPERAND: tl.constexpr,
             ACCUMULATOR: tl.constexpr, PRECISION: tl.constexpr, XN: tl.constexpr, XI: tl.constexpr,
             XO: tl.constexpr, CN: tl.constexpr, CI: tl.constexpr, CO: tl.constexpr, BF: tl.constexpr):  # fmt: skip
    tile = tl.program_id(0)
    x_tiles = 0
    if grad_x is not None:
        x_tiles = tl.cdiv(N, XN) * tl.cdiv(I, XI)
    if tile < x_tiles:
        if grad_x is not None:
            if GATHER:
                _x_gather(tile, x_data, s_data, u_data, coef, base_weight, grid, grad_x, N, I, O, F, x_n, x_i, s_n, s_i,
                          u_n, u_o, coef_i, coef_f, coef_o, base_i, base_o, grid_i, FAMILY, SPEC, X_ORDER, BASE, INDEX,
                          COORDINATE, ACCUMULATOR, XN, XI, XO)  # fmt: skip
            else:
                _x_matrix(tile, x_data, s_data, u_data, coef, base_weight, grid, grad_x, N, I, O, F, x_n, x_i, s_n, s_i,
                          u_n, u_o, coef_i, coef_f, coef_o, base_i, base_o, grid_i, FAMILY, SPEC, X_ORDER, BASE, INDEX,
                          COORDINATE, OPERAND, ACCUMULATOR, PRECISION, XN, XI, XO)  # fmt: skip
    elif grad_coef is not None:
        tile -= x_tiles
        if SORTED:
            coef_tiles = I * tl.cdiv(F, BF) * tl.cdiv(O, CO)
            if tile < coef_tiles:
                _coef_sorted(tile, x_data, s_data, u_data, grid, grad_coef, keys, ranges, N, O, F, x_n, x_i, s_n, s_i,
                             u_n, u_o, grid_i, FAMILY, SPEC, ORDER, INDEX, COORDINATE, OPERAND, ACCUMULATOR, PRECISION,
                             CHUNK, CN, BF, CO)  # fmt: skip
            elif grad_base is not None:
                tile -= coef_tiles
                i = block(tile // tl.cdiv(O, CO) * CI, CI, INDEX)
                o = block(tile % tl.cdiv(O, CO) * CO, CO, INDEX)
                total = _coef_sum(x_data, s_data, u_data, grid, i, o, 0, N, N, I, O, F, F, x_n, x_i, s_n, s_i, u_n, u_o,
                                  grid_i, FAMILY, SPEC, ORDER, BASE, True, INDEX, COORDINATE, OPERAND, ACCUMULATOR,
                                  PRECISION, CN, CI, CO)  # fmt: skip
                store(grad_base, total, i, o, O, 1, I, O)
        else:
            _coef_matrix(tile, x_data, s_data, u_data, grid, grad_coef, grad_base, parts, arrived, N, I, O, F, x_n, x_i,
                         s_n, s_i, u_n, u_o, grid_i, FAMILY, SPEC, ORDER, BASE, SPLITS, INDEX, COORDINATE, OPERAND,
                         ACCUMULATOR, PRECISION, CN, CI, CO)  # fmt: skip


@triton.jit
def _x_matrix(tile, x_data, s_data, u_data, coef, base_weight, grid, grad_x, N, I, O, F, x_n, x_i, s_n, s_i, u_n, u_o,
              coef_i, coef_f, coef_o, base_i, base_o, grid_i, FAMILY: tl.constexpr, SPEC: tl.constexpr,
              ORDER: tl.constexpr, BASE: tl.constexpr, INDEX: tl.constexpr, COORDINATE: tl.constexpr,
              OPERAND: tl.constexpr, ACCUMULATOR: tl.constexpr, PRECISION: tl.constexpr, BN: tl.constexpr,
              BI: tl.constexpr, BO: tl.constexpr):  # fmt: skip
    columns = tl.cdiv(I, BI)
    n = block(tile // columns * BN, BN, INDEX)
    i = block(tile % columns * BI, BI, INDEX)
    x = load(x_data, n, i, x_n, x_i, N, I).to(COORDINATE)
    state = FAMILY.prepare(x, grid + tl.minimum(i, I - 1)[None, :] * grid_i, F, ORDER, SPEC)
    total = tl.zeros([BN, BI], ACCUMULATOR)
    for f in range(F):
        slope = _slope(u_data, coef + f * coef_f, n, i, N, I, O, u_n, u_o, coef_i, coef_o, OPERAND, ACCUMULATOR,
                       PRECISION, BO)  # fmt: skip
        total += FAMILY.feature(state, f, ORDER, SPEC).to(ACCUMULATOR) * slope
    if base_weight is not None:
        slope = _slope(u_data, base_weight, n, i, N, I, O, u_n, u_o, base_i, base_o, OPERAND, ACCUMULATOR, PRECISION,
                       BO)  # fmt: skip
        total += base(x, ORDER, BASE).to(ACCUMULATOR) * slope
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


@triton.jit
def _x_gather(tile, x_data, s_data, u_data, coef, base_weight, grid, grad_x, N, I, O, F, x_n, x_i, s_n, s_i, u_n, u_o,
              coef_i, coef_f, coef_o, base_i, base_o, grid_i, FAMILY: tl.constexpr, SPEC: tl.constexpr,
              ORDER: tl.constexpr, BASE: tl.constexpr, INDEX: tl.constexpr, COORDINATE: tl.constexpr,
              ACCUMULATOR: tl.constexpr, BN: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr):  # fmt: skip
    columns = tl.cdiv(I, BI)
    n = block(tile // columns * BN, BN, INDEX)
    i = block(tile % columns * BI, BI, INDEX)
    total = tl.zeros([BN, BI], ACCUMULATOR)
    for o0 in range(0, O, BO):
        o = block(o0, BO, INDEX)
        u = load(u_data, n, o, u_n, u_o, N, O).to(ACCUMULATOR)
        for k in range(BI):
            j = tl.minimum(tl.full([], tile % columns * BI + k, INDEX), I - 1)
            x = tl.load(x_data + n * x_n + j * x_i, n < N, 0.0).to(COORDINATE)
            slope = edge(x, coef + j * coef_i, base_weight, grid + j * grid_i, j * base_i, o, O, F, coef_f, coef_o,
                         base_o, FAMILY, SPEC, ORDER, BASE, ACCUMULATOR)  # fmt: skip
            total += tl.where((tl.arange(0, BI) == k)[None, :], tl.sum(u * slope, 1)[:, None], 0.0)
    if s_data is not None:
        total *= load(s_data, n, i, s_n, s_i, N, I).to(ACCUMULATOR)
    store(grad_x, total, n, i, I, 1, N, I)


@triton.jit
def _coef_matrix(tile, x_data, s_data, u_data, grid, grad_coef, grad_base, parts, arrived, N, I, O, F, x_n, x_i, s_n,
                 s_i, u_n, u_o, grid_i, FAMILY: tl.constexpr, SPEC: tl.constexpr, ORDER: tl.constexpr,
                 BASE: tl.constexpr, SPLITS: tl.constexpr, INDEX: tl.constexpr, COORDINATE: tl.constexpr,
                 OPERAND: tl.constexpr, ACCUMULATOR: tl.constexpr, PRECISION: tl.constexpr, BN: tl.constexpr,
                 BI: tl.constexpr, BO: tl.constexpr):  # fmt: skip
    """A tile [BI, BO] of one function f, over a split of the rows; f = F is the base function."""
    functions = F
    if grad_base is not None:
        functions += 1
    columns = tl.cdiv(O, BO)
    tiles = tl.cdiv(I, BI) * functions * columns
    split, tile = tile // tiles, tile % tiles
    i = block(tile // (functions * columns) * BI, BI, INDEX)
    f = tile // columns % functions
    o = block(tile % columns * BO, BO, INDEX)
    share = tl.cdiv(tl.cdiv(N, BN), SPLITS) * BN
    begin = split * share
    end = tl.minimum(begin + share, N)
    is_base = f == F
    if is_base:
        total = _coef_sum(x_data, s_data, u_data, grid, i, o, begin, end, N, I, O, F, f, x_n, x_i, s_n, s_i, u_n, u_o,
                          grid_i, FAMILY, SPEC, ORDER, BASE, True, INDEX, COORDINATE, OPERAND, ACCUMULATOR, PRECISION,
                          BN, BI, BO)  # fmt: skip
    else:
        total = _coef_sum(x_data, s_data, u_data, grid, i, o, begin, end, N, I, O, F, f, x_n, x_i, s_n, s_i, u_n, u_o,
                          grid_i, FAMILY, SPEC, ORDER, BASE, False, INDEX, COORDINATE, OPERAND, ACCUMULATOR, PRECISION,
                          BN, BI, BO)  # fmt: skip
    last = True
    if SPLITS > 1:
        part = parts + f * O
        size = tl.full([], I, INDEX) * functions * O
        store(part + split * size, total, i, o, functions * O, 1, I, O)
        tl.debug_barrier()  # partial sums are written before the counter is incremented
        last = tl.atomic_add(arrived + tile, 1, sem="acq_rel") == SPLITS - 1
        tl.debug_barrier()
        if last:
            tl.store(arrived + tile, 0)  # reset for the next launch
            total = tl.zeros([BI, BO], ACCUMULATOR)
            for k in range(SPLITS):
                mask = (i < I)[:, None] & (o < O)[None, :]
                at = part + k * size + i[:, None] * (functions * O) + o[None, :]
                total += tl.load(at, mask, 0.0, cache_modifier=".cg")
    if last:
        if is_base:
            if grad_base is not None:
                store(grad_base, total, i, o, O, 1, I, O)
        else:
            store(grad_coef + f * O, total, i, o, F * O, 1, I, O)


@triton.jit
def _coef_sum(x_data, s_data, u_data, grid, i, o, begin, end, N, I, O, F, f, x_n, x_i, s_n, s_i, u_n, u_o, grid_i,
              FAMILY: tl.constexpr, SPEC: tl.constexpr, ORDER: tl.constexpr, BASE: tl.constexpr, IS_BASE: tl.constexpr,
              INDEX: tl.constexpr, COORDINATE: tl.constexpr, OPERAND: tl.constexpr, ACCUMULATOR: tl.constexpr,
              PRECISION: tl.constexpr, BN: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr):  # fmt: skip
    """sum_n s[n,i] B_f(x[n,i]) u[n,o] over the rows from begin to end, [BI, BO]."""
    total = tl.zeros([BI, BO], ACCUMULATOR)
    nan = tl.zeros([BI], tl.int32)
    knots = grid + tl.minimum(i, I - 1)[:, None] * grid_i
    for n0 in range(begin, end, BN):
        n = block(n0, BN, INDEX)
        x = load(x_data, i, n, x_i, x_n, I, N).to(COORDINATE)
        if IS_BASE:
            a = base(x, ORDER, BASE)
        else:
            a = FAMILY.feature(FAMILY.prepare(x, knots, F, ORDER, SPEC), f, ORDER, SPEC)
            nan |= tl.max((x != x).to(tl.int32), 1)
        if s_data is not None:
            a *= load(s_data, i, n, s_i, s_n, I, N).to(COORDINATE)
        total = product(a, load(u_data, n, o, u_n, u_o, N, O), total, OPERAND, PRECISION)
    if not IS_BASE:
        total = tl.where((nan[:, None] > 0) & (f <= SPEC.degree), float("nan"), total)
    return total


@triton.jit
def _coef_sorted(tile, x_data, s_data, u_data, grid, grad_coef, keys, ranges, N, O, F, x_n, x_i, s_n, s_i, u_n, u_o,
                 grid_i, FAMILY: tl.constexpr, SPEC: tl.constexpr, ORDER: tl.constexpr, INDEX: tl.constexpr,
                 COORDINATE: tl.constexpr, OPERAND: tl.constexpr, ACCUMULATOR: tl.constexpr, PRECISION: tl.constexpr,
                 CHUNK: tl.constexpr, BN: tl.constexpr, BF: tl.constexpr, BO: tl.constexpr):  # fmt: skip
    """A tile [BF, BO] of one input, from the rows whose windows meet its functions."""
    columns, blocks, chunks = tl.cdiv(O, BO), tl.cdiv(F, BF), tl.cdiv(N, CHUNK)
    i = tl.full([], tile // (blocks * columns), INDEX)
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
            x = tl.load(x_data + n * x_n + i * x_i, r < end, 0.0).to(COORDINATE)
            state = FAMILY.window(x[None, :], grid + i * grid_i, F, ORDER, SPEC)
            k = f[:, None] - state[0]
            a = tl.zeros([BF, BN], COORDINATE)
            for w in tl.static_range(SPEC.degree + 1):
                a = tl.where(k == w, state[w + 1], a)
            if s_data is not None:
                a *= tl.load(s_data + n * s_n + i * s_i, r < end, 0.0)[None, :].to(COORDINATE)
            u = tl.load(u_data + n[:, None] * u_n + o[None, :] * u_o, (r < end)[:, None] & (o < O)[None, :], 0.0)
            total = product(a, u, total, OPERAND, PRECISION)
    out = (i * F + f).to(INDEX)
    tl.store(
        grad_coef + out[:, None] * O + o[None, :],
        total.to(grad_coef.dtype.element_ty),
        (f < F)[:, None] & (o < O)[None, :],
    )
