"""Which backend runs, and why.

The choice is automatic unless a name is given: by argument, else by `use_backend`, else by the environment variable
FASTKAN_BACKEND as it was when fastkan was imported. A backend asked for by name never falls back: it works, or one
BackendError says why it cannot.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor

from . import ops, reference
from .backends import native, triton
from .spec import FAMILIES, index_of
from .transforms import by_jit

ENV = "FASTKAN_BACKEND"
BACKENDS: dict[str, ModuleType] = {"native": native, "triton": triton, "reference": reference}
# The reference as operators, for DTensors: what it makes itself is ordinary tensors, which those do not mix with. Not a
# name to ask for. See sharding.py.
OPERATORS = ops.REFERENCE
REFERENCE_AS_OPERATORS = SimpleNamespace(**dict(zip(ops.CONTRACTIONS, ops.functions(OPERATORS), strict=True)))

# device type -> backends, best first, and what says so.
PREFERENCE = {
    "cpu": (("native", "reference"), "native was the fastest in every case of bench/results/cpu"),
    "cuda": (("native", "triton", "reference"), "the first whose tests passed on this architecture"),
}
# (backend, architecture) -> the run of the GPU tests that passed there. The automatic choice takes no other kernels on
# a GPU: what never ran may be wrong.
PROVEN: dict[tuple[str, str], str] = {}
_OTHER_DEVICE = (("reference",), "")
_FALLBACK = "nothing faster is here"

# What is asked for now, and by what; process-wide like torch's own switches, so that torch.compile can guard on it.
_asked: tuple[str | None, str] = (os.environ.get(ENV) or None, ENV)


class BackendError(RuntimeError):
    """The backend that was asked for by name cannot do what was asked."""


def missing(name: str, device_type: str, dtypes: tuple[torch.dtype, ...], family: int = 0) -> str | None:
    """Why backend `name` cannot serve that device, those dtypes and that family of features; None if it can."""
    if name == "reference":
        return None
    return BACKENDS[name].missing(device_type, dtypes, family)


def architecture(device: torch.device) -> str:
    """What a GPU is called in PROVEN: 'sm_90', 'gfx942'; '' where torch sees none."""
    return _architecture(device) if torch.compiler.is_compiling() else _cached_architecture(device)


def _architecture(device: torch.device) -> str:
    if not torch.cuda.is_available():
        return ""
    gpu = torch.cuda.get_device_properties(device)
    return gpu.gcnArchName.partition(":")[0] if torch.version.hip else f"sm_{gpu.major}{gpu.minor}"


_cached_architecture = functools.cache(_architecture)


def unproven(name: str, device: torch.device) -> str | None:
    """Why the automatic choice passes over a backend that could serve that device; None if it does not."""
    if device.type != "cuda" or name == "reference" or (name, architecture(device)) in PROVEN:
        return None
    return f"its tests never passed on {architecture(device) or 'a GPU here'}; choose it by name"


def choose(backend: str | None, device: torch.device, dtypes: tuple[torch.dtype, ...], family: int = 0) -> str:
    """The name of the backend that serves this call."""
    asked, by = _asked if backend is None else (backend, "backend")
    if asked is not None:
        reason = missing(_known(asked, by), device.type, dtypes, family)
        if reason:
            raise BackendError(f"{by}={asked!r} cannot run here: {reason}")
        return asked
    return _automatic(device, dtypes, family)


def choose_for(x: Tensor, backend: str | None, coef: Tensor, family: int) -> str:
    """The name of what functions_of gives for a layer's x and coef, of which x may be a DTensor."""
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
def use_backend(backend: str | None) -> Iterator[None]:
    """Within this context calls without a `backend` argument run on this backend; None stands for the automatic choice.

    Process-wide, like torch's own backend switches.
    """
    global _asked
    before = _asked
    _asked = (None if backend is None else _known(backend, "backend"), "use_backend")
    try:
        yield
    finally:
        _asked = before


def backends(
    device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, family: str = "bspline"
) -> dict[str, str]:
    """What each backend would do for tensors of that device and dtype and functions of that family, by name.

    'chosen: why', 'available', 'unproven: why' or 'missing: why'.
    """
    kind = index_of("family", family, FAMILIES)
    device = torch.device(device)
    if device.type == "cuda" and device.index is None and torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    asked, by = _asked
    if asked is not None:
        chosen = asked if missing(_known(asked, by), device.type, (dtype,), kind) is None else None
        why = f"asked for by {by}"
    else:
        chosen = _automatic(device, (dtype,), kind)
        why = _FALLBACK if chosen == "reference" else PREFERENCE[device.type][1]
        if device.type == "cuda" and chosen != "reference":
            why = f"{why}: {PROVEN[chosen, architecture(device)]}"
    table = {}
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
