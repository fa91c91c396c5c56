"""Backends that run here, and which of them ran."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from unittest import mock

import pytest
import torch

from fastkan import select, verdicts
from fastkan.backends import native
from fastkan.testing import CONTRACTIONS


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


def skip_without(flag: str) -> None:
    """Skip a test of the avx512 kernels on a CPU without this flag of /proc/cpuinfo."""
    skip_if_missing("native")
    if native.cpu_isa() != "avx512" or os.environ.get("FASTKAN_CPU_ISA"):
        pytest.skip("the kernels are not those of avx512, or FASTKAN_CPU_ISA chooses")
    with open("/proc/cpuinfo") as text:
        if flag not in text.read():
            pytest.skip(f"this processor has no {flag}")


def skip_if_missing(name: str, family: str = "bspline") -> None:
    reason = select.missing(name, "cpu", (torch.float32,), select.everyday(family))
    if reason:
        pytest.skip(f"{name}: {reason}")


class Always(dict):
    """A dict that has the same value for every key."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def get(self, key, default=None):
        return self.value


@contextlib.contextmanager
def proven(*names: str, on: str = "cuda") -> Iterator[None]:
    """On this type of device these implementations alone have passed `fastkan prove`, for every kind of call.

    The first is the fastest.
    """
    every = {name: verdicts.Verdict(verdicts.FASTER, "", (1.5 + 1 / n,)) for n, name in enumerate(names, 1)}
    with (
        mock.patch.object(verdicts, "known", lambda device, may_prove=True: Always(every)),
        mock.patch.object(select, "_choices", {}),
        mock.patch.object(select, "UNPROVEN_TYPES", {"cuda", on}),
    ):
        yield
