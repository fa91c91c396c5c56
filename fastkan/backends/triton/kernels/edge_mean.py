"""E[i,o] = mean_n |phi[i,o](x[n,i])| and its gradient, one edge's values at a time: no [N, I, O] anywhere."""

import triton
import triton.language as tl

from .base import base
from .kan_out import edge
from .tile import block, product


@triton.jit
def mean(x_data, coef, base_weight, grid, parts, N, I, O, F, SPLITS, x_n, x_i, coef_i, coef_f, coef_o, base_i, base_o,
         grid_i, FAMILY: tl.constexpr, SPEC: tl.constexpr, BASE: tl.constexpr, INDEX: tl.constexpr,
         COORDINATE: tl.constexpr, ACCUMULATOR: tl.constexpr, BN: tl.constexpr, BO: tl.constexpr,
         BF: tl.constexpr):  # fmt: skip
    """parts[split, i, o]: the sum over a share of the rows, over N."""
    columns = tl.cdiv(O, BO)
    o = block(tl.program_id(0) % columns * BO, BO, INDEX)
    i = tl.full([], tl.program_id(0) // columns % I, INDEX)
    split = tl.program_id(0) // columns // I
    share = tl.cdiv(tl.cdiv(N, BN), SPLITS) * BN
    total = tl.zeros([BN, BO], ACCUMULATOR)
    for n0 in range(split * share, tl.minimum(split * share + share, N), BN):
        n = block(n0, BN, INDEX)
        x = tl.load(x_data + n * x_n + i * x_i, n < N, 0.0).to(COORDINATE)
        phi = edge(x, coef + i * coef_i, base_weight, grid + i * grid_i, i * base_i, o, O, F, coef_f, coef_o, base_o,
                   FAMILY, SPEC, 0, BASE, ACCUMULATOR)  # fmt: skip
        total += tl.where((n < N)[:, None], tl.abs(phi), 0.0)
    at = (tl.full([], split, INDEX) * I + i) * O + o
    tl.store(parts + at, tl.sum(total, 0) / N, o < O)


@triton.jit
def backward(x_data, grad_mean, coef, base_weight, grid, grad_x, grad_coef, grad_base, N, I, O, F, X_TILES, x_n, x_i,
             g_i, g_o, coef_i, coef_f, coef_o, base_i, base_o, grid_i, FAMILY: tl.constexpr, SPEC: tl.constexpr,
             BASE: tl.constexpr, INDEX: tl.constexpr, COORDINATE: tl.constexpr, OPERAND: tl.constexpr,
             ACCUMULATOR: tl.constexpr, PRECISION: tl.constexpr, BN: tl.constexpr, BO: tl.constexpr,
             BF: tl.constexpr):  # fmt: skip
    """Programs below X_TILES make a column of grad_x for BN rows, the others a tile [BF, BO] of grad_coef."""
    if tl.program_id(0) < X_TILES:
        _x_column(tl.program_id(0), x_data, grad_mean, coef, base_weight, grid, grad_x, N, I, O, F, x_n, x_i, g_i, g_o,
                  coef_i, coef_f, coef_o, base_i, base_o, grid_i, FAMILY, SPEC, BASE, INDEX, COORDINATE, ACCUMULATOR,
                  BN, BO)  # fmt: skip
    else:
        _coef_tile(tl.program_id(0) - X_TILES, x_data, grad_mean, coef, base_weight, grid, grad_coef, grad_base, N, O,
                   F, x_n, x_i, g_i, g_o, coef_i, coef_f, coef_o, base_i, base_o, grid_i, FAMILY, SPEC, BASE, INDEX,
                   COORDINATE, OPERAND, ACCUMULATOR, PRECISION, BN, BO, BF)  # fmt: skip


@triton.jit
def _x_column(tile, x_data, grad_mean, coef, base_weight, grid, grad_x, N, I, O, F, x_n, x_i, g_i, g_o, coef_i, coef_f,
              coef_o, base_i, base_o, grid_i, FAMILY: tl.constexpr, SPEC: tl.constexpr, BASE: tl.constexpr,
              INDEX: tl.constexpr, COORDINATE: tl.constexpr, ACCUMULATOR: tl.constexpr, BN: tl.constexpr,
              BO: tl.constexpr):  # fmt: skip
    i = tl.full([], tile % I, INDEX)
    n = block(tile // I * BN, BN, INDEX)
    x = tl.load(x_data + n * x_n + i * x_i, n < N, 0.0).to(COORDINATE)
    total = tl.zeros([BN], ACCUMULATOR)
    for o0 in range(0, O, BO):
        o = block(o0, BO, INDEX)
        u = _cotangent(x, grad_mean, coef, base_weight, grid, i, o, N, O, F, g_i, g_o, coef_i, coef_f, coef_o, base_i,
                       base_o, grid_i, FAMILY, SPEC, BASE, ACCUMULATOR)  # fmt: skip
        slope = edge(x, coef + i * coef_i, base_weight, grid + i * grid_i, i * base_i, o, O, F, coef_f, coef_o, base_o,
                     FAMILY, SPEC, 1, BASE, ACCUMULATOR)  # fmt: skip
        total += tl.sum(u * slope, 1)
    tl.store(grad_x + n * I + i, total.to(grad_x.dtype.element_ty), n < N)


@triton.jit
def _coef_tile(tile, x_data, grad_mean, coef, base_weight, grid, grad_coef, grad_base, N, O, F, x_n, x_i, g_i, g_o,
               coef_i, coef_f, coef_o, base_i, base_o, grid_i, FAMILY: tl.constexpr, SPEC: tl.constexpr,
               BASE: tl.constexpr, INDEX: tl.constexpr, COORDINATE: tl.constexpr, OPERAND: tl.constexpr,
               ACCUMULATOR: tl.constexpr, PRECISION: tl.constexpr, BN: tl.constexpr, BO: tl.constexpr,
               BF: tl.constexpr):  # fmt: skip
    columns, blocks = tl.cdiv(O, BO), tl.cdiv(F, BF)
    i = tl.full([], tile // (blocks * columns), INDEX)
    j = tile // columns % blocks
    f = j * BF + tl.arange(0, BF)
    o = block(tile % columns * BO, BO, INDEX)
    knots = grid + i * grid_i
    total = tl.zeros([BF, BO], ACCUMULATOR)
    of_base = tl.zeros([BO], ACCUMULATOR)
    for n0 in range(0, N, BN):
        n = block(n0, BN, INDEX)
        x = tl.load(x_data + n * x_n + i * x_i, n < N, 0.0).to(COORDINATE)
        u = _cotangent(x, grad_mean, coef, base_weight, grid, i, o, N, O, F, g_i, g_o, coef_i, coef_f, coef_o, base_i,
                       base_o, grid_i, FAMILY, SPEC, BASE, ACCUMULATOR)  # fmt: skip
        u = tl.where((n < N)[:, None], u, 0.0)
        a = FAMILY.feature(FAMILY.prepare(x[None, :], knots, F, 0, SPEC), f[:, None], 0, SPEC)
        total = product(a, u, total, OPERAND, PRECISION)
        if base_weight is not None:
            of_base += tl.sum(base(x, 0, BASE)[:, None].to(ACCUMULATOR) * u, 0)
    out = (i * F + f).to(INDEX)
    tl.store(
        grad_coef + out[:, None] * O + o[None, :],
        total.to(grad_coef.dtype.element_ty),
        (f < F)[:, None] & (o < O)[None, :],
    )
    if base_weight is not None:
        if j == 0:
            tl.store(grad_base + i * O + o, of_base.to(grad_base.dtype.element_ty), o < O)


@triton.jit
def _cotangent(x, grad_mean, coef, base_weight, grid, i, o, N, O, F, g_i, g_o, coef_i, coef_f, coef_o, base_i, base_o,
               grid_i, FAMILY: tl.constexpr, SPEC: tl.constexpr, BASE: tl.constexpr,
               ACCUMULATOR: tl.constexpr):  # fmt: skip
    """sign(phi[n,o]) grad_mean[i,o] / N, where sign(0) is 0 and sign(NaN) is NaN."""
    phi = edge(x, coef + i * coef_i, base_weight, grid + i * grid_i, i * base_i, o, O, F, coef_f, coef_o, base_o,
               FAMILY, SPEC, 0, BASE, ACCUMULATOR)  # fmt: skip
    g = tl.load(grad_mean + i * g_i + o * g_o, o < O, 0.0).to(ACCUMULATOR) / N
    sign = tl.where(phi > 0, 1.0, tl.where(phi < 0, -1.0, phi))
    return sign.to(ACCUMULATOR) * g[None, :]
