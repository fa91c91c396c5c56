"""Networks of numeric edges and summing nodes alone, which run as one fused call, see fastkan.stack."""

from collections.abc import Sequence
from inspect import unwrap
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from ..nn.hooks import any_global_hook, hooked
from ..snapshot import Snapshot, readable
from ..stack import Layer
from ..transforms import is_transformed
from .layers.between import is_plain
from .layers.numeric import KANLayer
from .layers.symbolic import SymbolicLayer

if TYPE_CHECKING:
    from .model import KAN

STEPS = ("rows", "sums", "nodes")  # the methods that forward calls
# The values of the nodes' affine maps with which nodes are plain sums.
IDENTITY = {"subnode_scale": 1.0, "subnode_bias": 0.0, "node_scale": 1.0, "node_bias": 0.0}
CACHE = "_affine_check"  # key in the model's __dict__


def stack_of(model: "KAN") -> tuple[list[Layer], str | None] | None:
    """The layers and the backend of a KAN that can run as one fused call; None if it can't.

    It can if its nodes are the sums of its numeric edges and its class does not override a step of forward.

    Reads the modules' dictionaries, since an attribute of a module takes as long as a small layer.
    """
    if _needs_layer_calls(model) or not has_own_steps(model):
        return None
    modules = model._modules
    if model.symbolic_enabled and any(map(_is_symbolic, modules["symbolic_fun"]._modules.values())):
        return None
    if not is_plain(model, 0) or any(n_mult for _, n_mult in model.width[1:]) or not _has_plain_nodes(model):
        return None
    numeric = modules["act_fun"]._modules.values()
    layers = []
    for layer in map(_fused_layer, numeric):
        if layer is None:
            return None
        layers.append(layer)
    backends = {layer._modules["linear"].backend for layer in numeric}
    return (layers, backends.pop()) if len(backends) == 1 else None


def _needs_layer_calls(model: "KAN") -> bool:
    """Whether hooks, tracing or transforms are active: the layers must then run one by one."""
    return not readable(model._buffers["input_id"]) or is_transformed() or bool(any_global_hook())


def has_own_steps(model: "KAN", steps: Sequence[str] = STEPS) -> bool:
    """Whether these methods are KAN's own: neither overridden by a subclass nor replaced on the instance."""
    cls = type(model)
    own = getattr(cls, "own_steps", {})  # {} of science.MLP
    same = "own_steps" in cls.__dict__ or all(unwrap(getattr(cls, s)) is own.get(s) for s in steps)
    return same and not any(step in model.__dict__ for step in steps)


def _has_values(t: Tensor) -> bool:
    """snapshot.readable, where tracing and transforms are already excluded."""
    return type(t) in (Tensor, nn.Parameter) and (t.is_cpu or not (t.is_meta or t.is_inference()))


def _is_symbolic(layer: SymbolicLayer) -> bool:
    mask = layer._buffers.get("edge_mask")
    return layer.plan_of(mask).active if mask is not None and _has_values(mask) else layer.active


def _fused_layer(layer: KANLayer) -> Layer | None:
    """The arguments of a numeric layer in the fused call; None where the layer has to be called itself."""
    if "fusable" not in type(layer).__dict__ or hooked(layer) or hooked(layer._modules["linear"]):
        return None
    mask = layer._buffers["edge_mask"]
    plan = layer.plan_of(mask) if _has_values(mask) else None
    arguments = layer._modules["linear"].as_layer()
    if arguments is None or plan is None or not plan.active or plan.inputs is not None or plan.outputs is not None:
        return None
    if plan.full:
        return arguments
    base_weight, scale = layer.masked()
    return arguments._replace(base_weight=base_weight, scale=scale)


class _AffineCheck(NamedTuple):
    """Whether the nodes' affine maps are the identity, with a snapshot of their values."""

    snapshots: list[Snapshot]
    identity: bool


def affine(name: str) -> property:
    """The property of the affine maps `name`, a ParameterList.

    Reading it drops the cached check: callers may edit it through .data, which does not bump the version counter.
    """

    def get(self: "KAN") -> nn.ParameterList:
        drop_cache(self.__dict__)
        return self._modules[name]

    def put(self: "KAN", maps: nn.ParameterList | Sequence[Tensor]) -> None:
        maps = maps if isinstance(maps, nn.ParameterList) else nn.ParameterList(maps)
        present = self._modules.get(name)
        if present is not None and [len(p) for p in maps] != (sizes := [len(p) for p in present]):
            raise ValueError(f"{name} has sizes {[len(p) for p in maps]}: expected {sizes}, one tensor for each layer")
        drop_cache(self.__dict__)
        self._modules[name] = maps

    return property(get, put)


def drop_cache(state: dict[str, Any]) -> None:
    """Remove the cached check of the affine maps from a model's __dict__."""
    state.pop(CACHE, None)


def _has_plain_nodes(model: "KAN") -> bool:
    """Whether the nodes' affine maps are the identity and are not trained.

    On a CPU they are read at every call. On a GPU that would synchronise: the result is cached with snapshots.
    """
    modules = model._modules
    if _on_cpu(model):
        return _are_identities(modules)
    parameters = [p for name in IDENTITY for p in modules[name]._parameters.values()]
    if any(p.requires_grad or p.is_inference() for p in parameters):
        return False
    check = model.__dict__.get(CACHE)
    if check is None or not all(s.holds(p) for s, p in zip(check.snapshots, parameters, strict=True)):
        check = _AffineCheck([Snapshot(p) for p in parameters], _are_identities(modules))
        model.__dict__[CACHE] = check
    return check.identity


def _on_cpu(model: "KAN") -> bool:
    return model._buffers["input_id"].is_cpu


def _are_identities(modules: dict[str, Any]) -> bool:
    return all(_is_constant(p, v) for name, v in IDENTITY.items() for p in modules[name]._parameters.values())


def nodes_are_sums(model: "KAN", l: int) -> bool:
    """Whether the nodes after layer l are the sums of its edges: no products, untrained affine maps, the identity."""
    maps = ((model._modules[name]._parameters[str(l)], value) for name, value in IDENTITY.items())
    return is_plain(model, l) and not model.width[l + 1][1] and all(_is_constant(p, value) for p, value in maps)


def _is_constant(p: Tensor, value: float) -> bool:
    """Whether p is not trained and holds nothing but this value."""
    if p.requires_grad or type(p) is not nn.Parameter:
        return False
    values = p.tolist()
    return values.count(value) == len(values)
