"""Forward and backward of a layer, and of a stack of layers, in C++ on the CPU, for the torch and Python at the build.

They do what functional.py, autograd.py and stack.py do in an ordinary call, without their Python, which takes longer
than a small layer. `kan_out` and `stack_out` are None where they are absent, and return None for every other call:
under transforms, tracers, autocast and profilers, for subclasses of tensors, for arguments that are wrong. The source
is in csrc/autograd.
"""

import importlib.util
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from . import autograd, stack
from .backends import native
from .spec import Spec

_NAME = "fastkan_autograd"
PATH = Path(__file__).parent / "lib" / f"{_NAME}.torch{torch.__version__}{EXTENSION_SUFFIXES[0]}"


def _load() -> ModuleType | str:
    """The compiled module, or the reason why there is none."""
    if native.ABSENT["cpu"]:
        return native.ABSENT["cpu"]
    if not PATH.exists():
        return f"not built for torch {torch.__version__} and this Python: install fastkan again"
    loader = ExtensionFileLoader(_NAME, str(PATH))
    spec = importlib.util.spec_from_file_location(_NAME, PATH, loader=loader)
    try:
        module = importlib.util.module_from_spec(spec)  # pyright: ignore[reportArgumentType]
        loader.exec_module(module)
    except ImportError as error:
        return f"{PATH.name} does not load: {error}"
    if not hasattr(module, "use"):  # an editable install with newer sources
        return f"{PATH.name} was built from older sources: install fastkan again"
    module.use(nn.Parameter, _gradients, _stack_gradients)
    return module


def _gradients(
    u: Tensor, x: Tensor, coef: Tensor, scale: Tensor | None, base_weight: Tensor | None, grid: Tensor,
    spec: tuple[int, int, int, bool, int], needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    return autograd.kan_out_gradients(u, x, None, coef, scale, base_weight, grid, Spec(*spec), 0, "native", needs)


def _stack_gradients(
    x: Tensor, u: Tensor, weights: list[Tensor | None], grids: list[Tensor], specs: list[int], with_x: bool,
    with_weights: bool,
) -> list[Tensor | None]:  # fmt: skip
    """The gradients by x, if needed, and by the weights that are present."""
    x_grad, *grads = stack.gradients(x, u, weights, grids, specs, (with_x, False, with_weights), "native")
    present = [grad for grad, weight in zip(grads, weights, strict=True) if weight is not None]
    return [x_grad, *present] if with_x else present


_module = _load()
# Why it is absent; None if it is there.
ABSENT = _module if isinstance(_module, str) else None
kan_out: Callable[..., Any] | None = getattr(_module, "kan_out", None)
stack_out: Callable[..., Any] | None = getattr(_module, "stack_out", None)
