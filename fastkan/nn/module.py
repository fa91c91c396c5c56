"""Module: nn.Module whose properties may be set to anything, with buffers that keep their precision."""

from torch import nn


class Module(nn.Module):
    """nn.Module, which would put a Parameter or a Module in the place of a property of that name, with its setter.

    The buffers named in `exact` keep their type, whatever the module is cast to.
    """

    exact: tuple[str, ...] = ()

    def __setattr__(self, name: str, value) -> None:
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _apply(self, fn, recurse: bool = True):
        kept = [(name, self._buffers[name]) for name in self.exact]
        super()._apply(fn, recurse)
        for name, buffer in kept:
            if self._buffers[name].dtype != buffer.dtype:
                self._buffers[name] = buffer.to(self._buffers[name].device)
        return self
