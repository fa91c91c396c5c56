"""Layers of other libraries within a model: recognised by the names of their classes, and replaced."""

from collections.abc import Callable
from typing import Any

from torch import nn

_PACKAGE = __name__.partition(".")[0]


def is_foreign(module: nn.Module, name: str) -> bool:
    """Whether the module's class or a base class has this name and comes from another library."""
    return any(c.__name__ == name and c.__module__.partition(".")[0] != _PACKAGE for c in type(module).__mro__)


def replace_modules(
    model: nn.Module,
    matches: Callable[[nn.Module], bool],
    obstacle: Callable[[Any], str | None],
    convert: Callable[[Any], nn.Module],
) -> nn.Module:
    """Replace every matching module by convert(module), in place; a module used in several places stays one.

    Raises ValueError, before any change, if none matches, or obstacle(module) is a reason against converting one.
    """
    chosen = {n: m for n, m in model.named_modules(remove_duplicate=False) if matches(m)}
    if not chosen:
        raise ValueError(f"model is a {type(model).__name__} without a layer to convert: expected at least one")
    for path, module in chosen.items():
        if reason := obstacle(module):
            raise ValueError(f"model has a {type(module).__name__} at {path!r} that cannot be converted: {reason}")
    converted = {module: convert(module) for module in dict.fromkeys(chosen.values())}
    for path, module in chosen.items():
        parent, _, attribute = path.rpartition(".")
        if not path:
            return converted[module]
        setattr(model.get_submodule(parent), attribute, converted[module])
    return model
