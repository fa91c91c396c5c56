"""Choice of the backend, with the reason.

Automatic unless a name is given: by argument, else by `use_backend`, else by the environment variable FASTKAN_BACKEND
at the time of the import of fastkan. A backend that is requested by name never falls back: it runs, or a BackendError
says why it cannot.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import contextlib
import functools
import os
import sys
from collections.abc import Generator
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from . import ops, reference
from .backends import dense, native, triton
from .spec import FAMILIES, index_of
from .transforms import by_jit

ENV = "FASTKAN_BACKEND"
BACKENDS: dict[str, ModuleType] = {
    "native": native, "triton": triton, "dense": dense, "reference": reference,
}  # fmt: skip
# The reference as operators, for DTensors, which do not mix with the ordinary tensors that it makes inside. Not a name
# for users. See sharding.py.
OPERATORS = ops.REFERENCE
REFERENCE_AS_OPERATORS = SimpleNamespace(**dict(zip(ops.CONTRACTIONS, ops.functions(OPERATORS), strict=True)))

# device type -> backends, best first, and the reason.
PREFERENCE = {
    "cpu": (("native", "dense"), "native was the fastest in every case of bench/results/cpu"),
    "cuda": (("native", "triton", "dense"), "the first whose tests passed on this architecture"),
}
# (backend, architecture) -> the run of the GPU tests that passed there. The automatic choice takes no other kernels on
# a GPU: kernels that never ran may be wrong.
PROVEN: dict[tuple[str, str], str] = {}
_OTHER_DEVICE = (("dense",), "plain PyTorch runs on every device")
_FALLBACK = "nothing faster is available"

# The requested backend and the source of the request; process-wide like torch's own switches, so that torch.compile can
# guard on it.
_requested: tuple[str | None, str] = (os.environ.get(ENV) or None, ENV)


class BackendError(RuntimeError):
    """The backend that was requested by name cannot run this call."""


def missing(name: str, device_type: str, dtypes: tuple[torch.dtype, ...], family: int = 0) -> str | None:
    """The reason why a backend cannot serve that device, those dtypes and that basis family; None if it can."""
    if name in ("dense", "reference"):
        return None
    return BACKENDS[name].missing(device_type, dtypes, family)


def architecture(device: torch.device) -> str:
    """The name of a GPU in PROVEN: 'sm_90', 'gfx942'; '' where torch sees none."""
    return _architecture(device) if torch.compiler.is_compiling() else _cached_architecture(device)


def _architecture(device: torch.device) -> str:
    if not torch.cuda.is_available():
        return ""
    gpu: Any = torch.cuda.get_device_properties(device)
    return gpu.gcnArchName.partition(":")[0] if torch.version.hip else f"sm_{gpu.major}{gpu.minor}"


_cached_architecture = functools.cache(_architecture)


def unproven(name: str, device: torch.device) -> str | None:
    """The reason why the automatic choice skips a backend that could serve that device; None if it does not."""
    if device.type != "cuda" or name in ("dense", "reference") or (name, architecture(device)) in PROVEN:
        return None
    return f"its tests never passed on {architecture(device) or 'a GPU here'}; choose it by name"


def choose(backend: str | None, device: torch.device, dtypes: tuple[torch.dtype, ...], family: int = 0) -> str:
    """The name of the backend that serves this call."""
    name, by = _requested if backend is None else (backend, "backend")
    if name is not None:
        reason = missing(_known(name, by), device.type, dtypes, family)
        if reason:
            raise BackendError(f"{by}={name!r} cannot run here: {reason}")
        return name
    return _automatic(device, dtypes, family)


def choose_for(x: Tensor, backend: str | None, coef: Tensor, family: int) -> str:
    """The backend for a layer's x and coef, as an argument of functions_of; x may be a DTensor."""
    name = choose(backend, x.device, (x.dtype, coef.dtype), family)
    return OPERATORS if name == "reference" and hasattr(x, "full_tensor") else name


def functions_of(name: str) -> ModuleType | SimpleNamespace:
    """The contractions of a backend, or the reference's as operators."""
    return BACKENDS.get(name, REFERENCE_AS_OPERATORS)


def _automatic(device: torch.device, dtypes: tuple[torch.dtype, ...], family: int = 0) -> str:
    if by_jit() or (torch.compiler.is_exporting() and _to_onnx()):
        return "reference"  # an ONNX runtime lacks the kernels' operators, and a trace of torch.jit their gradients
    names, _ = PREFERENCE.get(device.type, _OTHER_DEVICE)
    for name in names:
        if unproven(name, device) is None and missing(name, device.type, dtypes, family) is None:
            return name
    return "reference"


def _to_onnx() -> bool:
    onnx = sys.modules.get("torch.onnx")  # an attribute of torch would import it
    return onnx is not None and onnx.is_in_onnx_export()


@contextlib.contextmanager
def use_backend(backend: str | None) -> Generator[None, None, None]:
    """Context in which calls without a `backend` argument run on this backend; None stands for the automatic choice.

    Process-wide, like torch's own backend switches.
    """
    global _requested
    before = _requested
    _requested = (None if backend is None else _known(backend, "backend"), "use_backend")
    try:
        yield
    finally:
        _requested = before


def backends(
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, family: str = "bspline"
) -> dict[str, str]:
    """The state of each backend for tensors of that device and dtype and that basis family, by name.

    'chosen: why', 'available', 'unproven: why' or 'missing: why'.
    """
    kind = index_of("family", family, FAMILIES)
    device = torch.device(device)
    if device == torch.device("cuda") and torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    requested, by = _requested
    if requested is not None:
        chosen = requested if missing(_known(requested, by), device.type, (dtype,), kind) is None else None
        why = f"requested by {by}"
    else:
        chosen = _automatic(device, (dtype,), kind)
        why = _FALLBACK if chosen == "reference" else PREFERENCE.get(device.type, _OTHER_DEVICE)[1]
        if (chosen, architecture(device)) in PROVEN:
            why = f"{why}: {PROVEN[chosen, architecture(device)]}"
    table: dict[str, str] = {}
    for name in BACKENDS:
        if reason := missing(name, device.type, (dtype,), kind):
            table[name] = f"missing: {reason}"
        elif name == chosen:
            table[name] = f"chosen: {why}"
        elif reason := unproven(name, device):
            table[name] = f"unproven: {reason}"
        else:
            table[name] = "available"
    return table


def _known(name: str, by: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{by}={name!r}: expected one of {', '.join(map(repr, BACKENDS))}")
    return name
