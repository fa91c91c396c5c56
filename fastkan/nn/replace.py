"""replace_linear: KAN layers in place of the linear layers of an existing model."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import warnings
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from ..devices import exact
from .linear import KANLinear

INITS = ("random", "linear")


def replace_linear(
    model: nn.Module,
    include: str | Iterable[str] = "*",
    exclude: str | Iterable[str] = (),
    *,
    init: str = "random",
    **options: Any,
) -> nn.Module:
    """Replace, in place, the nn.Linear submodules whose qualified name matches by KANLinear layers of the same shape.

    A replacement has the same device, dtype, training mode and presence of a bias; its parameters are trainable. A
    module that occurs in several places is replaced by one module, and so are modules that share all their parameters.
    A warning lists parameters that are no longer tied to others, such as a language model's head to its embedding.
    Subclasses of nn.Linear are not replaced (lazy, quantized and parametrized ones, the out_proj of
    nn.MultiheadAttention, whose weight is read from outside). An nn.TransformerEncoder stops using its fused inference
    path, which reads the weights of its linear layers.

    Args:
        model: any module.
        include, exclude: patterns, one or more, as in fnmatch ("*" and "?" match dots too): "blocks.*.mlp.*". Names
            that match any of `include` and none of `exclude` are replaced. The model itself has the name "".
        init: "random", the initialisation of KANLinear, or "linear": the layer starts as the linear function that it
            replaces, on the grid range, and everywhere with outside="linear"; its base weights start at zero. Needs a
            spline_order of at least 1.
        options: arguments of KANLinear: grid_size, spline_order, grid_range, outside, ...

    Returns:
        model, or the new layer if model is itself the nn.Linear to replace.

    Raises:
        ValueError: nothing matches (the message lists all candidates), or init is unknown or impossible.
        TypeError, ValueError: KANLinear rejects the options. After an error the model is unchanged.
    """
    if init not in INITS:
        raise ValueError(f"init={init!r}: expected one of {', '.join(map(repr, INITS))}")
    included, excluded = _patterns("include", include), _patterns("exclude", exclude)
    linear = {n: m for n, m in model.named_modules(remove_duplicate=False) if type(m) is nn.Linear}
    chosen = {n: m for n, m in linear.items() if _matches(n, included) and not _matches(n, excluded)}
    if not chosen:
        names = ", ".join(map(repr, linear)) or "none"
        raise ValueError(f"include={included}, exclude={excluded} match no nn.Linear; the model's are: {names}")
    made: dict[tuple[int, ...], KANLinear] = {}
    for module in chosen.values():
        if _identity(module) not in made:
            made[_identity(module)] = _counterpart(module, init, options)
    if untied := _untied(model, chosen):
        warnings.warn(f"replaced, and so no longer tied: {untied}; exclude keeps them as they are", stacklevel=2)
    for name, module in chosen.items():
        parent, _, attribute = name.rpartition(".")
        if not attribute:
            return made[_identity(module)]
        setattr(model.get_submodule(parent), attribute, made[_identity(module)])
    _leave_fused_paths(model)
    return model


def _identity(linear: nn.Linear) -> tuple[int, int]:
    """Equal for modules that share all their parameters: these count as one."""
    return id(linear.weight), id(linear.bias)


def _untied(model: nn.Module, chosen: dict[str, nn.Linear]) -> str:
    """The parameters of the chosen modules that other modules share, with their names there."""
    owners: dict[int, list[tuple[str, object]]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        identity = _identity(chosen[name]) if name in chosen else None
        for of, p in module.named_parameters(name, recurse=False):
            owners.setdefault(id(p), []).append((of, identity))
    tied: list[str] = []
    for name, module in chosen.items():
        for of, p in module.named_parameters(name, recurse=False):
            others = [other for other, identity in owners[id(p)] if identity != _identity(module)]
            if others:
                tied.append(f"{of} with {', '.join(others)}")
    return "; ".join(tied)


def _leave_fused_paths(model: nn.Module) -> None:
    """Disable the fused inference path of nn.TransformerEncoder, which reads the weights of its linear layers."""
    for module in model.modules():
        if not any(isinstance(child, KANLinear) for child in module.modules()):
            continue
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


def _counterpart(linear: nn.Linear, init: str, options: dict[str, Any]) -> KANLinear:
    weight, bias = linear.weight, _bias(linear)
    options = {"bias": bias is not None, "device": weight.device, "dtype": weight.dtype, **options}
    layer = KANLinear(linear.in_features, linear.out_features, **options)
    if init == "linear":
        _start_linear(layer, linear)
    return layer.train(linear.training)


@torch.no_grad()
def _start_linear(layer: KANLinear, linear: nn.Linear) -> None:
    degree = layer.spline_order
    if layer.family != "bspline":
        raise ValueError(f"init='linear' with family={layer.family!r}: expected 'bspline', whose sums are linear")
    if degree == 0:
        raise ValueError("init='linear' with spline_order=0: expected at least 1, steps are not linear")
    # x = sum_f mean(t_{f+1} .. t_{f+K}) B_f(x) on the grid range (Greville's abscissae)
    abscissae = layer.exact_knots[:, 1:-1].unfold(1, degree, 1).mean(-1)  # I F
    slope = exact(linear.weight.T)  # I O
    if layer.spline_scale is not None:
        layer.spline_scale.fill_(1.0)
    layer.coef.copy_(abscissae[..., None] * slope[:, None])
    if layer.base_weight is not None:
        layer.base_weight.zero_()
    bias = _bias(linear)
    if bias is not None and layer.bias is not None:
        layer.bias.copy_(bias)


def _bias(linear: nn.Linear) -> nn.Parameter | None:
    """linear.bias, which torch's types say is never None."""
    return linear.bias


def _patterns(name: str, patterns: Any) -> tuple[str, ...]:
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"{name}={patterns!r}: expected one or more patterns")
    return patterns


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
