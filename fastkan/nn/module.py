"""Module: nn.Module with settable and computed properties, and buffers that keep their precision."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..devices import exact, has_float64, place
from ..snapshot import readable


class Module(nn.Module):
    """nn.Module whose properties may be set to a Parameter or Module; nn.Module would register it instead.

    The buffers named in `exact` are float64 whatever the module is cast to: float32 only on a device without float64.
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
        before = {name: self._buffers[name] for name in self.exact}
        # First, so that nothing has moved after an error; and not in super()._apply, which would convert them.
        moved = {name: self._moved(name, fn) for name in self.exact}
        self._buffers.update(dict.fromkeys(self.exact))
        try:
            super()._apply(fn, recurse)  # pyright: ignore[reportUnknownMemberType] untyped
        except BaseException:
            self._buffers.update(before)
            raise
        self._buffers.update(moved)
        return self

    def _moved(self, name: str, fn: Callable[[Tensor], Tensor]) -> Tensor:
        """Where fn would move an exact buffer, and nothing else."""
        buffer = self._buffers[name]
        try:
            moved = fn(buffer)
        except (RuntimeError, TypeError):  # MPS takes no float64
            moved = None
        if moved is None or not has_float64(moved.device):
            moved = fn(buffer.float())
            return moved if moved.dtype == torch.float32 else place(buffer, moved.device)
        if not has_float64(buffer.device):
            return place(self._unrounded(name), moved.device)
        return moved if moved.dtype == buffer.dtype else buffer.to(moved.device)

    def _unrounded(self, name: str) -> Tensor:
        """An exact buffer in float64, on the host where its device has none; rounding is undone where it can be."""
        return exact(self._buffers[name])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # pyright: ignore[reportUnknownMemberType] untyped
        for name in self.exact:  # may come from a device without float64
            buffer: Tensor = self._buffers[name]
            if buffer.dtype == torch.float32 and readable(buffer) and has_float64(buffer.device):
                self._buffers[name] = self._unrounded(name)


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
