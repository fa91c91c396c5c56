"""Module: nn.Module with settable and computed properties, and buffers that keep their precision."""

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


class NotComputed(AttributeError, ValueError):
    """A property can't be computed now; the message says what it lacks."""


class computed(property):
    """A property whose getter may raise ValueError or ImportError; reading it then raises NotComputed.

    An AttributeError makes `hasattr` False and lets `inspect.getmembers`, torch.jit.trace and TensorBoard pass over it.
    """

    def __get__(self, module, owner: type | None = None):
        try:
            return super().__get__(module, owner)
        except (ValueError, ImportError) as error:
            raise NotComputed(str(error)) from error


def lookup(self, name: str):
    """__getattr__ of a module with computed properties, which keeps their message; that of nn.Module would hide it."""
    try:
        return nn.Module.__getattr__(self, name)
    except AttributeError:
        own = getattr(type(self), name, None)
        if not isinstance(own, computed):
            raise
    return own.__get__(self)
