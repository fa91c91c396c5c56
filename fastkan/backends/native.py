"""The compiled kernels: C++ for CPUs, CUDA C++ for NVIDIA's GPUs. Where they are absent, ABSENT has the reason."""

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch

from .. import ops
from ..spec import FAMILIES, WITH_KERNELS

_LIBRARY = Path(__file__).parent.parent / "lib"
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _load(name: str) -> str | None:
    path = _LIBRARY / name
    if not path.exists():
        reason = path.with_suffix(".absent.txt")  # written by setup.py
        source = _LIBRARY.parent.parent
        if not reason.exists() and (source / "setup.py").exists():
            return (
                f"fastkan is imported from a source folder that was not built ({source}): "
                "pip install -e . there, or leave the folder"
            )
        return f"{name} was not built: {reason.read_text() if reason.exists() else 'the package was not installed'}"
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return f"{name} does not load: {error.__cause__ or error}"
    key = path.stem.rpartition("_")[2].upper()
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    every = (*ops.SCHEMAS, *ops.STACK_SCHEMAS, *(ops.GPU_SCHEMAS if key == "CUDA" else ()))
    lacking = [op for op in every if not has(f"fastkan::{op}", key)]
    if lacking:  # an editable install with newer sources
        return f"{name} was built from older sources, without {', '.join(lacking)}: install the package again"
    return None


# device type -> the reason why its kernels are absent; None if they are loaded
ABSENT = {
    "cpu": _load("libfastkan_cpu.so"),
    "cuda": _load("libfastkan_cuda.so") if torch.version.cuda else "torch was built without CUDA",
}


def cpu_isa() -> str | None:
    """The instruction set of the CPU kernels on this machine; None without kernels."""
    return None if ABSENT["cpu"] else ("baseline", "avx2", "avx512")[torch.ops.fastkan.cpu_isa()]


def cpu_algorithm() -> str:
    """The algorithm of the last `kan_*` contraction on the CPU: "none" so far, "gather", "matrix" or "pairs"."""
    return ("none", "gather", "matrix", "pairs")[0 if ABSENT["cpu"] else torch.ops.fastkan.cpu_algorithm()]


def cuda_algorithm() -> str:
    """The algorithm of the last contraction on a GPU: "none" so far, "gather", "matrix" or "wgmma"."""
    names = ("none", "gather", "matrix", "wgmma")
    return names[0 if ABSENT["cuda"] else torch.ops.fastkan.cuda_algorithm()]


@functools.cache
def _unserved(gpu: int) -> str | None:
    """The reason why that GPU has no kernels in the library; None if it has. Asking makes a CUDA context there."""
    if torch.ops.fastkan.cuda_serves(gpu):
        return None
    name = "sm_{}{}".format(*torch.cuda.get_device_capability(gpu))
    return f"libfastkan_cuda.so holds no code for {name}: see FASTKAN_CUDA_ARCHS"


def _unserved_here() -> str | None:
    """The same for the current GPU alone: each process of several has a context on its own GPU, and on no other."""
    return _unserved(torch.cuda.current_device()) if torch.cuda.device_count() else "there is no GPU"


def missing(device_type: str, dtypes: tuple[torch.dtype, ...], family: int = 0) -> str | None:
    """The reason why this backend cannot serve that device, those dtypes and that basis family; None if it can.

    Of several GPUs the current one is meant.
    """
    if device_type not in ABSENT:
        return f"no compiled kernels for device {device_type!r}"
    if ABSENT[device_type]:
        return ABSENT[device_type]
    if device_type == "cuda" and not torch.compiler.is_compiling() and (reason := _unserved_here()):
        return reason
    for dtype in dtypes:
        if dtype not in _DTYPES:
            return f"no compiled kernels for {dtype}"
    if FAMILIES[family] not in WITH_KERNELS:
        return f"no compiled kernels for family {FAMILIES[family]!r}"
    return None


def _gather_missing(device_type: str, dtypes: tuple[torch.dtype, ...], family: int = 0) -> str | None:
    """As `missing`, for `gather`."""
    if device_type != "cuda":
        return f"gathering alone is a choice on NVIDIA's GPUs, not on device {device_type!r}"
    return missing(device_type, dtypes, family)


def _by_precision(exact: Callable, rounding: Callable) -> Callable:
    """The contraction with tf32 products where torch allows them; the dtype of the third argument is theirs."""

    def contraction(x, first, second, *rest):
        is_single = not x.is_cpu and second.dtype == torch.float32
        return (rounding if is_single and ops.allows_tf32() else exact)(x, first, second, *rest)

    return contraction


_EXACT, _ROUNDING = ops.functions("fastkan"), ops.functions("fastkan", ops.TF32)
kan_out, kan_in, kan_coef, kan_backward = map(_by_precision, _EXACT[:4], _ROUNDING[:4])
edge_moments, edge_backward = _EXACT[4:]
# On a GPU the contractions without matrix products, as a backend of their own: "native:gather".
gather = SimpleNamespace(**dict(zip(ops.CONTRACTIONS, ops.functions("fastkan", ops.GATHER), strict=True)))
gather.missing = _gather_missing
stack_out, stack_backward = torch.ops.fastkan.stack_out, torch.ops.fastkan.stack_backward
