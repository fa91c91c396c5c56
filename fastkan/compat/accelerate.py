"""accelerate and restore: run the KAN layers of other libraries in an existing model on fastkan's kernels."""

import copy
import warnings
from collections import defaultdict
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from .. import select
from ..devices import home
from .accelerated import Accelerated, change_class, restore_class
from .efficient_kan import FusedKANLinear
from .fast_kan import FusedFastKANLayer
from .modules import is_foreign
from .pykan.fused import FusedKANLayer, FusedMultKAN, FusedSymbolicLayer

# Relative to the largest value: another formula differs by about 1, float64 rounding by far less than this.
TOLERANCE = 1e-6


class Peer(NamedTuple):
    """A class of another library: its mix-in, its basis family, and the class of the model that must contain it."""

    mixin: type[Accelerated]
    family: str
    container: str | None = None


PEERS = {
    "KANLinear": Peer(FusedKANLinear, "bspline"),
    "FastKANLayer": Peer(FusedFastKANLayer, "rbf"),
    "KANLayer": Peer(FusedKANLayer, "bspline", "MultKAN"),
    "Symbolic_KANLayer": Peer(FusedSymbolicLayer, "bspline", "MultKAN"),
    "MultKAN": Peer(FusedMultKAN, "bspline"),
}


def accelerate(model: nn.Module, backend: str | None = None) -> nn.Module:
    """Run the KAN layers of efficient-kan, fast-kan and pykan in a model on fastkan's kernels, in place.

    Parameters stay the same tensors under the same names; hooks, state dicts, the layers' other methods and existing
    optimizers keep working; outputs and gradients are equal up to rounding. Each layer's class becomes a subclass of
    itself with another forward; restore(model) undoes that. Layers are recognised by the name of their class, their
    attributes and shapes, and by comparing their forward with fastkan's on some rows, on a copy in float64.

    Layers of a recognised name that compute something else, or have no kernels, stay unchanged: one warning gives the
    reason for each. Hooks on modules within a layer of fast-kan are not called. See docs/compat.md.

    Args:
        model: any module, or one such layer.
        backend: name of the required backend; None for the choice that fastkan.backends() explains.

    Returns: model.

    Raises:
        ValueError: the model has no layer of these libraries, or the backend is unknown.
        BackendError: the requested backend does not support a layer.

    After an error the model is unchanged.
    """
    if backend is not None and not select.is_name(backend):
        raise ValueError(f"backend={backend!r}: expected None or one of {', '.join(map(repr, select.BACKENDS))}")
    layers = {name: (m, kind) for name, m in model.named_modules() if (kind := _kind(m))}
    if not layers:
        raise ValueError(
            f"model is a {type(model).__name__} without a layer of another library: expected one of {', '.join(PEERS)}"
        )
    chosen, contained, skipped = [], set(), defaultdict(list)
    for name, (module, kind) in layers.items():  # a module before its children
        reason = _obstacle(module, kind, backend)
        container = PEERS[kind].container
        if container and module not in contained:
            reason = f"it is not within an accelerated {container}, and must return the values on every edge"
        if reason:
            skipped[f"({type(module).__name__}): {reason}"].append(name or "the model")
        else:
            chosen.append((module, PEERS[kind].mixin))
            contained.update(module.modules())
    for module, mixin in chosen:
        change_class(module, mixin, backend)
    if skipped:
        texts = (f"{', '.join(names)} {reason}" for reason, names in skipped.items())
        warnings.warn("not accelerated: " + "; ".join(texts), stacklevel=2)
    return model


def restore(model: nn.Module) -> nn.Module:
    """Undo accelerate, in place: every layer has its original class again, and keeps its current parameters.

    Returns model, unchanged if it has no accelerated layers.
    """
    for module in model.modules():
        if isinstance(module, Accelerated):
            restore_class(module)
    return model


def _kind(module: nn.Module) -> str | None:
    return next((name for name in PEERS if is_foreign(module, name)), None)


def _obstacle(module: nn.Module, kind: str, backend: str | None) -> str | None:
    """The reason against accelerating a module whose class has this name, or None."""
    if isinstance(module, Accelerated):
        return None
    if "forward" in module.__dict__:
        return "its forward was replaced"
    if parametrize.is_parametrized(module):
        return "it is parametrized"
    if next(c for c in type(module).__mro__ if "forward" in c.__dict__).__name__ != kind:
        return f"{type(module).__name__} has a forward of its own"
    mixin, family, _ = PEERS[kind]
    if reason := mixin.fastkan_mismatch(module):
        return f"its attributes are not those of the supported {kind}: {reason}"
    if mixin is FusedMultKAN:
        return None
    weight = next(module.parameters())
    select.choose(backend, weight.device, (weight.dtype,), select.everyday(family))  # raises if it cannot run
    return _compare(module, mixin)


@torch.no_grad()
def _compare(module: nn.Module, mixin: type[Accelerated]) -> str | None:
    """How the module's forward differs from the mix-in's, in float64 with other weights; None if it does not."""
    device = next(module.parameters()).device
    try:
        with torch.random.fork_rng(devices=[]):
            twin = copy.deepcopy(module).to(home(device)).double()
            for name, value in twin.named_parameters():
                if name.rpartition(".")[2] not in ("grid", "mask"):
                    value.copy_(torch.arange(value.numel(), device=value.device).cos().view(value.shape))
            x = mixin.fastkan_test_rows(twin)
            expected = _sums(type(twin).forward(twin, x))
            change_class(twin, mixin, "reference")
            actual = _sums(type(twin).forward(twin, x))
    except Exception as error:
        return f"a copy of it does not run in float64: {type(error).__name__}: {error}"
    worst, largest = float((actual - expected).abs().max()), float(expected.abs().max())
    return None if worst <= TOLERANCE * largest else f"its forward gives other values, by {worst:.1g} of {largest:.1g}"


def _sums(result: torch.Tensor | tuple) -> torch.Tensor:
    return result[0] if isinstance(result, tuple) else result
