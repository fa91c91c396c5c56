"""Properties that may be set, where pykan has plain attributes."""

from collections.abc import Callable
from typing import Any

import torch

SET = "_set_values"  # in a model's __dict__: name -> the mark at that time, and the value


def noted(cls: type, name: str, mark: Callable[[Any], Any] | None = None) -> property:
    """The property `name` of cls, where reading gives a value that was set until `mark` of the model is another object.

    Without mark: until the property's own value differs. Nothing else reads the value that was set.
    """
    own: property = getattr(cls, name)

    def read(model: Any) -> Any:
        kept = model.__dict__.get(SET, {}).get(name)
        if kept is not None and (kept[0] is mark(model) if mark else kept[0] == own.__get__(model)):
            return kept[1]
        return own.__get__(model)

    def write(model: Any, value: Any) -> None:
        at = mark(model) if mark else own.__get__(model)
        model.__dict__[SET] = {**model.__dict__.get(SET, {}), name: (at, value)}

    return property(read, write, doc=f"{own.__doc__} May be set, which changes nothing else.")


def forget(model: Any, names: tuple[str, ...]) -> None:
    """Drop the values of these names that were set."""
    kept = model.__dict__.get(SET, {})
    model.__dict__[SET] = {name: value for name, value in kept.items() if name not in names}


def fixed(cls: type, name: str) -> property:
    """The property `name` of cls, which may be set to the value that it has."""
    own: property = getattr(cls, name)

    def write(module: Any, value: Any) -> None:
        if value != (present := own.__get__(module)):
            raise ValueError(
                f"{name}={value!r}: expected {present!r}, its value, which cannot be changed by setting it"
            )

    return property(own.fget, write, doc=own.__doc__)


def moving(cls: type) -> property:
    """The property `device` of cls; setting it moves the module."""
    own: property = getattr(cls, "device")  # noqa: B009

    def write(module: Any, device: torch.device | str) -> None:
        module.to(device)

    return property(own.fget, write, doc="The device of the parameters; setting it moves them.")
