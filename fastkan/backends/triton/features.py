"""triton:features: the dense backend's contractions, with their features from two elementwise Triton kernels.

The kernels have no products, shared memory or atomics, and the products are the vendor's: what any GPU that Triton
supports can run. They are operators, opaque to torch.compile, which sees the products. Triton is imported when a kernel
is first called.
"""

import torch
from torch import Tensor

from ...spec import Spec
from .. import dense
from . import missing, module, operator  # noqa: F401 - the same limits as the fused kernels

_NAMESPACE = "fastkan_triton"
_SPEC = "Tensor grid, int degree, int base, int outside, bool uniform, int family, int order, ScalarType dtype"
_SCHEMAS = {
    "features": f"(Tensor x, Tensor? s, {_SPEC}) -> Tensor",
    "slopes": f"(Tensor x, Tensor g, {_SPEC}) -> Tensor",
}


def _features(x, s, grid, degree, base, outside, uniform, family, order, dtype):
    return x.new_empty(x.shape[0], x.shape[1] * (grid.shape[1] - degree - 1), dtype=dtype)


def _slopes(x, g, grid, degree, base, outside, uniform, family, order, dtype):
    return x.new_empty(x.shape, dtype=dense.accumulator(dtype))


for _name, _fake in (("features", _features), ("slopes", _slopes)):
    torch.library.define(f"{_NAMESPACE}::{_name}", _SCHEMAS[_name])
    torch.library.register_fake(f"{_NAMESPACE}::{_name}", _fake)
    torch.library.impl(f"{_NAMESPACE}::{_name}", ("cpu", "cuda"), operator("launch_features", _name, 3))


class Maker(dense.Maker):
    """Features of a block of rows, and their products with gradients, by one kernel each."""

    def features(
        self, x: Tensor, s: Tensor | None, grid: Tensor, spec: Spec, order: int, dtype: torch.dtype
    ) -> Tensor:  # fmt: skip
        """As dense.Maker.features."""
        return torch.ops.fastkan_triton.features(x, s, grid, *spec, order, dtype)

    def slopes(self, x: Tensor, g: Tensor, grid: Tensor, spec: Spec, order: int, dtype: torch.dtype) -> Tensor:
        """As dense.Maker.slopes."""
        return torch.ops.fastkan_triton.slopes(x, g, grid, *spec, order, dtype)


class Direct(Maker):
    """The same without PyTorch's dispatcher."""

    def features(
        self, x: Tensor, s: Tensor | None, grid: Tensor, spec: Spec, order: int, dtype: torch.dtype
    ) -> Tensor:  # fmt: skip
        """As dense.Maker.features."""
        return module("launch_features").features(x, s, grid, spec, order, dtype)

    def slopes(self, x: Tensor, g: Tensor, grid: Tensor, spec: Spec, order: int, dtype: torch.dtype) -> Tensor:
        """As dense.Maker.slopes."""
        return module("launch_features").slopes(x, g, grid, spec, order, dtype)


_dense, undispatched = dense.Dense(Maker()), dense.Dense(Direct())
kan_out, kan_in, kan_coef, kan_backward = _dense.kan_out, _dense.kan_in, _dense.kan_coef, _dense.kan_backward
edge_moments, edge_backward = _dense.edge_moments, _dense.edge_backward
