"""Fixtures of every test: memory that nobody wrote shows, and a test that names a backend ran on it."""

import ctypes
from collections import Counter
from types import ModuleType

import pytest
import torch

from fastkan import select
from fastkan.testing import CONTRACTIONS

# glibc's mallopt: memory comes filled with the complement of this byte, 0x7f7f7f7f = 3.4e38 as a float32.
M_PERTURB, PERTURB = -6, 0x80


@pytest.fixture(autouse=True)
def poison():
    """torch.empty holds NaN, and memory that a kernel allocates past torch.empty holds huge numbers."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    deterministic, fill = (
        torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory,
    )  # fmt: skip
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    if mallopt:
        mallopt(M_PERTURB, PERTURB)
    yield
    if mallopt:
        mallopt(M_PERTURB, 0)
    torch.utils.deterministic.fill_uninitialized_memory = fill
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """The problems here are tiny: threads would mostly wait. What they compute is compared in test_ops."""
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


class Recorder(ModuleType):
    """A backend that counts the calls of its contractions."""

    def __init__(self, name: str, backend: ModuleType):
        super().__init__(name)
        self.backend, self.calls = backend, Counter()
        for contraction in CONTRACTIONS:
            setattr(self, contraction, self._counting(contraction))

    def _counting(self, contraction: str):
        function = getattr(self.backend, contraction)

        def counted(*args):
            self.calls[contraction] += 1
            return function(*args)

        return counted

    def __getattr__(self, attribute: str):
        return getattr(self.backend, attribute)


def skip_if_missing(name: str) -> None:
    reason = select.missing(name, "cpu", (torch.float32,))
    if reason:
        pytest.skip(f"{name}: {reason}")


@pytest.fixture(params=sorted(select.BACKENDS))
def backend_name(request) -> str:
    """The name of each backend that runs here, the others skipped with their reason; for tests that trace."""
    skip_if_missing(request.param)
    return request.param


@pytest.fixture
def calls(monkeypatch) -> dict[str, Counter]:
    """What each backend was asked for in this test."""
    recorders = {name: Recorder(name, module) for name, module in select.BACKENDS.items()}
    for name, recorder in recorders.items():
        monkeypatch.setitem(select.BACKENDS, name, recorder)
    return {name: recorder.calls for name, recorder in recorders.items()}


@pytest.fixture
def backend(backend_name: str, calls: dict[str, Counter]):
    """The name of each backend that runs here, and proof that the test's contractions ran there and nowhere else."""
    yield backend_name
    assert calls[backend_name], f"nothing ran on {backend_name}"
    others = {name: dict(count) for name, count in calls.items() if name != backend_name and count}
    assert not others, f"asked for {backend_name}, but also ran {others}"


@pytest.fixture
def native() -> ModuleType:
    """The compiled backend's module, or a skip with the reason."""
    skip_if_missing("native")
    return select.BACKENDS["native"]
