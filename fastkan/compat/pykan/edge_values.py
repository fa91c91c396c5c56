"""What pykan's layers return beside their sums, the values on every edge [N, O, I], made when they are read.

Its model takes standard deviations of them, for penalties and scores, which the kernels give without them, and keeps
them for pictures. So each is a tensor without memory that knows its standard deviation. Whatever else is done with it
is done with the values, which the layer's own forward then makes; what was detached, of the parameters as they were.
"""

import copy
import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only


class EdgeValues(Tensor):
    """A tensor of this shape, and of the dtype and device of `like`.

    made gives it, differentiable, and kept detached. std gives the standard deviation over the rows, [O, I]. zero: all
    of it is 0.
    """

    @staticmethod
    def __new__(cls, shape: tuple[int, ...], like: Tensor, made: Callable, kept: Callable, std: Callable, zero=False):
        return Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)

    def __init__(self, shape: tuple[int, ...], like: Tensor, made: Callable, kept: Callable, std: Callable, zero=False):
        self.made, self.kept, self.std_of_rows, self.zero = made, kept, std, zero

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _KNOWN:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func is torch.std and len(args) == 1 and kwargs == {"dim": 0}:
            return args[0].std_of_rows()
        if func is Tensor.detach:
            kept = args[0].kept
            return EdgeValues(args[0].shape, args[0], kept, kept, lambda: torch.std(kept(), dim=0), args[0].zero)
        if func in _SUMS and isinstance(args[0], cls) and _nothing(args[1]):
            return args[0]
        return cls.__torch_dispatch__(func, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(EdgeValues, lambda values: values.made(), (args, kwargs or {}))
        return func(*args, **kwargs)


_KNOWN = {getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "layout")}
_KNOWN |= {Tensor.size, Tensor.dim, Tensor.__len__}
_SUMS = {Tensor.add, Tensor.__add__, torch.add}


def _nothing(value) -> bool:
    """Whether it can be left out of a sum."""
    return value.zero if isinstance(value, EdgeValues) else isinstance(value, float) and value == 0.0


class Forward:
    """The own forward of a layer, which gives the sums and then values on every edge, to be run when these are read."""

    def __init__(self, layer: nn.Module, x: Tensor, *args):
        self.layer, self.x, self.args = layer, x, args
        self.parameters = {name: p.detach().clone() for name, p in layer._parameters.items()}
        self.shape = (len(x), layer.out_dim, layer.in_dim)

    @functools.cached_property
    def made(self) -> tuple:
        return self.layer.fastkan_own.forward(self.layer, self.x, *self.args)

    @functools.cached_property
    @torch.no_grad()
    def kept(self) -> tuple:
        """Of the parameters as they were."""
        layer = copy.copy(self.layer)
        layer._parameters = self.parameters
        return layer.fastkan_own.forward(layer, self.x.detach(), *self.args)

    def values(self, which: int, std: Callable | None = None, zero: bool = False) -> EdgeValues:
        """What forward returns in this place."""

        def made() -> Tensor:
            return self.made[which]

        std = std or (lambda: torch.std(made(), dim=0))
        return EdgeValues(self.shape, self.x, made, lambda: self.kept[which], std, zero)
