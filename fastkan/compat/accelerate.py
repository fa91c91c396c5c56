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
from .family_layers import (
    NOT_A_FAMILY,
    FusedChebyKANLayer,
    FusedConvKANLayer,
    FusedFasterKANLayer,
    FusedInkanLayer,
    FusedJacobiKANLayer,
)
from .fast_kan import FusedFastKANLayer
from .modules import is_foreign
from .pykan.fused import FusedKANLayer, FusedMultKAN, FusedSymbolicLayer

# Relative to the largest value: another formula differs by about 1, float64 rounding by far less than this.
TOLERANCE = 1e-6


class Peer(NamedTuple):
    """A class of a library: its mix-in, its basis family, and the class of the model that must contain it."""

    name: str
    library: str
    mixin: type[Accelerated]
    family: str
    container: str | None = None


# Of classes of one name the first whose attributes a layer has.
PEERS = (
    Peer("KANLinear", "efficient-kan", FusedKANLinear, "bspline"),
    Peer("FastKANLayer", "fast-kan", FusedFastKANLayer, "rbf"),
    Peer("KANLayer", "pykan", FusedKANLayer, "bspline", "MultKAN"),
    Peer("Symbolic_KANLayer", "pykan", FusedSymbolicLayer, "bspline", "MultKAN"),
    Peer("MultKAN", "pykan", FusedMultKAN, "bspline"),
    Peer("ChebyKANLayer", "ChebyKAN", FusedChebyKANLayer, "chebyshev"),
    Peer("JacobiKANLayer", "torch-conv-kan", FusedJacobiKANLayer, "jacobi"),
    Peer("KANLayer", "torch-conv-kan", FusedConvKANLayer, "bspline"),
    Peer("FasterKANLayer", "faster-kan", FusedFasterKANLayer, "unit_switch"),
    Peer("KANLayer", "inkan", FusedInkanLayer, "bspline"),
)
NAMES = tuple(dict.fromkeys((*(peer.name for peer in PEERS), *NOT_A_FAMILY)))


def accelerate(model: nn.Module, backend: str | None = None) -> nn.Module:
    """Run the KAN layers of efficient-kan, fast-kan, pykan and others in a model on fastkan's kernels, in place.

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
            f"model is a {type(model).__name__} without a layer of another library: expected one of {', '.join(NAMES)}"
        )
    chosen, contained, skipped = [], set(), defaultdict(list)
    for name, (module, kind) in layers.items():  # a module before its children
        peer = _peer(module, kind)
        if isinstance(peer, str):
            reason = peer
        elif peer.container and module not in contained:
            reason = f"it is not within an accelerated {peer.container}, and must return the values on every edge"
        else:
            reason = _obstacle(module, peer, backend)
        if reason:
            skipped[f"({type(module).__name__}): {reason}"].append(name or "the model")
        elif isinstance(peer, Peer):
            chosen.append((module, peer.mixin))
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
    """The name of the class of another library that a module is of, or None."""
    return next((name for name in NAMES if is_foreign(module, name)), None)


def _peer(module: nn.Module, kind: str) -> Peer | str:
    """The class of this name that a module is of, or why it is of none of them."""
    if kind in NOT_A_FAMILY:
        return NOT_A_FAMILY[kind]
    peers = [peer for peer in PEERS if peer.name == kind]
    reasons = [peer.mixin.fastkan_mismatch(module) for peer in peers]
    if None in reasons:
        return peers[reasons.index(None)]
    texts = (f"{peer.library}'s ({reason})" for peer, reason in zip(peers, reasons, strict=True))
    return f"its attributes are not those of {kind} as {', '.join(texts)}"


def _obstacle(module: nn.Module, peer: Peer, backend: str | None) -> str | None:
    """The reason against accelerating a module of this class, or None."""
    if isinstance(module, Accelerated):
        return None
    if "forward" in module.__dict__:
        return "its forward was replaced"
    if parametrize.is_parametrized(module):
        return "it is parametrized"
    if next(c for c in type(module).__mro__ if "forward" in c.__dict__).__name__ != peer.name:
        return f"{type(module).__name__} has a forward of its own"
    mixin = peer.mixin
    if mixin is FusedMultKAN:
        return None
    weight = next(module.parameters())
    select.choose(backend, weight.device, (weight.dtype,), select.everyday(peer.family))  # raises if it cannot run
    return _compare(module, mixin)


def _compare(module: nn.Module, mixin: type[Accelerated]) -> str | None:
    """How the module's forward differs from the mix-in's, in float64 with other weights; None if it does not."""
    device, before = next(module.parameters()).device, torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # of tensors that a forward makes
    try:
        with torch.random.fork_rng(devices=[]):
            twin = copy.deepcopy(module).to(home(device)).double()
            with torch.no_grad():
                for name, value in twin.named_parameters():
                    if name.rpartition(".")[2] not in ("grid", "mask", "inv_denominator"):
                        value.copy_(torch.arange(value.numel(), device=value.device).cos().view(value.shape))
            x = mixin.fastkan_test_rows(twin).detach()
            expected = _sums(twin, x)
            change_class(twin, mixin, "reference")
            actual = _sums(twin, x)
    except Exception as error:
        return f"a copy of it does not run in float64: {type(error).__name__}: {error}"
    finally:
        torch.set_default_dtype(before)
    for what, found, value in zip(("forward", "gradient"), actual, expected, strict=True):
        worst, largest = float((found - value).abs().max()), float(value.abs().max())
        if not worst <= TOLERANCE * largest:
            return f"its {what} gives other values, by {worst:.1g} of {largest:.1g}"
    return None


def _sums(layer: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The outputs for rows x, and the gradient by x of their sum."""
    x = x.clone().requires_grad_()
    with torch.enable_grad():
        result = type(layer).forward(layer, x)
        y = result[0] if isinstance(result, tuple) else result
        return y.detach(), torch.autograd.grad(y.sin().sum(), x)[0]
