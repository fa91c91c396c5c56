"""Launches of the elementwise kernels: the operators of features.py."""

import functools
from math import gcd

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime import driver

from ...spec import FAMILIES, Spec
from .. import dense
from . import launch, plan
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
    vector = gcd(functions, VECTOR // dtype.itemsize)
    args = (
        x, s, knots, phi, rows, inputs, functions // vector, *x.stride(), *((0, 0) if s is None else s.stride()),
        knots.stride(0),
    )  # fmt: skip
    constants = {**_constants(spec, order, grid, dtype, x, s, phi), "VECTOR": vector}
    _launch(kernels.features, x, args, constants)
    return phi


def slopes(
    x: Tensor, g: Tensor, grid: Tensor, degree: int, base: int, outside: int, uniform: bool, family: int, order: int,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    out = x.new_empty(x.shape, dtype=dense.accumulator(dtype))
    if out.numel() == 0:
        return out
    spec = Spec(degree, base, outside, uniform, family)
    knots = knots_of(grid, spec, out.dtype)
    g = g.contiguous()
    args = (x, g, knots, out, *x.shape, grid.shape[1] - degree - 1, *x.stride(), knots.stride(0))
    _launch(kernels.slopes, x, args, _constants(spec, order, grid, dtype, x, g))
    return out


def _constants(spec: Spec, order: int, grid: Tensor, dtype: torch.dtype, *tensors: Tensor | None) -> dict:
    if not 0 <= order <= MAX_ORDER:
        raise ValueError(f"order={order}: expected 0 to {MAX_ORDER}")
    search = 0 if spec.uniform else (grid.shape[1] - 1).bit_length()
    return {
        "FAMILY": launch._FAMILIES[FAMILIES[spec.family]],
        "SPEC": Shape(spec.degree, spec.outside, spec.uniform, search),
        "ORDER": order,
        "INDEX": launch.index_type(*(t for t in tensors if t is not None)),
        "COORDINATE": tl.float64 if dtype == torch.float64 else tl.float32,
    }


def _launch(kernel, x: Tensor, args: tuple, constants: dict) -> None:
    rows, inputs = x.shape
    BI = min(THREADS, triton.next_power_of_2(inputs))
    BN = THREADS // BI
    programs = plan.cdiv(rows, BN) * plan.cdiv(inputs, BI)
    options = {} if launch.INTERPRETED else {"num_warps": _warps()}
    launch._run(kernel, lambda _: programs, x.device, args, {**constants, "BN": BN, "BI": BI}, options)


@functools.cache
def _warps() -> int:
    return THREADS // driver.active.get_current_target().warp_size
