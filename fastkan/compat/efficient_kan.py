"""efficient-kan (github.com/Blealtan/efficient-kan): its KAN on fastkan, accelerated layers, conversion of models."""

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from .. import devices
from ..network.layers.shape import as_list
from ..nn import KANLinear, KANSequential
from ..nn.base_function import Activation
from ..nn.grid import snapped
from . import import_name
from .accelerated import Accelerated, grid_range, kan_sum, missing_attributes, rows_around, spline_knots, wrong_shape
from .modules import is_foreign, replace_modules

# Attributes and constructor arguments with the same name in efficient-kan's KANLinear and fastkan's.
OPTIONS = ("in_features", "out_features", "grid_size", "spline_order", "scale_noise", "scale_base", "scale_spline",
           "enable_standalone_scale_spline", "grid_eps")  # fmt: skip


class KAN(nn.Module):
    """efficient-kan's network: a sequence of KANLinear layers, small ones in one fused call.

    layers_hidden: the widths. The other arguments are KANLinear's, with efficient-kan's defaults. Every layer has a
    trainable scale per edge, as there; `layers[l]` is a fastkan.KANLinear, which has efficient-kan's names, and
    load_state_dict takes efficient-kan's checkpoints. options: of KANLinear that efficient-kan does not have, such as
    backend, device or dtype.
    """

    def __init__(
        self,
        layers_hidden: Sequence[int],
        grid_size: int = 5,
        spline_order: int = 3,
        scale_noise: float = 0.1,
        scale_base: float = 1.0,
        scale_spline: float = 1.0,
        base_activation: Activation = nn.SiLU,
        grid_eps: float = 0.02,
        grid_range: Sequence[float] = (-1, 1),
        **options,
    ):
        super().__init__()
        widths = as_list(layers_hidden)
        if isinstance(widths, str) or not isinstance(widths, Sequence) or len(widths) < 2:
            raise TypeError(
                f"layers_hidden={layers_hidden!r}: expected a sequence of at least two integers, the widths"
            )
        self.grid_size, self.spline_order = grid_size, spline_order
        options = {"enable_standalone_scale_spline": True, **options}
        self.layers = KANSequential(
            *(
                KANLinear(
                    inputs, outputs, grid_size, spline_order, scale_noise, scale_base, scale_spline,
                    base_activation=base_activation, grid_eps=grid_eps, grid_range=(grid_range[0], grid_range[1]),
                    **options,
                )
                for inputs, outputs in zip(widths[:-1], widths[1:], strict=True)
            )
        )  # fmt: skip

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, update_grid: bool = False) -> Tensor: ...

    def forward(self, x: Tensor, update_grid: bool = False) -> Tensor:
        """x [..., I] -> [..., O]; update_grid: adapt each layer's grid to its inputs first, keeping its function."""
        if not update_grid:
            return self.layers(x)
        for layer in self._own_layers():
            layer.update_grid(x)
            x = layer(x)
        return x

    def _own_layers(self) -> list[KANLinear]:
        return cast(list[KANLinear], list(self.layers))

    def regularization_loss(self, regularize_activation: float = 1.0, regularize_entropy: float = 1.0) -> Tensor:
        """The sum of the layers' penalties, see KANLinear.regularization_loss."""
        losses = [layer.regularization_loss(regularize_activation, regularize_entropy) for layer in self._own_layers()]
        return torch.stack(losses).sum()


def install() -> None:
    """Make `import efficient_kan` and `from efficient_kan import KAN, KANLinear` import this module, in this process.

    Call it before the first import of efficient_kan. Calling it again has no effect. uninstall undoes it. Raises
    RuntimeError, with the path, if another efficient_kan is already imported.
    """
    module = sys.modules[__name__]
    import_name.install("efficient_kan", {"efficient_kan": module, "efficient_kan.kan": module})


def installed() -> bool:
    """Whether `import efficient_kan` imports this module."""
    return import_name.installed("efficient_kan", __name__)


def uninstall() -> None:
    """Undo install: the next `import efficient_kan` looks for efficient-kan."""
    if installed():
        import_name.uninstall("efficient_kan")


class FusedKANLinear(Accelerated):
    """efficient-kan's KANLinear with forward by the kernels, on views of its own parameters."""

    grid: Tensor
    spline_order: int
    enable_standalone_scale_spline: bool
    base_weight: Tensor
    spline_weight: Tensor
    spline_scaler: Tensor
    base_activation: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        knots, weight = spline_knots(self, self.grid, self.spline_order), self.spline_weight
        if knots is None:
            return super().forward(x)
        scale = self.spline_scaler.T if self.enable_standalone_scale_spline else None
        coef = weight.permute(1, 2, 0)  # O I F -> I F O
        return kan_sum(
            x, coef, knots, self.spline_order, self.base_activation, self.base_weight.T, scale, self.fastkan_backend
        )

    @classmethod
    def fastkan_mismatch(cls, layer: Any) -> str | None:
        names = (*OPTIONS, "grid", "base_weight", "spline_weight", "base_activation")
        if missing := missing_attributes(layer, names):
            return missing
        inputs, outputs, degree = layer.in_features, layer.out_features, layer.spline_order
        functions = layer.grid_size + degree
        shapes = {
            "grid": (inputs, functions + degree + 1), "base_weight": (outputs, inputs),
            "spline_weight": (outputs, inputs, functions),
        }  # fmt: skip
        if layer.enable_standalone_scale_spline:
            shapes["spline_scaler"] = (outputs, inputs)
        return wrong_shape(layer, shapes)

    @classmethod
    def fastkan_test_rows(cls, layer: Any) -> Tensor:
        return rows_around(layer.grid)


