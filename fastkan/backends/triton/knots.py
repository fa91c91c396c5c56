"""Knots in the type of the coordinates, so that kernels compute in float64 only where an operand is float64.

Made once for a grid: its storage and version tell whether it has changed since.
"""

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from ...spec import FAMILIES, Spec
from .direct import INTERPRETED

_CHEBYSHEV = FAMILIES.index("chebyshev")
_MOST = 1024  # grids
_expired = torch.UntypedStorage._expired
# Place of the grid, dtype, family and stream -> storage and version of the grid, and its knots.
_made: dict[tuple[object, ...], tuple[StorageWeakRef, int, Tensor]] = {}


def knots_of(grid: Tensor, spec: Spec, dtype: torch.dtype) -> Tensor:
    """What kernels read of grid [I, M], contiguous, in dtype: all knots [I, M]; of uniform ones, origin and scale.

    Those are [I, 3]: the first knot as a sum of two numbers, to avoid its rounding error, and the inverse of the unit
    of the coordinate, which is the distance of two knots, and half of the grid for Chebyshev polynomials.
    """
    if not _keeps(grid):
        return _knots(grid, spec, dtype)
    stream = torch._C._cuda_getCurrentRawStream(grid.device.index) if grid.is_cuda else 0
    key = (
        grid.data_ptr(),
        grid.shape,
        grid.stride(),
        grid.device,
        grid.dtype,
        dtype,
        spec.uniform,
        spec.family,
        stream,
    )
    kept = _made.get(key)
    if kept is not None and kept[1] == grid._version and not _expired(kept[0].cdata):
        return kept[2]
    if len(_made) >= _MOST:
        for old in [k for k, (storage, *_) in _made.items() if storage.expired()] or list(_made):
            del _made[old]
    knots = _knots(grid, spec, dtype)
    _made[key] = StorageWeakRef(grid.untyped_storage()), grid._version, knots
    return knots


def width_of(functions: int, spec: Spec) -> int:
    """The numbers in a row of knots_of, for that many functions."""
    return 3 if spec.uniform else functions + spec.degree + 1


def _keeps(grid: Tensor) -> bool:
    """Whether a result may be kept: a captured graph must make its own, and inference tensors have no version."""
    if INTERPRETED or grid.is_meta or grid.is_inference():
        return False
    return not (grid.is_cuda and torch.cuda.is_current_stream_capturing())


def _knots(grid: Tensor, spec: Spec, dtype: torch.dtype) -> Tensor:
    if not spec.uniform:
        return grid.to(dtype).contiguous()
    first = grid[:, 0]
    units = 2 if spec.family == _CHEBYSHEV else grid.shape[1] - 1
    high = first.to(dtype)
    return torch.stack([high, (first - high).to(dtype), (units / (grid[:, -1] - first)).to(dtype)], 1)
