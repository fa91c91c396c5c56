"""Lazy values on every edge [N, O, I], which pykan's layers return beside their sums.

pykan's model only takes their standard deviations, for penalties and scores, which the kernels compute without them,
and stores them for plots. So each is a tensor without storage that knows its standard deviation. Any other operation
computes the values by the layer's original forward; a detached one uses the parameters of the time of the call.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

Values = Callable[[], Tensor]


class EdgeValues(Tensor):
    """A lazy tensor of this shape, with the dtype and device of `like`.

    compute() gives its values, differentiable; compute_detached() detached; std() their standard deviation over the
    rows, [O, I]. zero: all values are 0.
    """

    @staticmethod
    def __new__(
        cls, shape: tuple[int, ...], like: Tensor, compute: Values, compute_detached: Values, std: Values,
        zero: bool = False,
    ):  # fmt: skip
        return Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)

    def __init__(
        self, shape: tuple[int, ...], like: Tensor, compute: Values, compute_detached: Values, std: Values,
        zero: bool = False,
    ):  # fmt: skip
        self.compute, self.compute_detached, self.std_of_rows, self.zero = compute, compute_detached, std, zero

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func is torch.std and len(args) == 1 and kwargs == {"dim": 0}:
            return args[0].std_of_rows()
        if func is Tensor.detach:
            values = args[0].compute_detached
            std = functools.partial(_std_of, values)
            return EdgeValues(args[0].shape, args[0], values, values, std, args[0].zero)
        if func in _SUMS and isinstance(args[0], cls) and _is_zero(args[1]):
            return args[0]
        return cls.__torch_dispatch__(func, types, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(EdgeValues, lambda values: values.compute(), (args, kwargs or {}))
        return func(*args, **kwargs)


_METADATA = {getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "layout")}
_METADATA |= {Tensor.size, Tensor.dim, Tensor.__len__}
_SUMS = {Tensor.add, Tensor.__add__, torch.add}


def _is_zero(value) -> bool:
    return value.zero if isinstance(value, EdgeValues) else isinstance(value, float) and value == 0.0


def _std_of(values: Values) -> Tensor:
    return torch.std(values(), dim=0)


class Forward:
    """A deferred call of a layer's original forward, which returns the sums and then values on every edge."""

    def __init__(self, layer: Any, x: Tensor, *args):
        self.layer, self.x, self.args = layer, x, args
        self.parameters = {name: p.detach().clone() for name, p in layer._parameters.items()}
        self.shape = (len(x), layer.out_dim, layer.in_dim)

    @functools.cached_property
    def results(self) -> tuple:
        return self.layer.fastkan_original.forward(self.layer, self.x, *self.args)

    @functools.cached_property
    @torch.no_grad()
    def detached_results(self) -> tuple:
        """With the parameters of the time of the call."""
        layer = copy.copy(self.layer)
        layer._parameters = self.parameters
        return layer.fastkan_original.forward(layer, self.x.detach(), *self.args)

    def values(self, index: int, std: Values | None = None, zero: bool = False) -> EdgeValues:
        """The result of forward with this index."""

        def compute() -> Tensor:
            return self.results[index]

        std = std or functools.partial(_std_of, compute)
        return EdgeValues(self.shape, self.x, compute, lambda: self.detached_results[index], std, zero)
