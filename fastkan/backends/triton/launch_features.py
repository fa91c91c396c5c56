"""Launches of the elementwise kernels: the operators of features.py."""

import functools
from math import gcd
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime import driver

from ...spec import FAMILIES, Spec
from .. import dense
from . import direct, launch, plan
from .kernels import features as kernels
from .kernels.base import MAX_ORDER
from .kernels.family import Shape
from .knots import knots_of

THREADS = 128  # of a program, each with one element of x
VECTOR = 16  # bytes that a thread stores at once


def features(
    x: Tensor, s: Tensor | None, grid: Tensor, degree: int, base: int, outside: int, uniform: bool, family: int,
    order: int, dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    rows, inputs = x.shape
    functions = grid.shape[1] - degree - 1
    phi = x.new_empty(rows, inputs * functions, dtype=dtype)
    if phi.numel() == 0:
        return phi
    spec = Spec(degree, base, outside, uniform, family)
    knots = knots_of(grid, spec, dense.accumulator(dtype))
    index = launch.index_type(x, phi) if s is None else launch.index_type(x, s, phi)
    vector = gcd(functions, VECTOR // dtype.itemsize)
    kind = _kind(kernels.features, spec, order, functions, inputs, dtype == torch.float64, index, vector)
    numbers = (rows, inputs, functions // vector, *x.stride(), *((0, 0) if s is None else s.stride()), knots.stride(0))
    direct.run(kind, _programs(kind, rows, inputs), (x, s, knots, phi), numbers)
    return phi


def slopes(
    x: Tensor, g: Tensor, grid: Tensor, degree: int, base: int, outside: int, uniform: bool, family: int, order: int,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    rows, inputs = x.shape
    out = x.new_empty(rows, inputs, dtype=dense.accumulator(dtype))
    if out.numel() == 0:
        return out
    functions = grid.shape[1] - degree - 1
    spec, g = Spec(degree, base, outside, uniform, family), g.contiguous()
    knots = knots_of(grid, spec, out.dtype)
    kind = _kind(kernels.slopes, spec, order, functions, inputs, dtype == torch.float64, launch.index_type(x, g))
    numbers = (rows, inputs, functions, *x.stride(), knots.stride(0))
    direct.run(kind, _programs(kind, rows, inputs), (x, g, knots, out), numbers)
    return out


@functools.lru_cache(1024)
def _kind(
    kernel, spec: Spec, order: int, functions: int, inputs: int, double: bool, index: tl.dtype, vector: int = 0
) -> direct.Kind:
    if not 0 <= order <= MAX_ORDER:
        raise ValueError(f"order={order}: expected 0 to {MAX_ORDER}")
    columns = min(THREADS, triton.next_power_of_2(inputs))
    search = 0 if spec.uniform else (functions + spec.degree).bit_length()
    constants = {
        "FAMILY": launch._FAMILIES[FAMILIES[spec.family]],
        "SPEC": Shape(spec.degree, spec.outside, spec.uniform, search),
        "ORDER": order, "INDEX": index, "COORDINATE": tl.float64 if double else tl.float32,
        **({"VECTOR": vector} if vector else {}), "BN": THREADS // columns, "BI": columns,
    }  # fmt: skip
    return direct.Kind(kernel, constants, {} if direct.INTERPRETED else {"num_warps": _warps()})


def _programs(kind: direct.Kind, rows: int, inputs: int) -> int:
    return plan.cdiv(rows, kind.constants["BN"]) * plan.cdiv(inputs, kind.constants["BI"])


@functools.cache
def _warps() -> int:
    target: Any = driver.active.get_current_target()
    return THREADS // target.warp_size
