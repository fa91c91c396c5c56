"""efficient-kan (github.com/Blealtan/efficient-kan): its layers accelerated, its models and state dicts both ways."""

import copy
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ..nn import KANLinear
from ..nn.grid import snapped
from .accelerated import Accelerated, ends, kan_sum, misshapen, missing_of, spline_knots, spread
from .modules import is_peers, replaced

# attribute of efficient-kan's KANLinear -> of KANLinear here; as arguments they have the same names on both sides
OPTIONS = ("in_features", "out_features", "grid_size", "spline_order", "scale_noise", "scale_base", "scale_spline",
           "enable_standalone_scale_spline", "grid_eps")  # fmt: skip


class FusedKANLinear(Accelerated):
    """forward of efficient-kan's KANLinear through the kernels, from views of its own parameters."""

    def forward(self, x: Tensor) -> Tensor:
        knots, weight = spline_knots(self, self.grid, self.spline_order), self.spline_weight
        backend = self.fastkan_choose(x, weight)
        if knots is None or backend is None:
            return super().forward(x)
        scale = self.spline_scaler.T if self.enable_standalone_scale_spline else None
        coef = weight.permute(1, 2, 0)  # O I F -> I F O
        return kan_sum(x, coef, knots, self.spline_order, self.base_activation, self.base_weight.T, scale, backend)

    @classmethod
    def fastkan_unlike(cls, layer: nn.Module) -> str | None:
        wanted = (*OPTIONS, "grid", "base_weight", "spline_weight", "base_activation")
        if missing := missing_of(layer, wanted):
            return missing
        inputs, outputs, degree = layer.in_features, layer.out_features, layer.spline_order
        functions = layer.grid_size + degree
        shapes = {
            "grid": (inputs, functions + degree + 1), "base_weight": (outputs, inputs),
            "spline_weight": (outputs, inputs, functions),
        }  # fmt: skip
        if layer.enable_standalone_scale_spline:
            shapes["spline_scaler"] = (outputs, inputs)
        return misshapen(layer, shapes)

    @classmethod
    def fastkan_sample(cls, layer: nn.Module) -> Tensor:
        return spread(layer.grid)


def from_efficient_kan(model: nn.Module, exact: bool = False, **options) -> nn.Module:
    """A copy of the model with a KANLinear of fastkan in the place of each of efficient-kan's, of the same function.

    model: a KAN of efficient-kan, one layer, or any module that holds some. What else there is stays: efficient-kan's
    KAN calls its layers by methods that KANLinear has too. exact: take float32 knots as they are, instead of as the
    equidistant ones that they are rounded from, which are faster. options: others of KANLinear, such as backend.

    Raises ValueError where the model has no such layer, or one whose knots do not ascend.
    """
    theirs = partial(is_peers, name="KANLinear")
    return replaced(
        copy.deepcopy(model), theirs, FusedKANLinear.fastkan_unlike, lambda layer: _ours(layer, exact, options)
    )


def to_efficient_kan(model: nn.Module, layer_class: Callable[..., nn.Module]) -> nn.Module:
    """The way back: a copy of the model with a layer of efficient-kan in the place of each KANLinear.

    layer_class: efficient-kan's KANLinear, which no registry has: `from efficient_kan import KANLinear`.

    Raises ValueError for layers with a bias, without a base function or with outside other than "zero", which
    efficient-kan has not, and where the model has no KANLinear.
    """

    def ours(module: nn.Module) -> bool:
        return isinstance(module, KANLinear)

    return replaced(copy.deepcopy(model), ours, _no_counterpart, lambda layer: _theirs(layer, layer_class))


def from_efficient_kan_state(state: Mapping[str, Tensor], exact: bool = False) -> dict[str, Tensor]:
    """A state dict of efficient-kan's by the names and shapes here, for modules of the same names.

    The scaler becomes spline_scale, a parameter with enable_standalone_scale_spline=True; exact as above.
    """

    def knots(grid: Tensor, weight: Tensor) -> Tensor:
        degree = grid.shape[1] - weight.shape[2] - 1
        return grid.double() if exact else snapped(grid, *ends(grid, degree), degree)

    changes = {
        "spline_weight": ("coef", lambda value, _: value.permute(1, 2, 0).contiguous()),
        "spline_scaler": ("spline_scale", _transposed), "base_weight": ("base_weight", _transposed),
        "grid": ("grid", knots),
    }  # fmt: skip
    return _changed(state, "spline_weight", changes)


def to_efficient_kan_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back; knots are rounded to the type of the coefficients."""
    changes = {
        "coef": ("spline_weight", lambda value, _: value.permute(2, 0, 1).contiguous()),
        "spline_scale": ("spline_scaler", _transposed), "base_weight": ("base_weight", _transposed),
        "grid": ("grid", lambda value, coef: value.to(coef.dtype)),
    }  # fmt: skip
    return _changed(state, "coef", changes)


def _changed(state: Mapping[str, Tensor], mark: str, changes: dict[str, tuple[str, Callable]]) -> dict[str, Tensor]:
    """Names and values changed in every module that has something called mark, which the changes see too."""
    new = {}
    for name, value in state.items():
        prefix, dot, last = name.rpartition(".")
        if last in changes and prefix + dot + mark in state:
            last, change = changes[last]
            value = change(value, state[prefix + dot + mark])
        new[prefix + dot + last] = value
    return new


def _transposed(value: Tensor, _: Tensor) -> Tensor:
    return value.T.contiguous()


@torch.no_grad()
def _ours(layer: nn.Module, exact: bool, options: dict) -> KANLinear:
    weight = layer.spline_weight
    arguments = {name: getattr(layer, name) for name in OPTIONS}
    arguments |= {"grid_range": ends(layer.grid, layer.spline_order), "base_activation": layer.base_activation}
    new = KANLinear(**arguments | {"device": weight.device, "dtype": weight.dtype} | options)
    state = from_efficient_kan_state(layer.state_dict(), exact)
    new.set_grid(state["grid"], state["coef"])
    new.base_weight.copy_(state["base_weight"])
    if new.spline_scale is not None:
        new.spline_scale.copy_(state["spline_scale"])
    return new.train(layer.training)


@torch.no_grad()
def _theirs(layer: KANLinear, layer_class: Callable[..., nn.Module]) -> nn.Module:
    arguments = {name: getattr(layer, name) for name in OPTIONS}
    with torch.random.fork_rng(devices=[]):
        new = layer_class(**arguments, base_activation=lambda: layer.base_activation, grid_range=list(layer.grid_range))
    new.to(device=layer.coef.device, dtype=layer.coef.dtype)
    new.load_state_dict(to_efficient_kan_state(layer.state_dict()))
    return new.train(layer.training)


def _no_counterpart(layer: nn.Module) -> str | None:
    if layer.bias is not None:
        return "it has a bias, which efficient-kan has not"
    if layer.base_weight is None:
        return "it has no base function, which efficient-kan always has"
    return None if layer.outside == "zero" else f"outside={layer.outside!r}: efficient-kan has 'zero' alone"
