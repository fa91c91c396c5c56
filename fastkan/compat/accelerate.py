"""accelerate and restore: the KAN layers of other libraries in a live model, through the kernels of fastkan."""

import copy
import warnings
from collections import defaultdict
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from .. import select
from ..spec import FAMILIES
from .accelerated import Accelerated, put_on, take_off
from .efficient_kan import FusedKANLinear
from .fast_kan import FusedFastKANLayer
from .modules import is_peers
from .pykan.fused import FusedKANLayer, FusedMultKAN, FusedSymbolicLayer

# Share of the largest value: another formula is off by about one, rounding in float64 by much less than this.
SAME = 1e-6


class Peer(NamedTuple):
    """A class of another library: the mix-in for it, the family of its functions, the class that has to hold it."""

    mixin: type[Accelerated]
    family: str
    holder: str | None = None


PEERS = {
    "KANLinear": Peer(FusedKANLinear, "bspline"),
    "FastKANLayer": Peer(FusedFastKANLayer, "rbf"),
    "KANLayer": Peer(FusedKANLayer, "bspline", "MultKAN"),
    "Symbolic_KANLayer": Peer(FusedSymbolicLayer, "bspline", "MultKAN"),
    "MultKAN": Peer(FusedMultKAN, "bspline"),
}


def accelerate(model: nn.Module, backend: str | None = None) -> nn.Module:
    """Let the KAN layers of efficient-kan, fast-kan and pykan in a model compute with fastkan's kernels, in place.

    Every parameter stays the same tensor under the same name, and so do hooks, state dicts, the layers' other methods
    and an optimizer made before; outputs and gradients are equal up to rounding. Each layer becomes a subclass of what
    it was, with another forward; restore(model) undoes that. Libraries are recognised by the names of their classes,
    their attributes and shapes, and by comparing their forward with fastkan's on some rows, in float64 on a copy.

    Layers of a recognised name that compute something else, or that no kernels serve, stay as they are: one warning
    names each with the reason. Hooks on modules within a layer of fast-kan are not called. See docs/compat.md.

    Args:
        model: any module, or one such layer.
        backend: name of the backend that has to be used; None for the choice that fastkan.backends() explains.

    Returns: model.

    Raises:
        ValueError: the model has no layer of these libraries, or the backend is unknown.
        BackendError: the named backend cannot serve it. The model has not changed after an error.
    """
    if backend is not None and backend not in select.BACKENDS:
        raise ValueError(f"backend={backend!r}: expected None or one of {', '.join(map(repr, select.BACKENDS))}")
    found = {name: (m, _name_of(m)) for name, m in model.named_modules() if _name_of(m)}
    if not found:
        raise ValueError(
            f"model is a {type(model).__name__} without a layer of another library: expected one of {', '.join(PEERS)}"
        )
    chosen, held, left = [], set(), defaultdict(list)
    for name, (module, kind) in found.items():  # a module before those within it
        reason = _obstacle(module, kind, backend)
        if PEERS[kind].holder and module not in held:
            reason = f"it is not within a {PEERS[kind].holder} that is accelerated, and has to return more than sums"
        if reason:
            left[f"({type(module).__name__}): {reason}"].append(name or "the model")
        else:
            chosen.append((module, PEERS[kind].mixin))
            held.update(module.modules())
    for module, mixin in chosen:
        put_on(module, mixin, backend)
    if left:
        texts = (f"{', '.join(names)} {reason}" for reason, names in left.items())
        warnings.warn("not accelerated: " + "; ".join(texts), stacklevel=2)
    return model


def restore(model: nn.Module) -> nn.Module:
    """Undo accelerate, in place: every layer is of its own class again, with the parameters as they are by now.

    Returns model. A model without accelerated layers is left as it is.
    """
    for module in model.modules():
        if isinstance(module, Accelerated):
            take_off(module)
    return model


def _name_of(module: nn.Module) -> str | None:
    return next((name for name in PEERS if is_peers(module, name)), None)


def _obstacle(module: nn.Module, kind: str, backend: str | None) -> str | None:
    """Why a module with a class of that name is left alone; None where it is not."""
    if isinstance(module, Accelerated):
        return None
    if "forward" in module.__dict__:
        return "its forward was replaced"
    if parametrize.is_parametrized(module):
        return "it is parametrized"
    if next(c for c in type(module).__mro__ if "forward" in c.__dict__).__name__ != kind:
        return f"{type(module).__name__} has a forward of its own"
    mixin, family, _ = PEERS[kind]
    if reason := mixin.fastkan_unlike(module):
        return f"its attributes are not those of the {kind} that is known here: {reason}"
    if mixin is FusedMultKAN:
        return None
    weight = next(module.parameters())
    name = select.choose(backend, weight.device, (weight.dtype,), FAMILIES.index(family))
    if name == "reference" and backend is None and mixin is not FusedSymbolicLayer:
        where = f"{family!r} in {weight.dtype} on {weight.device.type}"
        return f"for {where} the choice is the reference, which is no faster: see fastkan.backends()"
    return _differs(module, mixin)


@torch.no_grad()
def _differs(module: nn.Module, mixin: type[Accelerated]) -> str | None:
    """What shows that the module's forward is not the mix-in's, in float64 with other weights; None if nothing does."""
    try:
        with torch.random.fork_rng(devices=[]):
            twin = copy.deepcopy(module).double()
            for name, value in twin.named_parameters():
                if name.rpartition(".")[2] not in ("grid", "mask"):
                    value.copy_(torch.arange(value.numel(), device=value.device).cos().view(value.shape))
            x = mixin.fastkan_sample(twin)
            expected = _sums(type(twin).forward(twin, x))
            put_on(twin, mixin, "reference")
            found = _sums(type(twin).forward(twin, x))
    except Exception as error:
        return f"a copy of it cannot be tried in float64: {type(error).__name__}: {error}"
    worst, largest = float((found - expected).abs().max()), float(expected.abs().max())
    return None if worst <= SAME * largest else f"its forward gives other values, by {worst:.1g} of {largest:.1g}"


def _sums(result) -> torch.Tensor:
    return result[0] if isinstance(result, tuple) else result
