"""Modules of other libraries, known by the names of their classes, found anywhere in a model."""

from collections.abc import Callable

from torch import nn

_HERE = __name__.partition(".")[0]


def is_peers(module: nn.Module, name: str) -> bool:
    """Whether the module's class, or one that it inherits from, has that name and is not fastkan's."""
    return any(c.__name__ == name and c.__module__.partition(".")[0] != _HERE for c in type(module).__mro__)


def replaced(
    model: nn.Module,
    wanted: Callable[[nn.Module], bool],
    unfit: Callable[[nn.Module], str | None],
    make: Callable[[nn.Module], nn.Module],
) -> nn.Module:
    """The model with make(module) for every module that is wanted, in place; a module in two places stays one.

    Raises ValueError where there is none or one is unfit, before anything has changed.
    """
    found = {n: m for n, m in model.named_modules(remove_duplicate=False) if wanted(m)}
    if not found:
        raise ValueError(f"model is a {type(model).__name__} without a layer to convert: expected one at least")
    for path, module in found.items():
        if reason := unfit(module):
            raise ValueError(f"model has a {type(module).__name__} at {path!r} that cannot be converted: {reason}")
    made = {module: make(module) for module in dict.fromkeys(found.values())}
    for path, module in found.items():
        parent, _, attribute = path.rpartition(".")
        if not path:
            return made[module]
        setattr(model.get_submodule(parent), attribute, made[module])
    return model
