"""replace_linear: KAN layers in the place of the linear ones of an existing model."""

import warnings
from collections.abc import Iterable
from fnmatch import fnmatchcase

import torch
from torch import nn

from .linear import KANLinear

INITS = ("random", "linear")


def replace_linear(
    model: nn.Module,
    include: str | Iterable[str] = "*",
    exclude: str | Iterable[str] = (),
    *,
    init: str = "random",
    **options,
) -> nn.Module:
    """Replace, in place, the nn.Linear submodules whose qualified name matches by KANLinear layers of the same shape.

    A replacement takes over the device, dtype, training mode and presence of a bias; its parameters are trainable. A
    module that stands in several places is replaced by one module, and so are modules that share all their parameters.
    A warning tells of parameters that are tied to others, as a language model's head is to its embedding, and in the
    replacement no longer are. Left alone are subclasses of nn.Linear, which are there for a reason (lazy, quantized and
    parametrized ones, the out_proj of nn.MultiheadAttention, whose weight is read from outside). An
    nn.TransformerEncoder stops using its fused inference path, which reads the weights of its linear layers.

    Args:
        model: any module.
        include, exclude: patterns, one or more, as in fnmatch ("*" and "?" match dots too): "blocks.*.mlp.*". What
            matches any of `include` and none of `exclude` is replaced. The model itself has the name "".
        init: "random" as KANLinear starts, or "linear": the layer starts as the linear function it replaces, on the
            grid range, and everywhere with outside="linear"; its base weights start at zero. Needs a spline_order of at
            least 1.
        options: arguments of KANLinear: grid_size, spline_order, grid_range, outside, ...

    Returns:
        model, or the new layer if model is itself the nn.Linear to replace.

    Raises:
        ValueError: nothing matches (the message lists the names that could), or init is unknown or impossible.
        TypeError, ValueError: KANLinear refuses the options. The model has not changed after an error.
    """
    if init not in INITS:
        raise ValueError(f"init={init!r}: expected one of {', '.join(map(repr, INITS))}")
    include, exclude = _patterns("include", include), _patterns("exclude", exclude)
    linear = {n: m for n, m in model.named_modules(remove_duplicate=False) if type(m) is nn.Linear}
    chosen = {n: m for n, m in linear.items() if _matches(n, include) and not _matches(n, exclude)}
    if not chosen:
        names = ", ".join(map(repr, linear)) or "none"
        raise ValueError(f"include={include}, exclude={exclude} match no nn.Linear; the model's are: {names}")
    made: dict[tuple[int, ...], KANLinear] = {}
    for module in chosen.values():
        if _identity(module) not in made:
            made[_identity(module)] = _counterpart(module, init, options)
    if untied := _untied(model, chosen):
        warnings.warn(f"replaced, and so no longer tied: {untied}; exclude leaves them as they are", stacklevel=2)
    for name, module in chosen.items():
        parent, _, attribute = name.rpartition(".")
        if not attribute:
            return made[_identity(module)]
        setattr(model.get_submodule(parent), attribute, made[_identity(module)])
    _leave_fused_paths(model)
    return model


def _identity(linear: nn.Linear) -> tuple[int, int]:
    """Equal for modules that share all their parameters: they are one."""
    return id(linear.weight), id(linear.bias)


def _untied(model: nn.Module, chosen: dict[str, nn.Linear]) -> str:
    """The parameters of the chosen modules that others have too, and which."""
    owners: dict[int, list[tuple[str, object]]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        identity = _identity(module) if name in chosen else None
        for of, p in module.named_parameters(name, recurse=False):
            owners.setdefault(id(p), []).append((of, identity))
    found = []
    for name, module in chosen.items():
        for of, p in module.named_parameters(name, recurse=False):
            others = [other for other, identity in owners[id(p)] if identity != _identity(module)]
            if others:
                found.append(f"{of} with {', '.join(others)}")
    return "; ".join(found)


def _leave_fused_paths(model: nn.Module) -> None:
    """In eval() nn.TransformerEncoder and its layers read the weights of their linear layers: switch that off there."""
    for module in model.modules():
        if not any(isinstance(child, KANLinear) for child in module.modules()):
            continue
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


def _counterpart(linear: nn.Linear, init: str, options: dict) -> KANLinear:
    weight = linear.weight
    options = {"bias": linear.bias is not None, "device": weight.device, "dtype": weight.dtype, **options}
    layer = KANLinear(linear.in_features, linear.out_features, **options)
    if init == "linear":
        _start_linear(layer, linear)
    return layer.train(linear.training)


@torch.no_grad()
def _start_linear(layer: KANLinear, linear: nn.Linear) -> None:
    degree = layer.spline_order
    if degree == 0:
        raise ValueError("init='linear' with spline_order=0: expected at least 1, steps are not linear")
    # x = sum_f mean(t_{f+1} .. t_{f+K}) B_f(x) on the grid range (Greville's abscissae)
    abscissae = layer.grid[:, 1:-1].unfold(1, degree, 1).mean(-1)  # I F
    slope = linear.weight.T.double()  # I O
    if layer.spline_scale is not None:
        layer.spline_scale.fill_(1.0)
    layer.coef.copy_(abscissae[..., None] * slope[:, None])
    if layer.base_weight is not None:
        layer.base_weight.zero_()
    if linear.bias is not None and layer.bias is not None:
        layer.bias.copy_(linear.bias)


def _patterns(name: str, patterns: str | Iterable[str]) -> tuple[str, ...]:
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"{name}={patterns!r}: expected a pattern or several")
    return patterns


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
