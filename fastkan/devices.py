"""Devices without float64: which they are, and where what takes float64 runs for them.

MPS and some XPUs have none. There knots are float32, and least squares and symbolic fits run on the host: on copies, in
float64, whose results are copied back.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import functools
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch

HOST = torch.device("cpu")


def has_float64(device: torch.device) -> bool:
    """Whether tensors on that device may be float64."""
    if device.type in ("cpu", "cuda", "meta"):
        return True
    return _asked(device.type, device.index)


# torch.compile cannot trace the question: it asks at compile time. (torch.compiler.assume_constant_result sets the same
# attribute, but imports the compiler.)
has_float64._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


@functools.cache
def _asked(kind: str, index: int | None) -> bool:
    if kind == "mps":
        return False
    if kind == "xpu":  # allocates float64 even where it cannot compute it
        return cast(Any, torch.xpu.get_device_properties(index)).has_fp64
    try:
        with no_dispatch():  # not as a fake tensor
            torch.empty(0, dtype=torch.float64, device=kind if index is None else f"{kind}:{index}")
    except (RuntimeError, TypeError):
        return False
    return True


def architecture(device: torch.device) -> str:
    """The name of a GPU's instruction set: 'sm_90', 'gfx942'; '' where torch sees none."""
    if not torch.cuda.is_available():
        return ""
    gpu: Any = torch.cuda.get_device_properties(device)
    return gpu.gcnArchName.partition(":")[0] if torch.version.hip else f"sm_{gpu.major}{gpu.minor}"


def widest(device: torch.device) -> torch.dtype:
    """The most precise type of real numbers on that device."""
    return torch.float64 if has_float64(device) else torch.float32


def home(device: torch.device) -> torch.device:
    """Where tensors on that device are computed with in float64: there, or on the host."""
    return device if has_float64(device) else HOST


def host(t: Tensor) -> Tensor:
    """t, or a copy of it on the host where its device has no float64; differentiable."""
    return t if has_float64(t.device) else t.to(HOST)


def exact(t: Tensor) -> Tensor:
    """t in float64, on the host where its device has none; differentiable."""
    return host(t).double()  # in two steps: MPS converts before it copies


def place(t: Tensor, device: torch.device) -> Tensor:
    """t on that device, in the widest type there; differentiable."""
    dtype = widest(device)
    return t.to(device).to(dtype) if dtype == torch.float64 else t.to(dtype).to(device)


def on_host(*values: Tensor) -> list[Tensor]:
    """Real tensors on the host: those of a device as copies, all in one transfer."""
    there = [v.detach() for v in values if not v.is_cpu]
    if not there:
        return list(values)
    dtype = functools.reduce(torch.promote_types, (v.dtype for v in there), torch.float32)
    flat = torch.cat([v.to(dtype).reshape(-1) for v in there]).cpu()
    copies = iter(flat.split([v.numel() for v in there]))
    return [v if v.is_cpu else next(copies).view(v.shape).to(v.dtype) for v in values]


def at_home(*values: Tensor) -> list[Tensor]:
    """Tensors without a graph where float64 can be computed: on their device, or on the host, in one transfer."""
    return [v.detach() for v in values] if all(has_float64(v.device) for v in values) else on_host(*values)
