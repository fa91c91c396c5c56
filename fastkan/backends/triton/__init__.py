"""Triton kernels, for the GPUs that Triton supports and, in its interpreter (TRITON_INTERPRET=1), for CPUs.

Two algorithms: `fused` computes features inside of its products, features.py as a matrix for the vendor's. The
backend's own contractions take either, by an estimate. Triton itself is imported when a kernel is first called.
"""

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ... import ops
from ...basis.bspline import num_functions
from ...devices import architecture
from ...spec import FAMILIES, WITH_KERNELS, Spec
from .estimate import apart

_NAMESPACE = "fastkan_triton"
_INSTALLED = importlib.util.find_spec("triton") is not None  # at import: torch.compile cannot trace find_spec
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def missing(device_type: str, dtypes: tuple[torch.dtype, ...], family: int = 0) -> str | None:
    """Reason why this backend does not support the device, dtypes or family; None if it does."""
    if device_type not in ("cuda", "cpu"):
        return f"no Triton kernels for device {device_type!r}"
    if not _INSTALLED:
        return "triton is not installed"
    if device_type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return "Triton runs on GPUs, on a CPU only in its interpreter (TRITON_INTERPRET=1)"
    for dtype in dtypes:
        if dtype not in _DTYPES:
            return f"no Triton kernels for {dtype}"
    if FAMILIES[family] not in WITH_KERNELS:
        return f"no Triton kernels for family {FAMILIES[family]!r}"
    return None


def _fused_missing(device_type: str, dtypes: tuple[torch.dtype, ...], family: int = 0) -> str | None:
    """As `missing`, of the fused kernels: they need matrix instructions that some GPUs lack, on which they crawl."""
    reason = missing(device_type, dtypes, family)
    name = _current() if device_type == "cuda" and reason is None else ""
    if name.startswith("gfx") and not name.startswith("gfx9"):
        return f"no fused Triton kernels for {name}: expected wavefronts of 64 (gfx9)"
    if name in ("sm_70", "sm_75"):
        return f"no fused Triton kernels for {name}: expected sm_80 or later"
    return reason


def _current() -> str:
    """The architecture of the current GPU; '' where torch sees none."""
    return architecture(torch.device("cuda"))


# torch.compile cannot trace it, and takes its result as a constant.
_current._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


def operator(file: str, name: str, tensors: int) -> Callable[..., Any]:
    """The implementation of an operator by the function of that name in a file of this package.

    The operator has the fields of a Spec after the first `tensors` arguments, and empty results in place of None.
    """

    def implementation(*args):
        fields = tensors + len(Spec._fields)
        found = getattr(module(file), name)(*args[:tensors], Spec(*args[tensors:fields]), *args[fields:])
        if isinstance(found, Tensor) or not any(t is None for t in found):
            return found
        return tuple(like if t is None else t for t, like in zip(found, ops.FAKES[name](*args), strict=True))

    return implementation


@functools.cache
def module(name: str) -> Any:
    """A file of this package, imported when first needed."""
    return importlib.import_module(f".{name}", __name__)


class _Fused(SimpleNamespace):
    """The fused kernels as an implementation of their own."""

    @functools.cached_property
    def undispatched(self) -> Any:
        """The same without PyTorch's dispatcher."""
        return module("launch")


for _name in ops.CONTRACTIONS:
    _tensors = ops.SCHEMAS[_name].partition("int degree")[0].count(",")
    torch.library.impl(f"{_NAMESPACE}::{_name}", ("cpu", "cuda"), operator("launch", _name, _tensors))

fused = _Fused(**dict(zip(ops.CONTRACTIONS, ops.functions(_NAMESPACE), strict=True)), missing=_fused_missing)

from . import features  # noqa: E402 - it has the limits of `missing`


def _chosen(x: Tensor, weight: Tensor, spec: Spec, functions: int, outputs: int) -> Any:
    """The algorithm for a contraction: the one that the GPU has, else the faster one by the estimate."""
    if _fused_missing(x.device.type, (x.dtype, weight.dtype), spec.family):
        return features
    return features if apart(x, weight, spec, functions, outputs) else fused


def kan_out(x, s, coef, base_weight, bias, grid, spec, order):
    chosen = _chosen(x, coef, spec, *coef.shape[1:])
    return chosen.kan_out(x, s, coef, base_weight, bias, grid, spec, order)


def kan_in(x, u, coef, base_weight, grid, spec, order):
    return _chosen(x, coef, spec, *coef.shape[1:]).kan_in(x, u, coef, base_weight, grid, spec, order)


def kan_coef(x, s, u, grid, spec, order, with_base):
    chosen = _chosen(x, u, spec, num_functions(grid, spec.degree), u.shape[1])
    return chosen.kan_coef(x, s, u, grid, spec, order, with_base)


def kan_backward(x, s, u, coef, base_weight, grid, spec, order):
    chosen = _chosen(x, coef, spec, *coef.shape[1:])
    return chosen.kan_backward(x, s, u, coef, base_weight, grid, spec, order)


def edge_moments(x, coef, base_weight, grid, spec):
    chosen = features if _fused_missing(x.device.type, (x.dtype, coef.dtype), spec.family) else fused
    return chosen.edge_moments(x, coef, base_weight, grid, spec)


def edge_backward(x, u, terms, coef, base_weight, grid, spec, with_x):
    chosen = features if _fused_missing(x.device.type, (x.dtype, coef.dtype), spec.family) else fused
    return chosen.edge_backward(x, u, terms, coef, base_weight, grid, spec, with_x)
