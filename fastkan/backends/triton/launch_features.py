"""Launches of the elementwise kernels: the operators of features.py."""

import functools
from math import gcd
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime import driver

from ...basis.bspline import num_functions
from ...spec import FAMILIES, Spec
from .. import dense
from . import direct, plan
from .kernels import features as kernels
from .knots import knots_of, width_of
from .launch import FAMILY_OF, Layout, check_order, index_type, planned, shape_of

THREADS = 128  # of a program, each with one element of x
VECTOR = 16  # bytes that a thread stores at once


def features(x: Tensor, s: Tensor | None, grid: Tensor, spec: Spec, order: int, dtype: torch.dtype) -> Tensor:
    """As dense.Maker.features."""
    launch, columns = planned(_plan_features, spec, order, (x, s), num_functions(grid, spec.degree), dtype)
    phi = x.new_empty(x.shape[0], columns, dtype=dtype)
    if launch is not None:
        direct.run(launch, x, s, knots_of(grid, spec, launch.accumulator), phi)
    return phi


def _plan_features(spec, order, settings, x, s, functions, dtype) -> tuple[direct.Launch | None, int]:
    """The kernel and the number of columns."""
    rows, inputs = x.shape
    columns = inputs * functions
    if rows * columns == 0:
        return None, columns
    vector = gcd(functions, VECTOR // dtype.itemsize)
    numbers = (
        rows,
        inputs,
        functions // vector,
        *x.stride,
        *((0, 0) if s is None else s.stride),
        width_of(functions, spec),
    )
    index = index_type(x, s, Layout(dtype, (rows, columns)))
    return _launch(kernels.features, spec, order, settings, x, functions, numbers, dtype, index, vector), columns


def slopes(x: Tensor, g: Tensor, grid: Tensor, spec: Spec, order: int, dtype: torch.dtype) -> Tensor:
    """As dense.Maker.slopes."""
    out, g = x.new_empty(*x.shape, dtype=dense.accumulator(dtype)), g.contiguous()
    launch = planned(_plan_slopes, spec, order, (x, g), num_functions(grid, spec.degree), dtype)
    if launch is not None:
        direct.run(launch, x, g, knots_of(grid, spec, out.dtype), out)
    return out


def _plan_slopes(spec, order, settings, x, g, functions, dtype) -> direct.Launch | None:
    rows, inputs = x.shape
    if rows * inputs == 0:
        return None
    numbers = rows, inputs, functions, *x.stride, width_of(functions, spec)
    return _launch(kernels.slopes, spec, order, settings, x, functions, numbers, dtype, index_type(x, g))


def _launch(
    kernel: Any, spec: Spec, order: int, settings: plan.Settings, x: Layout, functions: int, numbers: tuple[int, ...],
    dtype: torch.dtype, index: tl.dtype, vector: int = 0,
) -> direct.Launch:  # fmt: skip
    check_order(order)
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
    return direct.Launch(kernel, programs, numbers, constants, options, settings.device, accumulator)


@functools.cache
def _warps() -> int:
    target: Any = driver.active.get_current_target()
    return THREADS // target.warp_size
