"""A device without float64, named "single": csrc/testing/single, for what has to run on MPS and the like.

Modules that import this one are skipped unless the library is built (by `make test`).
"""

import contextlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from fastkan import devices

LIBRARY = Path(__file__).parent.parent / "libfastkan_single.so"
if not LIBRARY.exists():
    pytest.skip(f"{LIBRARY.name} is not built: `make test` builds it", allow_module_level=True)


CLOSE = {"rtol": 1e-5, "atol": 1e-5}
DEVICE = torch.device("privateuseone", 0)  # the name of "single" until it is registered


def register() -> torch.device:
    """Make torch know the device; once in a process, and for good: for all that call it later in the same process."""
    if not hasattr(torch, "single"):
        torch.ops.load_library(str(LIBRARY))
        torch.utils.rename_privateuse1_backend("single")
        torch._register_device_module("single", _module())
        torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    return DEVICE


def _module() -> ModuleType:
    """torch.single, with what torch asks of a device's module."""
    module = ModuleType("torch.single")
    state = torch.random.get_rng_state
    answers = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_is_in_bad_fork": lambda: False,
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "device": contextlib.nullcontext,
        "synchronize": lambda device=None: None,
        "manual_seed": lambda seed: None,  # numbers are drawn by the host's generator
        "manual_seed_all": lambda seed: None,
        "get_rng_state": lambda device=None: state(),
        "set_rng_state": lambda state, device=None: torch.random.set_rng_state(state),
        "get_amp_supported_dtype": lambda: [torch.float16, torch.bfloat16],
    }
    vars(module).update(answers)
    return module


def synchronizations() -> int:
    """How often the host has waited for the device so far: by reading a value, or by a copy to itself."""
    return torch.ops.fastkan_single.synchronizations()


@contextlib.contextmanager
def with_float64():
    """The device has float64 for a while, as a GPU has."""
    _set_float64(True)
    try:
        yield
    finally:
        _set_float64(False)


def _set_float64(has: bool) -> None:
    torch.ops.fastkan_single.set_double(has)
    devices._asked.cache_clear()


def same(there: torch.Tensor, on_cpu: torch.Tensor, **tolerance) -> None:
    assert there.device == DEVICE and there.dtype == on_cpu.dtype
    torch.testing.assert_close(there.cpu(), on_cpu, **tolerance or CLOSE)


def data(*shape: int, scale: float = 1.2) -> torch.Tensor:
    return scale * (2 * torch.rand(*shape, generator=torch.Generator().manual_seed(1)) - 1)


def derivatives(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Values, slopes, and gradients of a loss of both."""
    x = x.clone().requires_grad_()
    y = model(x)
    (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    return [y, slope, *torch.autograd.grad(slope.square().mean() + y.mean(), [x, *trained])]


def assert_alike(there: nn.Module, on_cpu: nn.Module, x: torch.Tensor) -> None:
    for got, want in zip(derivatives(there, x.to(DEVICE)), derivatives(on_cpu, x), strict=True):
        same(got.detach(), want.detach(), rtol=1e-4, atol=1e-5 * max(1.0, float(want.abs().max())))
