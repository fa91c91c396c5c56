"""The import name kan as pykan's own or as fastkan's, so that one script runs under both; and models of pykan."""

import copy
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
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
    """pykan's fit with an LBFGS history as long as fastkan's, so that both take the same steps."""
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


def under_both(script: Callable, folder) -> tuple[dict, dict]:
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


SHAPES = [
    {"width": [2, 3, 1]},
    {"width": [4, 5, 3], "grid": 10, "k": 2, "base_fun": "identity"},
    {"width": [2, [2, 2], 1], "grid": [3, 6], "k": [3, 1], "mult_arity": 3},
    {"width": [3, [2, 2], [1, 1], 2], "mult_arity": [[], [3, 2], [2], []], "base_fun": "zero"},
]


def pykan_model(seed: int = 5, symbolic: bool = False, **options):
    """A model of pykan in float64 with no parameter at its start. Global random numbers are left as they were."""
    state, numpy_state = torch.get_rng_state(), np.random.get_state()
    kan = pytest.importorskip("kan", reason="pykan is not installed", exc_type=ImportError)
    model = kan.KAN(**copy.deepcopy(options), seed=seed, auto_save=False, affine_trainable=True).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "grid" not in name and "mask" not in name:
                p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
        for layer in model.act_fun:
            layer.mask *= torch.rand(layer.mask.shape, generator=generator) > 0.2
    if symbolic:
        for l in range(model.depth):
            for i, j, name in ((0, 0, "sin"), (1, 0, "x^2"), (1, 0, "exp")):
                model.fix_symbolic(l, i, j, name, fit_params_bool=False, verbose=False, log_history=False)
            model.set_mode(l, 0, 0, "ns")
    torch.set_rng_state(state), np.random.set_state(numpy_state)
    return model


def data(inputs: int, rows: int = 40) -> torch.Tensor:
    return 2.6 * torch.rand(rows, inputs, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 1.3
