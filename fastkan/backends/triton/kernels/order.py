"""Sorts the rows of every input by knot span, chunk by chunk."""

import triton
import triton.language as tl

from .tile import block, index

LAST = tl.constexpr(0x7FFFFFFF)


@triton.jit(do_not_specialize=["N", "F"])
def order(x_data, knots, keys, ranges, N, I, F, x_n, x_i, knots_i, FAMILY: tl.constexpr, SPEC: tl.constexpr,
          INDEX: tl.constexpr, ACCUMULATOR: tl.constexpr, CHUNK: tl.constexpr, BF: tl.constexpr):  # fmt: skip
    """keys[i, chunk]: (start + degree) CHUNK + row within the chunk, ascending; ranges[i, chunk, j]: begin and end of
    the keys whose windows meet the functions j BF .. j BF + BF - 1."""
    chunks = tl.cdiv(N, CHUNK)
    i = index(tl.program_id(0) // chunks, INDEX)
    chunk = tl.program_id(0) % chunks
    n = block(chunk * CHUNK, CHUNK, INDEX)
    x = tl.load(x_data + n * x_n + i * x_i, n < N, 0.0).to(ACCUMULATOR)
    start = FAMILY.window(x, knots + i * knots_i, F, 0, SPEC)[0] + SPEC.degree
    row = tl.arange(0, CHUNK)
    key = tl.sort(tl.where(n < N, start * CHUNK + row, LAST))
    at = i * chunks + chunk
    tl.store(keys + at * CHUNK + row, key)
    blocks = tl.cdiv(F, BF)
    for j in range(blocks):
        before = tl.sum((key < j * BF * CHUNK).to(tl.int32))
        end = tl.sum((key < (j * BF + BF + SPEC.degree) * CHUNK).to(tl.int32))
        tl.store(ranges + (at * blocks + j) * 2, before)
        tl.store(ranges + (at * blocks + j) * 2 + 1, end)
