"""Tiles of strided matrices, and their products."""

import triton
import triton.language as tl

# Triton's interpreter multiplies the bit patterns of bfloat16 numbers.
_WIDEN = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def index(i, INDEX: tl.constexpr):
    """The index i in a type wide enough for offsets."""
    return tl.full([], i, INDEX)


@triton.jit
def block(start, SIZE: tl.constexpr, INDEX: tl.constexpr):
    """The indices start .. start + SIZE - 1, in a type wide enough for offsets."""
    return tl.full([SIZE], start, INDEX) + tl.arange(0, SIZE).to(INDEX)


@triton.jit
def load(data, r, c, row, column, R, C):
    """data[r, c] as a tile, zeros outside of [R, C]; row and column are strides."""
    return tl.load(data + r[:, None] * row + c[None, :] * column, (r < R)[:, None] & (c < C)[None, :], 0.0)


@triton.jit
def store(data, value, r, c, row, column, R, C):
    tl.store(
        data + r[:, None] * row + c[None, :] * column,
        value.to(data.dtype.element_ty),
        (r < R)[:, None] & (c < C)[None, :],
    )


@triton.jit
def product(a, b, total, OPERAND: tl.constexpr, PRECISION: tl.constexpr):
    """total + a @ b, with operands rounded to OPERAND."""
    a = a.to(OPERAND)
    b = b.to(OPERAND)
    if _WIDEN:
        a = a.to(total.dtype)
        b = b.to(total.dtype)
    return tl.dot(a, b, total, input_precision=PRECISION, out_dtype=total.dtype)


@triton.jit
def swizzle(tile, rows, columns, GROUP: tl.constexpr):
    """Row and column of a tile, with GROUP rows of tiles scheduled together for reuse in the L2 cache."""
    first = tile // (GROUP * columns) * GROUP
    height = tl.minimum(rows - first, GROUP)
    within = tile % (GROUP * columns)
    return first + within % height, within // height
