"""Which backend runs, and why.

The choice is automatic unless a name is given: by argument, else by `use_backend`, else by the environment variable
FASTKAN_BACKEND as it was when fastkan was imported. A backend asked for by name never falls back: it works, or one
BackendError says why it cannot.
"""

import contextlib
import os
from collections.abc import Iterator
from types import ModuleType

import torch

from . import reference
from .backends import native, triton

ENV = "FASTKAN_BACKEND"
BACKENDS: dict[str, ModuleType] = {"native": native, "triton": triton, "reference": reference}

# device type -> backends, best first, and the measurement that says so.
PREFERENCE = {
    "cpu": (("native", "reference"), "native was the fastest in every case of bench/results/cpu"),
}
_OTHER_DEVICE = (("reference",), "")
_FALLBACK = "nothing faster is here"

# What is asked for now, and by what; process-wide like torch's own switches, so that torch.compile can guard on it.
_asked: tuple[str | None, str] = (os.environ.get(ENV) or None, ENV)


class BackendError(RuntimeError):
    """The backend that was asked for by name cannot do what was asked."""


def missing(name: str, device_type: str, dtypes: tuple[torch.dtype, ...]) -> str | None:
    """Why backend `name` cannot serve that device and those dtypes; None if it can."""
    if name == "reference":
        return None
    return BACKENDS[name].missing(device_type, dtypes)


def choose(backend: str | None, device_type: str, dtypes: tuple[torch.dtype, ...]) -> str:
    """The name of the backend that serves this call."""
    asked, by = _asked if backend is None else (backend, "backend")
    if asked is not None:
        reason = missing(_known(asked, by), device_type, dtypes)
        if reason:
            raise BackendError(f"{by}={asked!r} cannot run here: {reason}")
        return asked
    names, _ = PREFERENCE.get(device_type, _OTHER_DEVICE)
    for name in names:
        if missing(name, device_type, dtypes) is None:
            return name
    return "reference"


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


def backends(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, str]:
    """What each backend would do for tensors of that device and dtype, by name.

    'chosen: why', 'available' or 'missing: why'.
    """
    device_type = torch.device(device).type
    names, why = PREFERENCE.get(device_type, _OTHER_DEVICE)
    asked, by = _asked
    if asked is not None:
        names, why = (_known(asked, by),), f"asked for by {by}"
    chosen = next((n for n in names if missing(n, device_type, (dtype,)) is None), None)
    if asked is None and chosen == "reference":
        why = _FALLBACK
    table = {}
    for name in BACKENDS:
        reason = missing(name, device_type, (dtype,))
        table[name] = f"missing: {reason}" if reason else f"chosen: {why}" if name == chosen else "available"
    return table


def _known(name: str, by: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{by}={name!r}: expected one of {', '.join(map(repr, BACKENDS))}")
    return name
