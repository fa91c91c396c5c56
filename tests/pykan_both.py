"""The import name kan, for a while pykan's own or fastkan's: what a test runs under the one it runs under the other."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from fastkan.compat import pykan


def _take() -> dict:
    names = [name for name in sys.modules if name == "kan" or name.startswith("kan.")]
    return {name: sys.modules.pop(name) for name in names}


_real: dict = {}


@contextmanager
def real_kan() -> Iterator:
    """import kan gives pykan 0.2.8; the test is skipped where it is not installed."""
    before = _take()
    sys.modules.update(_real)
    try:
        yield pytest.importorskip("kan", reason="pykan is not installed", exc_type=ImportError)
    finally:
        _real.update(_take())
        sys.modules.update(before)


@contextmanager
def our_kan() -> Iterator:
    """import kan gives fastkan's."""
    before = _take()
    pykan.install()
    try:
        yield sys.modules["kan"]
    finally:
        pykan.uninstall()
        sys.modules.update(before)


def both(script: Callable, folder) -> tuple[dict, dict]:
    """What the script returns under fastkan's kan and under pykan, each in a folder of its own."""
    results, here = [], os.getcwd()
    for name, context in (("fastkan", our_kan), ("pykan", real_kan)):
        os.makedirs(folder / name)
        os.chdir(folder / name)
        try:
            with context():
                torch.manual_seed(0)
                results.append(script())
        finally:
            os.chdir(here)
    return tuple(results)
