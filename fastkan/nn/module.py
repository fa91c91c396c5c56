"""Module: nn.Module whose properties may be set to anything."""

from torch import nn


class Module(nn.Module):
    """nn.Module, which would put a Parameter or a Module in the place of a property of that name, with its setter."""

    def __setattr__(self, name: str, value) -> None:
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)
