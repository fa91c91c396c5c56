"""Properties of a module that are computed when they are read, and that are not there where they can't be computed.

`hasattr`, `inspect.getmembers` and what is built on them (torch.jit.trace, TensorBoard) pass over what raises
AttributeError and end at anything else.
"""

from torch import nn


class NotComputed(AttributeError, ValueError):
    """A property can't be computed now; the message says what it lacks."""


class computed(property):
    """A property whose getter may raise ValueError or ImportError, which reading it turns into NotComputed."""

    def __get__(self, module, owner: type | None = None):
        try:
            return super().__get__(module, owner)
        except (ValueError, ImportError) as error:
            raise NotComputed(str(error)) from error


def lookup(self, name: str):
    """The __getattr__ of a module with such properties: nn.Module's would hide what they lack."""
    try:
        return nn.Module.__getattr__(self, name)
    except AttributeError:
        own = getattr(type(self), name, None)
        if not isinstance(own, computed):
            raise
    return own.__get__(self)