def from_efficient_kan(model: nn.Module, exact: bool = False, **options) -> nn.Module:
    """A copy of the model with every KANLinear of efficient-kan converted to fastkan's, computing the same function.

    model: a KAN of efficient-kan, one layer, or any module that contains some; other modules stay: efficient-kan's
    KAN calls methods of its layers that fastkan's have too. exact: keep float32 knots as they are, instead of removing
    the rounding of equidistant knots, which makes them faster. options: of KANLinear, such as backend.

    Raises ValueError if the model has no such layer, or one whose knots do not ascend.
    """
    matches = partial(is_foreign, name="KANLinear")
    convert = partial(_from_theirs, exact=exact, options=options)
    return replace_modules(copy.deepcopy(model), matches, FusedKANLinear.fastkan_mismatch, convert)


def to_efficient_kan(model: nn.Module, layer_class: Callable[..., nn.Module]) -> nn.Module:
    """The inverse: a copy of the model with every KANLinear converted to efficient-kan's.

    layer_class: efficient-kan's KANLinear, which is not on PyPI: `from efficient_kan import KANLinear`.

    Raises ValueError if the model has no KANLinear, or one that efficient-kan cannot represent: with a bias, without a
    base function, or with outside other than "zero".
    """

    def matches(module: nn.Module) -> bool:
        return isinstance(module, KANLinear)

    convert = partial(_to_theirs, layer_class=layer_class)
    return replace_modules(copy.deepcopy(model), matches, _obstacle, convert)


def from_efficient_kan_state(state: Mapping[str, Tensor], exact: bool = False) -> dict[str, Tensor]:
    """A state dict of efficient-kan in fastkan's names and shapes; modules keep their names.

    spline_scaler becomes spline_scale, a parameter with enable_standalone_scale_spline=True. exact: see
    from_efficient_kan.
    """

    def knots(grid: Tensor, weight: Tensor) -> Tensor:
        degree = grid.shape[1] - weight.shape[2] - 1
        rounded = devices.exact(grid)
        knots = rounded if exact else snapped(rounded, *grid_range(rounded, degree), degree)
        return devices.place(knots, grid.device)

    changes = {
        "spline_weight": ("coef", lambda value, _: value.permute(1, 2, 0).contiguous()),
        "spline_scaler": ("spline_scale", _transposed), "base_weight": ("base_weight", _transposed),
        "grid": ("grid", knots),
    }  # fmt: skip
    return _renamed(state, "spline_weight", changes)


def to_efficient_kan_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse; knots are rounded to the dtype of the coefficients."""
    changes = {
        "coef": ("spline_weight", lambda value, _: value.permute(2, 0, 1).contiguous()),
        "spline_scale": ("spline_scaler", _transposed), "base_weight": ("base_weight", _transposed),
        "grid": ("grid", lambda value, coef: value.to(coef.dtype)),
    }  # fmt: skip
    return _renamed(state, "coef", changes)


def _renamed(state: Mapping[str, Tensor], mark: str, changes: dict[str, tuple[str, Callable]]) -> dict[str, Tensor]:
    """state with changes {name: (new name, function of the value and the module's mark)} in modules that have mark."""
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
def _from_theirs(layer: Any, exact: bool, options: dict) -> KANLinear:
    weight = layer.spline_weight
    arguments = {name: getattr(layer, name) for name in OPTIONS}
    arguments |= {"grid_range": grid_range(layer.grid, layer.spline_order), "base_activation": layer.base_activation}
    new = KANLinear(**arguments | {"device": weight.device, "dtype": weight.dtype} | options)
    state = from_efficient_kan_state(layer.state_dict(), exact)
    new.set_grid(state["grid"], state["coef"])
    assert new.base_weight is not None
    new.base_weight.copy_(state["base_weight"])
    if new.spline_scale is not None:
        new.spline_scale.copy_(state["spline_scale"])
    return new.train(layer.training)


@torch.no_grad()
def _to_theirs(layer: KANLinear, layer_class: Callable[..., nn.Module]) -> nn.Module:
    arguments = {name: getattr(layer, name) for name in OPTIONS}
    with torch.random.fork_rng(devices=[]):
        new = layer_class(**arguments, base_activation=lambda: layer.base_activation, grid_range=list(layer.grid_range))
    new.to(device=layer.coef.device, dtype=layer.coef.dtype)
    new.load_state_dict(to_efficient_kan_state(layer.state_dict()))
    return new.train(layer.training)


def _obstacle(layer: KANLinear) -> str | None:
    if layer.family != "bspline":
        return f"family={layer.family!r}: efficient-kan has only 'bspline'"
    if layer.bias is not None:
        return "it has a bias, which efficient-kan's layers do not have"
    if layer.base_weight is None:
        return "it has no base function, which efficient-kan's layers always have"
    return None if layer.outside == "zero" else f"outside={layer.outside!r}: efficient-kan has only 'zero'"
