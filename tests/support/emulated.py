"""The CUDA kernels on an emulated GPU: csrc/testing/emulated compiles their source for the CPU.

Modules that import this one are skipped unless the library is built (by `make test`).
"""

import zlib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from fastkan import direct, ops, select
from support.matrix_product_tests import ALGORITHM, Products

LIBRARY = Path(__file__).parent.parent / "libfastkan_emulated.so"
if not LIBRARY.exists():
    pytest.skip(f"{LIBRARY.name} is not built: `make test` builds it", allow_module_level=True)

NAMESPACE = "fastkan_emulated"
for name, schema in (ops.SCHEMAS | ops.STACK_SCHEMAS | ops.GPU_SCHEMAS).items():
    torch.library.define(f"{NAMESPACE}::{name}", schema)
    torch.library.register_fake(f"{NAMESPACE}::{name}", ops.FAKES[name])
torch.library.define(f"{NAMESPACE}::cuda_serves", "(int device) -> bool")
torch.library.define(f"{NAMESPACE}::cuda_algorithm", "() -> int")
torch.ops.load_library(str(LIBRARY))


def algorithm() -> str:
    """The algorithm of the last contraction."""
    return ("none", "gather", "matrix", "wgmma")[getattr(torch.ops, NAMESPACE).cuda_algorithm()]


def contractions(form: str) -> SimpleNamespace:
    functions = dict(zip(ops.CONTRACTIONS, ops.functions(NAMESPACE, form), strict=True))
    return SimpleNamespace(**functions, missing=lambda device_type, dtypes, family=0: None)


def by_precision(exact, rounding):
    """The contraction with tf32 products where torch allows them."""
    return lambda *args: (rounding if ops.allows_tf32() else exact)(*args)


BACKEND = ModuleType("emulated")
vars(BACKEND).update(vars(contractions("")))
for name in ops.CONTRACTIONS[:4]:
    setattr(BACKEND, name, by_precision(getattr(BACKEND, name), getattr(contractions(ops.TF32), name)))
BACKEND.gather = contractions(ops.GATHER)
BACKEND.stack_out, BACKEND.stack_backward = (getattr(getattr(torch.ops, NAMESPACE), name) for name in ops.STACK_SCHEMAS)
BACKEND.cuda_algorithm = algorithm


def serve_native(monkeypatch) -> None:
    """Calls with backend="native" run on the emulated GPU, also those that C++ would give to the CPU's kernels."""
    monkeypatch.setitem(select.BACKENDS, "native", BACKEND)
    monkeypatch.setattr(direct, "kan_out", None)
    monkeypatch.setattr(direct, "stack_out", None)


# Number of multiprocessors of the emulated GPU, which determines the tiling: many lead to splits.
PROCESSORS = "FASTKAN_EMULATED_PROCESSORS"
FEW, MANY = 1, 132


@pytest.fixture(autouse=True)
def processors(request, monkeypatch):
    """Few or many, by the name of the test: half of the cases each."""
    monkeypatch.setenv(PROCESSORS, str((FEW, MANY)[zlib.crc32(request.node.nodeid.encode()) % 2]))
    return lambda count: monkeypatch.setenv(PROCESSORS, str(count))


@pytest.fixture
def native() -> ModuleType:
    """The compiled backend of contraction_tests and family_tests."""
    return BACKEND


MAJOR = "FASTKAN_EMULATED_MAJOR"  # of the compute capability


def on_hopper(monkeypatch) -> Products:
    monkeypatch.setenv(ALGORITHM, "wgmma")
    monkeypatch.setenv(MAJOR, "9")
    return Products(
        BACKEND, "cpu", algorithm, asked="wgmma", best="wgmma",
        processors=lambda n: monkeypatch.setenv(PROCESSORS, str(n)),
    )  # fmt: skip
