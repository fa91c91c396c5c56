"""The argument base_activation: its name among the fused base functions, and the function itself."""

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]
# What a layer takes: a function, a module or its class, a name, or None for no base term.
Activation = Function | type[nn.Module] | str | None

_MODULES: dict[str, type[nn.Module] | None] = {"silu": nn.SiLU, "identity": nn.Identity, "zero": None}
_NAMES: dict[type, str] = {nn.SiLU: "silu", nn.Identity: "identity"}


def resolve(activation: Any) -> tuple[str | None, Function | None]:
    """Name and function; the name is one of basis.base.BASES or None (not fused), the function None for "zero"."""
    if isinstance(activation, str) and activation not in _MODULES:
        names = ", ".join(map(repr, _MODULES))
        raise ValueError(f"base_activation={activation!r}: expected one of {names}, or a function")
    if activation is None or isinstance(activation, str):
        activation = _MODULES[activation or "zero"]
    if activation is None:
        return "zero", None
    if isinstance(activation, type):
        activation = activation()
    if not callable(activation):
        raise TypeError(f"base_activation={activation!r}: expected a name, a function, a module or its class, or None")
    name = "silu" if activation is nn.functional.silu else _NAMES.get(type(activation))
    return name, cast(Function, activation)
