"""Which networks are nothing but layers of edges, one after the other: those run in one call, see fastkan.stack."""

from operator import is_
from typing import NamedTuple

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

from ..nn.sequential import hooked
from ..stack import Layer
from ..tracing import is_traced
from .layer import KANLayer

_PARTS = ("rows", "sums", "nodes")
_NODES = {"subnode_scale": 1.0, "subnode_bias": 0.0, "node_scale": 1.0, "node_bias": 0.0}


def plain(model, kind: type) -> tuple[list[Layer], str | None] | None:
    """The layers of a KAN whose nodes are the sums of its numeric edges, and their backend; None if it is more than
    that, or of a subclass of `kind`, which is KAN, that changes the steps.

    By the dictionaries of the modules, since an attribute of a module takes as long as a small layer.
    """
    if _watched() or not _unchanged(model, kind):
        return None
    modules = model._modules
    if model.symbolic_enabled and any(s.active for s in modules["symbolic_fun"]._modules.values()):
        return None
    if any(n_mult for _, n_mult in model.width[1:]) or not _plain_nodes(model):
        return None
    of_edges = modules["act_fun"]._modules.values()
    layers = [_layer(layer) for layer in of_edges]
    if None in layers:
        return None
    backends = {layer._modules["linear"].backend for layer in of_edges}
    return (layers, *backends) if len(backends) == 1 else None


def _watched() -> bool:
    """Whether something looks on that should see the layers, or the values of parameters cannot be read."""
    return (
        is_traced() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0 or _has_any_global_hook()
    )  # fmt: skip


def _unchanged(model, kind: type) -> bool:
    """Whether the steps of forward are those of `kind`."""
    own = type(model)
    same = own is kind or all(getattr(own, part) is getattr(kind, part) for part in _PARTS)
    return same and not any(part in model.__dict__ for part in _PARTS)


def _layer(layer: nn.Module) -> Layer | None:
    if type(layer) is not KANLayer or hooked(layer) or hooked(layer._modules["linear"]):
        return None
    plan, found = layer._current_plan(), layer._modules["linear"].as_layer()
    if found is None or plan is None or not plan.active or plan.inputs is not None or plan.outputs is not None:
        return None
    if plan.full:
        return found
    base_weight, scale = layer._masked()
    return found._replace(base_weight=base_weight, scale=scale)


class _Seen(NamedTuple):
    """What the affine maps of the nodes were found to be, as long as those are the parameters and their versions."""

    parameters: list[nn.Parameter]
    versions: list[int]
    plain: bool


def affine(name: str) -> property:
    """The affine maps of that name. Who takes hold of them may change them in ways that no version tells."""

    def get(self) -> nn.ParameterList:
        self.__dict__.pop("_seen_nodes", None)
        return self._modules[name]

    return property(get)


def _plain_nodes(model) -> bool:
    """Whether the affine maps of the nodes are the identity, and stay it.

    A CPU's are read at each call; a GPU would have to be waited for, so there what was read holds for their versions.
    """
    modules = model._modules
    if _at_hand(model):
        return _identities(modules)
    parameters = [p for name in _NODES for p in modules[name]._parameters.values()]
    if any(p.requires_grad for p in parameters):
        return False
    seen, versions = model.__dict__.get("_seen_nodes"), [p._version for p in parameters]
    if seen is None or seen.versions != versions or not all(map(is_, seen.parameters, parameters)):
        seen = model.__dict__["_seen_nodes"] = _Seen(parameters, versions, _identities(modules))
    return seen.plain


def _at_hand(model) -> bool:
    return model._buffers["input_id"].is_cpu


def _identities(modules: dict[str, nn.Module]) -> bool:
    for name, identity in _NODES.items():
        for p in modules[name]._parameters.values():
            if p.requires_grad or type(p) is not nn.Parameter:
                return False
            values = p.tolist()
            if values.count(identity) < len(values):
                return False
    return True
