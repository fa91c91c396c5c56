"""efficient-kan (github.com/Blealtan/efficient-kan): its layers accelerated, its models and state dicts both ways."""

import copy
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ..nn import KANLinear
from ..nn.grid import snapped
from .accelerated import Accelerated, ends, kan_sum, spline_knots, spread
from .tree import is_peers, replaced

# attribute of efficient-kan's KANLinear -> of KANLinear here; as arguments they have the same names on both sides
OPTIONS = ("in_features", "out_features", "grid_size", "spline_order", "scale_noise", "scale_base", "scale_spline",
           "enable_standalone_scale_spline", "grid_eps")  # fmt: skip


class FusedKANLinear(Accelerated):
    """forward of efficient-kan's KANLinear through the kernels, from views of its own parameters."""

    def forward(self, x: Tensor) -> Tensor:
        knots, weight = spline_knots(self, self.grid, self.spline_order), self.spline_weight
        backend = self.backend_for(x, weight)
        if knots is None or backend is None:
            return super().forward(x)
        scale = self.spline_scaler.T if self.enable_standalone_scale_spline else None
        coef = weight.permute(1, 2, 0)  # O I F -> I F O
        return kan_sum(x, coef, knots, self.spline_order, self.base_activation, self.base_weight.T, scale, backend)

    @classmethod
    def unlike(cls, layer: nn.Module) -> str | None:
        wanted = (*OPTIONS, "grid", "base_weight", "spline_weight", "base_activation")
        missing = [name for name in wanted if not hasattr(layer, name)]
        if missing:
            return f"it has no {', '.join(missing)}"
        inputs, outputs, degree = layer.in_features, layer.out_features, layer.spline_order
        functions = layer.grid_size + degree
        expected = {
            "grid": (inputs, functions + degree + 1), "base_weight": (outputs, inputs),
            "spline_weight": (outputs, inputs, functions),
        }  # fmt: skip
        if layer.enable_standalone_scale_spline:
            expected["spline_scaler"] = (outputs, inputs)
        for name, shape in expected.items():
            if tuple(getattr(layer, name).shape) != shape:
                return f"{name} has shape {list(getattr(layer, name).shape)}: expected {list(shape)}"
        return None

    @classmethod
    def sample(cls, layer: nn.Module) -> Tensor:
        return spread(layer.grid)


def from_efficient_kan(model: nn.Module, exact: bool = False, **options) -> nn.Module:
    """A copy of the model with a KANLinear of fastkan in the place of each of efficient-kan's, of the same function.

    model: a KAN of efficient-kan, one layer, or any module that holds some. What else there is stays: efficient-kan's
    KAN calls its layers by methods that KANLinear has too. exact: take float32 knots as they are, instead of as the
    equidistant ones that they are rounded from, which are faster. options: others of KANLinear, such as backend.

    Raises ValueError where the model has no such layer, or one whose knots do not ascend.
    """
    theirs = partial(is_peers, name="KANLinear")
    return replaced(copy.deepcopy(model), theirs, FusedKANLinear.unlike, lambda layer: _ours(layer, exact, options))


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
    new = {}
    for name, value in state.items():
        prefix, _, last = name.rpartition(".")
        prefix += "." if prefix else ""
        if prefix + "spline_weight" not in state:
            new[name] = value
        elif last == "spline_weight":
            new[prefix + "coef"] = value.permute(1, 2, 0).contiguous()
        elif last == "spline_scaler":
            new[prefix + "spline_scale"] = value.T.contiguous()
        elif last == "base_weight":
            new[name] = value.T.contiguous()
        elif last == "grid":
            degree = value.shape[1] - state[prefix + "spline_weight"].shape[2] - 1
            new[name] = value.double() if exact else snapped(value, *ends(value, degree), degree)
        else:
            new[name] = value
    return new


def to_efficient_kan_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back; knots are rounded to the type of the coefficients."""
    new = {}
    for name, value in state.items():
        prefix, _, last = name.rpartition(".")
        prefix += "." if prefix else ""
        if prefix + "coef" not in state:
            new[name] = value
        elif last == "coef":
            new[prefix + "spline_weight"] = value.permute(2, 0, 1).contiguous()
        elif last == "spline_scale":
            new[prefix + "spline_scaler"] = value.T.contiguous()
        elif last == "base_weight":
            new[name] = value.T.contiguous()
        elif last == "grid":
            new[name] = value.to(state[prefix + "coef"].dtype)
        else:
            new[name] = value
    return new


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
