"""The compiled kernels: C++ on the CPU. Absence is a state with a reason, never an exception at import."""

from pathlib import Path

import torch

from .. import ops
from ..spec import FAMILIES

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


def cpu_isa() -> str | None:
    """The instruction set of the CPU kernels that serve this machine; None where there are none."""
    return None if ABSENT["cpu"] else ("baseline", "avx2", "avx512")[torch.ops.fastkan.cpu_isa()]


def missing(device_type: str, dtypes: tuple[torch.dtype, ...], family: int = 0) -> str | None:
    """Why this backend cannot serve that device, those dtypes and that family of features; None if it can."""
    if device_type not in ABSENT:
        return f"no compiled kernels for device {device_type!r}"
    if ABSENT[device_type]:
        return ABSENT[device_type]
    for dtype in dtypes:
        if dtype not in _DTYPES:
            return f"no compiled kernels for {dtype}"
    if family != 0:
        return f"no compiled kernels for family {FAMILIES[family]!r}"
    return None


kan_out, kan_in, kan_coef, kan_backward, edge_mean, edge_mean_backward = ops.functions("fastkan")
