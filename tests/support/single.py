"""A device without float64, named "single": csrc/testing/single, for what has to run on MPS and the like.

Modules that import this one are skipped unless the library is built (by `make test`).
"""

import contextlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

LIBRARY = Path(__file__).parent.parent / "libfastkan_single.so"
if not LIBRARY.exists():
    pytest.skip(f"{LIBRARY.name} is not built: `make test` builds it", allow_module_level=True)


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
