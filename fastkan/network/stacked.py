"""Which networks are nothing but layers of edges, one after the other: those run in one call, see fastkan.stack."""

from collections.abc import Sequence
from inspect import unwrap
from typing import NamedTuple

from torch import Tensor, nn

from ..nn.hooks import any_global_hook, hooked
from ..snapshot import Snapshot, readable
from ..stack import Layer
from ..transforms import is_transformed
from .layers.numeric import KANLayer

STEPS = ("rows", "sums", "nodes")  # what forward consists of
# What the affine maps of the nodes are where nodes are sums.
IDENTITY = {"subnode_scale": 1.0, "subnode_bias": 0.0, "node_scale": 1.0, "node_bias": 0.0}


def plain(model) -> tuple[list[Layer], str | None] | None:
    """The layers and the backend of a KAN that can run in one call; None if it can't.

    It can if its nodes are the sums of its numeric edges and its class does not override a step of forward.

    By the dictionaries of the modules, since an attribute of a module takes as long as a small layer.
    """
    if _watched(model) or not has_own_steps(model):
        return None
    modules = model._modules
    if model.symbolic_enabled and any(map(_symbolic, modules["symbolic_fun"]._modules.values())):
        return None
    if any(n_mult for _, n_mult in model.width[1:]) or not _plain_nodes(model):
        return None
    of_edges = modules["act_fun"]._modules.values()
    layers = [_layer(layer) for layer in of_edges]
    if None in layers:
        return None
    backends = {layer._modules["linear"].backend for layer in of_edges}
    return (layers, *backends) if len(backends) == 1 else None


def _watched(model) -> bool:
    """Whether hooks, tracing or transforms are active: the layers must then run one by one."""
    return not readable(model._buffers["input_id"]) or is_transformed() or any_global_hook()


def has_own_steps(model, steps: Sequence[str] = STEPS) -> bool:
    """Whether these methods are KAN's own: neither overridden by a subclass nor replaced on the instance."""
    kind = type(model)
    own = getattr(kind, "own_steps", {})  # {} of science.MLP
    same = "own_steps" in kind.__dict__ or all(unwrap(getattr(kind, s)) is own.get(s) for s in steps)
    return same and not any(step in model.__dict__ for step in steps)


def _plain_here(t: Tensor) -> bool:
    """What is left of readable where nothing traces or transforms."""
    return type(t) in (Tensor, nn.Parameter) and (t.is_cpu or not (t.is_meta or t.is_inference()))


def _symbolic(layer: nn.Module) -> bool:
    mask = layer._buffers.get("edge_mask")
    return layer.plan_of(mask).active if mask is not None and _plain_here(mask) else layer.active


def _layer(layer: nn.Module) -> Layer | None:
    if type(layer) is not KANLayer or hooked(layer) or hooked(layer._modules["linear"]):
        return None
    mask = layer._buffers["edge_mask"]
    plan = layer.plan_of(mask) if _plain_here(mask) else None
    found = layer._modules["linear"].as_layer()
    if found is None or plan is None or not plan.active or plan.inputs is not None or plan.outputs is not None:
        return None
    if plan.full:
        return found
    base_weight, scale = layer.masked()
    return found._replace(base_weight=base_weight, scale=scale)


class _Seen(NamedTuple):
    """What the affine maps of the nodes were found to be, and of which values."""

    snapshots: list[Snapshot]
    plain: bool


def affine(name: str) -> property:
    """The affine maps of that name. Who takes hold of them may change them in ways that no version tells."""

    def get(self) -> nn.ParameterList:
        self.__dict__.pop("_seen_nodes", None)
        return self._modules[name]

    def put(self, maps: nn.ParameterList) -> None:
        self.__dict__.pop("_seen_nodes", None)
        self._modules[name] = maps

    return property(get, put)


def _plain_nodes(model) -> bool:
    """Whether the affine maps of the nodes are the identity, and stay it.

    A CPU's are read at each call; a GPU would have to be waited for, so there what was read holds for the snapshots.
    """
    modules = model._modules
    if _at_hand(model):
        return _identities(modules)
    parameters = [p for name in IDENTITY for p in modules[name]._parameters.values()]
    if any(p.requires_grad or p.is_inference() for p in parameters):
        return False
    seen = model.__dict__.get("_seen_nodes")
    if seen is None or not all(s.holds(p) for s, p in zip(seen.snapshots, parameters, strict=True)):
        seen = model.__dict__["_seen_nodes"] = _Seen([Snapshot(p) for p in parameters], _identities(modules))
    return seen.plain


def _at_hand(model) -> bool:
    return model._buffers["input_id"].is_cpu


def _identities(modules: dict[str, nn.Module]) -> bool:
    for name, identity in IDENTITY.items():
        for p in modules[name]._parameters.values():
            if p.requires_grad or type(p) is not nn.Parameter:
                return False
            values = p.tolist()
            if values.count(identity) < len(values):
                return False
    return True
