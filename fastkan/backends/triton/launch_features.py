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
from . import direct, plan
from .kernels import features as kernels
from .knots import knots_of, width_of
from .launch import FAMILY_OF, Layout, index_type, planned, shape_of

THREADS = 128  # of a program, each with one element of x
VECTOR = 16  # bytes that a thread stores at once


def features(
    x: Tensor, s: Tensor | None, grid: Tensor, spec: Spec, order: int, dtype: torch.dtype
) -> Tensor:
    """As dense.Maker.features."""
    launch, columns = planned(_plan_features, spec, order, (x, s, grid), dtype)
    phi = x.new_empty(x.shape[0], columns, dtype=dtype)
    if launch is not None:
        direct.run(launch, x, s, knots_of(grid, spec, launch.accumulator), phi)
    return phi


def _plan_features(spec, order, settings, x, s, grid, dtype) -> tuple[direct.Launch | None, int]:
    """The kernel and the number of columns."""
    (rows, inputs), functions = x.shape, grid.shape[1] - spec.degree - 1
    columns = inputs * functions
    if rows * columns == 0:
        return None, columns
    vector = gcd(functions, VECTOR // dtype.itemsize)
    numbers = rows, inputs, functions // vector, *x.stride, *((0, 0) if s is None else s.stride), width_of(grid, spec)
    index = index_type(x, s, Layout(dtype, (rows, columns)))
    return _launch(kernels.features, spec, order, x, functions, numbers, dtype, index, vector), columns


def slopes(x: Tensor, g: Tensor, grid: Tensor, spec: Spec, order: int, dtype: torch.dtype) -> Tensor:
    """As dense.Maker.slopes."""
    out, g = x.new_empty(*x.shape, dtype=dense.accumulator(dtype)), g.contiguous()
    launch = planned(_plan_slopes, spec, order, (x, g, grid), dtype)
    if launch is not None:
        direct.run(launch, x, g, knots_of(grid, spec, out.dtype), out)
    return out


def _plan_slopes(spec, order, settings, x, g, grid, dtype) -> direct.Launch | None:
    (rows, inputs), functions = x.shape, grid.shape[1] - spec.degree - 1
    if rows * inputs == 0:
        return None
    numbers = rows, inputs, functions, *x.stride, width_of(grid, spec)
    return _launch(kernels.slopes, spec, order, x, functions, numbers, dtype, index_type(x, g))


def _launch(
    kernel: Any, spec: Spec, order: int, x: Layout, functions: int, numbers: tuple[int, ...], dtype: torch.dtype,
    index: tl.dtype, vector: int = 0,
) -> direct.Launch:  # fmt: skip
    rows, inputs = x.shape
    columns = min(THREADS, triton.next_power_of_2(inputs))
    accumulator = dense.accumulator(dtype)
    constants = {
        "FAMILY": FAMILY_OF[FAMILIES[spec.family]], "SPEC": shape_of(spec, functions), "ORDER": order, "INDEX": index,
        "COORDINATE": tl.float64 if accumulator == torch.float64 else tl.float32,
        "VECTOR": vector, "BN": THREADS // columns, "BI": columns,
    }  # fmt: skip
    options = {} if direct.INTERPRETED else {"num_warps": _warps()}
    programs = plan.cdiv(rows, THREADS // columns) * plan.cdiv(inputs, columns)
    return direct.Launch(kernel, programs, numbers, constants, options, accumulator)


@functools.cache
def _warps() -> int:
    target: Any = driver.active.get_current_target()
    return THREADS // target.warp_size
