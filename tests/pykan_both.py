"""The import name kan, for a while pykan's own or fastkan's: what a test runs under the one it runs under the other."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import pytest
import torch

from fastkan.compat import pykan
from fastkan.network.train import lbfgs


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


@contextmanager
def long_memory() -> Iterator:
    """pykan's fit with its LBFGS told to remember as many changes as fastkan's does, so that both go the same way."""
    with ExitStack() as stack:
        for name in ("kan.MultKAN", "kan.MLP"):
            module = importlib.import_module(name)
            made = module.LBFGS
            stack.enter_context(
                mock.patch.object(
                    module, "LBFGS", lambda p, made=made, **o: made(p, **o | {"history_size": lbfgs.MAX_HISTORY})
                )
            )
        yield


def both(script: Callable, folder) -> tuple[dict, dict]:
    """What the script returns under fastkan's kan and under pykan, each in a folder of its own."""
    results, here = [], os.getcwd()
    for name, context in (("fastkan", our_kan), ("pykan", real_kan)):
        os.makedirs(folder / name)
        os.chdir(folder / name)
        try:
            with context(), long_memory():
                torch.manual_seed(0)
                results.append(script())
        finally:
            os.chdir(here)
    return tuple(results)
