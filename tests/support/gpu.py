"""Backends, algorithms and cases of the tests on a GPU; without one, importing this module skips the importing one.

FASTKAN_TEST_DEVICE checks the tests themselves on a CPU: `cpu` runs them on the CPU's kernels, and on Triton's with
TRITON_INTERPRET=1; `emulated` runs the CUDA kernels on the emulated GPU.
"""

import itertools
import os
import random
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest
import torch

from fastkan import direct, select
from fastkan.testing import CONTRACTIONS

NAME = os.environ.get("FASTKAN_TEST_DEVICE", "cuda:0")
IS_EMULATED = NAME == "emulated"
DEVICE = torch.device("cpu" if IS_EMULATED else NAME)
IS_GPU = DEVICE.type == "cuda"
if IS_GPU and not torch.cuda.is_available():
    pytest.skip("torch sees no GPU here", allow_module_level=True)

# Compiled backends of the device, and the namespaces of their operators.
OPERATORS = {"native": "fastkan", "triton": "fastkan_triton"}
if IS_EMULATED:
    from support.emulated import BACKEND, MAJOR
    from support.emulated import NAMESPACE as EMULATED

    os.environ[MAJOR] = "9"
    select.BACKENDS["native"] = BACKEND
    direct.kan_out = direct.stack_out = None  # calls in C++ would run the kernels of the CPU
    OPERATORS = {"native": EMULATED}
HAS_WGMMA = IS_EMULATED or (IS_GPU and torch.cuda.get_device_capability(DEVICE)[0] == 9)
BACKENDS = [name for name in OPERATORS if select.missing(name, DEVICE.type, (torch.float32,)) is None]
each_backend = pytest.mark.parametrize("backend", BACKENDS)
on_gpu = pytest.mark.skipif(not IS_GPU, reason="a dry run on a CPU")
on_cuda = pytest.mark.skipif(
    not (IS_GPU or IS_EMULATED) or "native" not in BACKENDS, reason="no CUDA kernels for this device"
)
# Its streams; those of a CPU are stand-ins of torch's.
STREAMS = torch.get_device_module(DEVICE)


def algorithms() -> list[tuple[str, bool | None]]:
    """Every backend with each of its algorithms."""
    return [(name, gather) for name in BACKENDS for gather in ((False, True) if name == "triton" else (None,))]


each_algorithm = pytest.mark.parametrize(
    ("backend", "gather"), algorithms(), ids=lambda v: {False: "matrix", True: "gather", None: "only"}.get(v, v)
)


def captured(run: Callable[[], list[torch.Tensor]]) -> tuple[list[torch.Tensor], Callable[[], None]]:
    """The results of a captured run, and the replay that computes them anew; on a CPU a stand-in for a CUDA graph."""
    stream = STREAMS.Stream()
    stream.wait_stream(STREAMS.current_stream())
    with STREAMS.stream(stream):
        run()
    STREAMS.current_stream().wait_stream(stream)
    if IS_GPU:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = run()
        return results, graph.replay
    results = run()

    def replay() -> None:
        for result, value in zip(results, run(), strict=True):
            result.copy_(value)

    return results, replay


def at_precision(backend: ModuleType, level: str) -> SimpleNamespace:
    """The backend with float32 matrix products at that precision."""

    def function(contraction: str):
        def run(*args):
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision(level)
            try:
                return getattr(backend, contraction)(*args)
            finally:
                torch.set_float32_matmul_precision(before)

        return run

    return SimpleNamespace(**{contraction: function(contraction) for contraction in CONTRACTIONS})


def pairwise(factors: dict[str, tuple], tries: int = 40) -> list[dict]:
    """A small set of cases with every pair of values of two factors, by a greedy choice among random cases."""
    draw = random.Random(0)
    names = list(factors)
    missing = {
        ((a, x), (b, y)) for a, b in itertools.combinations(names, 2) for x in factors[a] for y in factors[b]
    }  # fmt: skip
    found = []
    while missing:
        seed = dict(draw.choice(sorted(missing, key=str)))
        drawn = [{n: seed.get(n, draw.choice(factors[n])) for n in names} for _ in range(tries)]
        case = max(drawn, key=lambda c: len(missing & set(itertools.combinations(c.items(), 2))))
        missing -= set(itertools.combinations(case.items(), 2))
        found.append(case)
    return found
