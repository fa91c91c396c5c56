"""Fixtures of all tests: poisoned uninitialised memory, one thread, and proof of which backend ran."""

import ctypes
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from fastkan import direct, select
from fastkan.network.layers.library import SYMBOLIC_LIB
from support.backends import Recorder, skip_if_missing

# Makes cuBLAS deterministic; read at the first product.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

if not torch.cuda.is_available():  # read when a kernel is first called
    os.environ.setdefault("TRITON_INTERPRET", "1")

# glibc's mallopt fills allocated memory with the complement of this byte: 0x7f7f7f7f, 3.4e38 as a float32.
M_PERTURB, PERTURB = -6, 0x80
SWEEP, KEPT = 12, 4  # cases; of so many, one is kept


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marker
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark three quarters of a sweep as long; start groups, which take minutes on one worker, first.

    A sweep is a test with that marker, or with a dozen cases or more of which none is marked as long.
    FASTKAN_LONG=2/5 leaves out the long tests, or groups of them, but for the third of five shares.
    """
    cases = defaultdict(list)
    for item in items:
        cases[item.nodeid.partition("[")[0]].append(item)
    for same in cases.values():
        many = len(same) >= SWEEP and not any(item.get_closest_marker("long") for item in same)
        for item in same:
            if (many or item.get_closest_marker("sweep")) and zlib.crc32(item.name.encode()) % KEPT:
                item.add_marker(pytest.mark.long)
    if share := os.environ.get("FASTKAN_LONG"):
        number, shares = map(int, share.split("/"))
        kept = [item for item in items if not item.get_closest_marker("long") or of_share(item, shares) == number]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


def of_share(item: pytest.Item, shares: int) -> int:
    """The share, 0 to shares - 1, of a test; that of its group, if it has one."""
    group = item.get_closest_marker("xdist_group")
    name = item.nodeid if group is None else str(group.args or group.kwargs)
    return zlib.crc32(name.encode()) % shares


@pytest.fixture(autouse=True)
def poison():
    """Fill torch.empty with NaN, and memory that kernels allocate themselves with huge numbers."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    before = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)  # on a GPU some of torch's own operators have no such form
    torch.utils.deterministic.fill_uninitialized_memory = True
    if mallopt:
        mallopt(M_PERTURB, PERTURB)
    yield
    if mallopt:
        mallopt(M_PERTURB, 0)
    torch.utils.deterministic.fill_uninitialized_memory = fill
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@pytest.fixture(autouse=True)
def library_of_functions():
    """The library of symbolic functions as it was, after a test that adds to it."""
    before = dict(SYMBOLIC_LIB)
    yield
    if SYMBOLIC_LIB != before:
        SYMBOLIC_LIB.clear()
        SYMBOLIC_LIB.update(before)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """One thread, since problems are tiny; test_ops compares results at other numbers of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=sorted(set(select.BACKENDS) - {"triton"}))  # interpreted in test_triton.py, on small problems
def backend_name(request) -> str:
    """Name of each available backend (others are skipped with their reason), for tests that trace."""
    skip_if_missing(request.param)
    return request.param


@pytest.fixture
def calls(monkeypatch) -> dict[str, Counter]:
    """Calls of each backend's contractions during the test."""
    recorders = {name: Recorder(name, module) for name, module in select.BACKENDS.items()}
    for name, recorder in recorders.items():
        monkeypatch.setitem(select.BACKENDS, name, recorder)
    in_cpp = direct.kan_out
    if in_cpp is not None:

        def kan_out(*args):
            y = in_cpp(*args)
            if y is not None:
                recorders["native"].calls["in C++"] += 1
            return y

        monkeypatch.setattr(direct, "kan_out", kan_out)
    return {name: recorder.calls for name, recorder in recorders.items()}


@pytest.fixture
def by_python(monkeypatch) -> None:
    """Layers and stacks on a CPU run by Python, as where fastkan.direct is absent."""
    monkeypatch.setattr(direct, "kan_out", None)
    monkeypatch.setattr(direct, "stack_out", None)


@pytest.fixture
def backend(backend_name: str, calls: dict[str, Counter]):
    """Name of each available backend; afterwards, the test's contractions must have run there and nowhere else."""
    yield backend_name
    assert calls[backend_name], f"nothing ran on {backend_name}"
    others = {name: dict(count) for name, count in calls.items() if name != backend_name and count}
    assert not others, f"asked for {backend_name}, but also ran {others}"


@pytest.fixture
def interpreted() -> None:
    """Skips where Triton's interpreter does not run."""
    skip_if_missing("triton")


@pytest.fixture
def native() -> ModuleType:
    """The compiled backend's module, or a skip with the reason."""
    skip_if_missing("native")
    return select.BACKENDS["native"]


@pytest.fixture
def plan(monkeypatch) -> Callable[[bool | None, bool | None], None]:
    """Overrules the algorithm and the size of tiles that fastkan.backends.triton.plan would choose."""

    def overrule(gather: bool | None, large: bool | None = None) -> None:
        if gather is None:  # a backend without the choice
            return
        from fastkan.backends.triton import plan

        monkeypatch.setattr(plan, "gather", gather)
        if large is not None:  # large tiles are for problems that keep every processor busy with them
            monkeypatch.setattr(plan, "processors", lambda device: 1 if large else 1 << 30)

    return overrule
