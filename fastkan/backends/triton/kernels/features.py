"""Features as a matrix, and sums over them: elementwise, for products by the vendor's library.

    phi[n, i F + f] = s[n,i] B_f(x[n,i])        slopes[n,i] = sum_f g[n, i F + f] B_f(x[n,i])

No products, shared memory, barriers or atomics. A thread has one element of x. In `features` it computes what depends
on x alone once, and stores VECTOR neighbouring functions together, the last dimension of a tile; F = GROUPS VECTOR.
"""

import triton
import triton.language as tl

from .tile import block, load, store


@triton.jit(do_not_specialize=["N"])
def features(x_data, s_data, knots, phi, N, I, GROUPS, x_n, x_i, s_n, s_i, knots_i, FAMILY: tl.constexpr,
             SPEC: tl.constexpr, ORDER: tl.constexpr, INDEX: tl.constexpr, COORDINATE: tl.constexpr,
             VECTOR: tl.constexpr, BN: tl.constexpr, BI: tl.constexpr):  # fmt: skip
    F = GROUPS * VECTOR
    columns = tl.cdiv(I, BI)
    n = block(tl.program_id(0) // columns * BN, BN, INDEX)[:, None, None]
    i = block(tl.program_id(0) % columns * BI, BI, INDEX)[None, :, None]
    live = (n < N) & (i < I)
    x = tl.load(x_data + n * x_n + i * x_i, live, 0.0).to(COORDINATE)
    state = FAMILY.prepare(x, knots + tl.minimum(i, I - 1) * knots_i, F, ORDER, SPEC)
    if s_data is not None:
        s = tl.load(s_data + n * s_n + i * s_i, live, 0.0).to(COORDINATE)
    at = phi + n * I * F + i * F
    for group in range(GROUPS):
        f = (group * VECTOR + tl.arange(0, VECTOR))[None, None, :]
        y = FAMILY.feature(state, f, ORDER, SPEC)
        y = tl.where((x != x) & (f <= SPEC.degree), x, y)
        if s_data is not None:
            y *= s
        tl.store(at + f, y.to(phi.dtype.element_ty), live)


@triton.jit(do_not_specialize=["N"])
def slopes(x_data, g, knots, out, N, I, F, x_n, x_i, knots_i, FAMILY: tl.constexpr, SPEC: tl.constexpr,
           ORDER: tl.constexpr, INDEX: tl.constexpr, COORDINATE: tl.constexpr, BN: tl.constexpr,
           BI: tl.constexpr):  # fmt: skip
    columns = tl.cdiv(I, BI)
    n = block(tl.program_id(0) // columns * BN, BN, INDEX)
    i = block(tl.program_id(0) % columns * BI, BI, INDEX)
    live = (n < N)[:, None] & (i < I)[None, :]
    x = load(x_data, n, i, x_n, x_i, N, I).to(COORDINATE)
    at = g + n[:, None] * I * F + (i * F)[None, :]
    knots += tl.minimum(i, I - 1)[None, :] * knots_i
    total = tl.zeros([BN, BI], COORDINATE)
    if FAMILY.window is not None:
        state = FAMILY.window(x, knots, F, ORDER, SPEC)
        for k in tl.static_range(SPEC.degree + 1):
            f = state[0] + k
            total += state[k + 1] * tl.load(at + f, live & (f >= 0) & (f < F), 0.0).to(COORDINATE)
    else:
        state = FAMILY.prepare(x, knots, F, ORDER, SPEC)
        for f in range(F):
            total += FAMILY.feature(state, f, ORDER, SPEC) * tl.load(at + f, live, 0.0).to(COORDINATE)
    store(out, tl.where(x != x, x, total), n, i, I, 1, N, I)
