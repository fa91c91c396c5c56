"""Module: nn.Module with settable and computed properties, and buffers that keep their precision."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Module(nn.Module):
    """nn.Module whose properties may be set to a Parameter or Module; nn.Module would register it instead.

    The buffers named in `exact` keep their dtype, whatever the module is cast to.
    """

    exact: tuple[str, ...] = ()
    # Without None, for type checkers: a subclass declares the attributes that may be None.
    _parameters: dict[str, Any]
    _buffers: dict[str, Any]

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True):
        exact = [(name, self._buffers[name]) for name in self.exact]
        super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType] untyped
        for name, buffer in exact:
            if self._buffers[name].dtype != buffer.dtype:
                self._buffers[name] = buffer.to(self._buffers[name].device)
        return self


class NotComputed(AttributeError, ValueError):
    """A property cannot be computed now; the message says what is missing."""


class computed(property):
    """A property whose getter may raise ValueError or ImportError; reading it then raises NotComputed.

    NotComputed is an AttributeError, so that hasattr, inspect.getmembers, torch.jit.trace and TensorBoard skip it.
    """

    def __get__(self, module: Any, owner: type | None = None) -> Any:
        try:
            return super().__get__(module, owner)
        except (ValueError, ImportError) as error:
            raise NotComputed(str(error)) from error


def lookup(self: nn.Module, name: str) -> Any:
    """__getattr__ of a module with computed properties: keeps their error message, which nn.Module would replace."""
    try:
        return nn.Module.__getattr__(self, name)
    except AttributeError:
        own = getattr(type(self), name, None)
        if not isinstance(own, computed):
            raise
    return own.__get__(self)
