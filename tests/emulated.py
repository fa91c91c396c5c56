"""The CUDA kernels on a GPU that is emulated: csrc/testing/emulated compiles their own source for the CPU.

Without the library, which `make test` builds, each module that imports this one is skipped.
"""

from pathlib import Path
from types import ModuleType

import pytest
import torch

from fastkan import ops

LIBRARY = Path(__file__).with_name("libfastkan_emulated.so")
if not LIBRARY.exists():
    pytest.skip(f"{LIBRARY.name} is not built: `make test` builds it", allow_module_level=True)

NAMESPACE = "fastkan_emulated"
for name, schema in (ops.SCHEMAS | ops.STACK_SCHEMAS | ops.GPU_SCHEMAS).items():
    torch.library.define(f"{NAMESPACE}::{name}", schema)
torch.library.define(f"{NAMESPACE}::cuda_serves", "(int device) -> bool")
torch.library.define(f"{NAMESPACE}::cuda_algorithm", "() -> int")
torch.ops.load_library(str(LIBRARY))

BACKEND = ModuleType("emulated")
vars(BACKEND).update(zip(ops.CONTRACTIONS, ops.functions(NAMESPACE), strict=True))
BACKEND.missing = lambda device_type, dtypes, family=0: None

# How many processors the emulated GPU has, which decides how a problem is cut: one leaves it whole, many split it.
PROCESSORS = "FASTKAN_EMULATED_PROCESSORS"
FEW, MANY = 1, 132


def algorithm() -> str:
    """What the last contraction ran."""
    return ("none", "gather", "matrix", "wgmma", "tma")[getattr(torch.ops, NAMESPACE).cuda_algorithm()]
