"""Backends that run here, and which of them ran."""

from collections import Counter
from types import ModuleType

import pytest
import torch

from fastkan import select
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


def skip_if_missing(name: str, family: str = "bspline") -> None:
    reason = select.missing(name, "cpu", (torch.float32,), select.everyday(family))
    if reason:
        pytest.skip(f"{name}: {reason}")
