"""The compiled kernels: C++ on the CPU. Absence is a state with a reason, never an exception at import."""

from pathlib import Path

import torch
from torch import Tensor

from ..spec import Spec

_LIBRARY = Path(__file__).parent.parent / "lib"
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _load(name: str) -> str | None:
    path = _LIBRARY / name
    if not path.exists():
        reason = _LIBRARY / "absent.txt"  # what setup.py ran into
        return f"{name} was not built: {reason.read_text() if reason.exists() else 'the package was not installed'}"
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return f"{name} does not load: {error.__cause__ or error}"
    return None


# device type -> why its kernels are absent, None where they are loaded
ABSENT = {"cpu": _load("libfastkan_cpu.so")}

_ops = torch.ops.fastkan


def cpu_isa() -> str | None:
    """The instruction set of the CPU kernels that serve this machine; None where there are none."""
    return None if ABSENT["cpu"] else ("baseline", "avx2", "avx512")[_ops.cpu_isa()]


def missing(device_type: str, dtypes: tuple[torch.dtype, ...]) -> str | None:
    """Why this backend cannot serve tensors of that device and those dtypes; None if it can."""
    if device_type not in ABSENT:
        return f"no compiled kernels for device {device_type!r}"
    if ABSENT[device_type]:
        return ABSENT[device_type]
    for dtype in dtypes:
        if dtype not in _DTYPES:
            return f"no compiled kernels for {dtype}"
    return None


def kan_out(
    x: Tensor, s: Tensor | None, coef: Tensor, base_weight: Tensor | None, bias: Tensor | None, grid: Tensor,
    spec: Spec, order: int,
) -> Tensor:  # fmt: skip
    return _ops.kan_out(x, s, coef, base_weight, bias, grid, *spec, order)


def kan_in(
    x: Tensor, u: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, spec: Spec, order: int
) -> Tensor:
    return _ops.kan_in(x, u, coef, base_weight, grid, *spec, order)


def kan_coef(
    x: Tensor, s: Tensor | None, u: Tensor, grid: Tensor, spec: Spec, order: int, with_base: bool
) -> tuple[Tensor, Tensor | None]:
    grad_coef, grad_base = _ops.kan_coef(x, s, u, grid, *spec, order, with_base)
    return grad_coef, grad_base if with_base else None


def kan_backward(
    x: Tensor, s: Tensor | None, u: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, spec: Spec,
    order: int,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    grad_x, grad_coef, grad_base = _ops.kan_backward(x, s, u, coef, base_weight, grid, *spec, order)
    return grad_x, grad_coef, None if base_weight is None else grad_base


def edge_mean(x: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, spec: Spec) -> Tensor:
    return _ops.edge_mean(x, coef, base_weight, grid, *spec)


def edge_mean_backward(
    x: Tensor, grad_mean: Tensor, coef: Tensor, base_weight: Tensor | None, grid: Tensor, spec: Spec
) -> tuple[Tensor, Tensor, Tensor | None]:
    grad_x, grad_coef, grad_base = _ops.edge_mean_backward(x, grad_mean, coef, base_weight, grid, *spec)
    return grad_x, grad_coef, None if base_weight is None else grad_base
