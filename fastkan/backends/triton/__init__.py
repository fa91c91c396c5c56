"""Triton kernels, for the GPUs that Triton supports and, in its interpreter (TRITON_INTERPRET=1), for CPUs.

Two algorithms: `fused` computes features inside of its products, features.py as a matrix for the vendor's. The
backend's own contractions take either, by an estimate. Triton itself is imported when a kernel is first called.
"""

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ... import ops
from ...basis.bspline import num_functions
from ...devices import architecture
from ...spec import FAMILIES, Spec
from ...transforms import is_plain
from .estimate import apart

_NAMESPACE = "fastkan_triton"
_INSTALLED = importlib.util.find_spec("triton") is not None  # at import: torch.compile cannot trace find_spec
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_FAMILIES = ("bspline", "rbf", "chebyshev")  # others may be on the reference alone


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
    if FAMILIES[family] not in _FAMILIES:
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


def operator(module: str, name: str, tensors: int) -> Callable[..., Any]:
    """The implementation of an operator by the function of that name in a module of this package.

    The operator has the fields of a Spec after the first `tensors` arguments, and empty results in place of None.
    """

    def implementation(*args):
        fields = tensors + len(Spec._fields)
        found = _function(module, name)(*args[:tensors], Spec(*args[tensors:fields]), *args[fields:])
        if isinstance(found, Tensor) or None not in found:
            return found
        return tuple(like if t is None else t for t, like in zip(found, ops.FAKES[name](*args), strict=True))

    return implementation


def called(module: str, name: str, tensors: int, through: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, called directly where PyTorch's dispatcher has nothing to do; else `through` it."""

    def call(*args):
        return (_function(module, name) if is_plain(args[:tensors]) else through)(*args)

    return call


@functools.cache
def _function(module: str, name: str) -> Callable[..., Any]:
    return getattr(importlib.import_module(f".{module}", __name__), name)


def _fused() -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, through in zip(ops.CONTRACTIONS, ops.functions(_NAMESPACE), strict=True):
        tensors = ops.SCHEMAS[name].partition("int degree")[0].count(",")
        torch.library.impl(f"{_NAMESPACE}::{name}", ("cpu", "cuda"), operator("launch", name, tensors))
        yield name, called("launch", name, tensors, through)


# The fused kernels as an implementation of their own: triton:fused.
fused = SimpleNamespace(**dict(_fused()), missing=_fused_missing)

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
