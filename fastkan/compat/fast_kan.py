"""fast-kan (github.com/ZiyaoLi/fast-kan): its classes on fastkan, accelerated layers, conversion of models.

Parameters and state dicts have fast-kan's names and shapes, so its checkpoints load unchanged. The basis functions are
Gaussians exp(-((x - c_f) / h)^2). Without kernels for them the layers compute fast-kan's formula.

Source: Li, Kolmogorov-Arnold Networks are Radial Basis Function Networks (arXiv 2405.06721).
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import functional
from ..arguments import integer, number
from ..devices import exact, place
from ..network.layers.shape import as_list
from ..spec import Spec
from .accelerated import Accelerated, KernelLayer, missing_attributes, rows_around
from .modules import is_foreign, replace_modules

RBF = Spec.of(0, "zero", "zero", True, "rbf")


class SplineLinear(nn.Linear):
    """A linear layer without bias; initial weights are normal with standard deviation init_scale, truncated at +-2."""

    def __init__(self, in_features: int, out_features: int, init_scale: float = 0.1, **options):
        self.init_scale = init_scale
        super().__init__(in_features, out_features, bias=False, **options)

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.weight, mean=0, std=self.init_scale)


class RadialBasisFunction(nn.Module):
    """x [..., I] -> exp(-((x - c_f) / h)^2) [..., I, F] for F = num_grids centres from grid_min to grid_max.

    h is denominator, by default the distance between centres. The centres are a Parameter that is not trained.
    """

    def __init__(
        self, grid_min: float = -2.0, grid_max: float = 2.0, num_grids: int = 8, denominator: float | None = None
    ):
        super().__init__()
        grid_min, grid_max = number("grid_min", grid_min), number("grid_max", grid_max)
        if integer("num_grids", num_grids, 0) < 2 or not grid_min < grid_max:
            raise ValueError(
                f"grid_min={grid_min!r}, grid_max={grid_max!r}, num_grids={num_grids!r}: expected grid_min < "
                "grid_max and at least 2 centres"
            )
        self.grid_min, self.grid_max, self.num_grids = grid_min, grid_max, num_grids
        self.grid = nn.Parameter(torch.linspace(grid_min, grid_max, num_grids), requires_grad=False)
        self.denominator = denominator or (grid_max - grid_min) / (num_grids - 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(-(((x[..., None] - self.grid) / self.denominator) ** 2))


class FastKANLayer(KernelLayer):
    """y = W rbf(layernorm(x)) + base_linear(base_activation(x)), x [..., input_dim] -> [..., output_dim].

    Args:
        grid_min, grid_max, num_grids: the centres, see RadialBasisFunction.
        use_base_update: include the second term.
        use_layernorm: normalise the inputs of the Gaussians; needs an input_dim of at least 2.
        base_activation: an elementwise function, or a module class.
        spline_weight_init_scale: standard deviation of the initial W.

    Raises ValueError for arguments that contradict one another.
    """

    def __init__(
        self, input_dim: int, output_dim: int, grid_min: float = -2.0, grid_max: float = 2.0, num_grids: int = 8,
        use_base_update: bool = True, use_layernorm: bool = True, base_activation: Callable = F.silu,
        spline_weight_init_scale: float = 0.1,
    ):  # fmt: skip
        super().__init__()
        input_dim, output_dim = integer("input_dim", input_dim, 1), integer("output_dim", output_dim, 1)
        if use_layernorm and input_dim < 2:
            raise ValueError(f"input_dim={input_dim!r} with use_layernorm=True: expected at least 2, or False")
        self.input_dim, self.output_dim = input_dim, output_dim
        self.layernorm = nn.LayerNorm(input_dim) if use_layernorm else None
        self.rbf = RadialBasisFunction(grid_min, grid_max, num_grids)
        self.spline_linear = SplineLinear(input_dim * num_grids, output_dim, spline_weight_init_scale)
        self.use_base_update = use_base_update
        if use_base_update:
            if not callable(base_activation):
                raise TypeError(f"base_activation={base_activation!r}: expected a function, a module or its class")
            self.base_activation = base_activation() if isinstance(base_activation, type) else base_activation
            self.base_linear = nn.Linear(input_dim, output_dim)

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, use_layernorm: bool = True) -> Tensor: ...

    def forward(self, x: Tensor, use_layernorm: bool = True) -> Tensor:
        functional.check_input(x, self.input_dim)
        normal = self.layernorm(x) if self.layernorm is not None and use_layernorm else x
        y = _spline_sum(self, normal)
        if y is None:
            y = self.spline_linear(self.rbf(normal).flatten(-2))
        return y + self.base_linear(self.base_activation(x)) if self.use_base_update else y

    @torch.no_grad()
    def plot_curve(
        self, input_index: int, output_index: int, num_pts: int = 1000, num_extrapolate_bins: int = 2
    ) -> tuple[Tensor, Tensor]:
        """The spline of one edge: num_pts points x across the centres and extrapolated bins on both sides, and y."""
        rbf, beside = self.rbf, num_extrapolate_bins * self.rbf.denominator
        w = self.spline_linear.weight.unflatten(1, (self.input_dim, -1))[output_index, input_index]
        x = torch.linspace(rbf.grid_min - beside, rbf.grid_max + beside, num_pts, device=w.device)
        return x, rbf(x.to(w.dtype)) @ w


class FastKAN(nn.Module):
    """A sequence of FastKANLayers: layers_hidden are the widths, the other arguments those of FastKANLayer."""

    def __init__(
        self, layers_hidden: Sequence[int], grid_min: float = -2.0, grid_max: float = 2.0, num_grids: int = 8,
        use_base_update: bool = True, base_activation: Callable = F.silu, spline_weight_init_scale: float = 0.1,
    ):  # fmt: skip
        super().__init__()
        options = {
            "grid_min": grid_min, "grid_max": grid_max, "num_grids": num_grids, "use_base_update": use_base_update,
            "base_activation": base_activation, "spline_weight_init_scale": spline_weight_init_scale,
        }  # fmt: skip
        layers_hidden = as_list(layers_hidden)
        if isinstance(layers_hidden, str) or not isinstance(layers_hidden, Sequence):
            raise TypeError(f"layers_hidden={layers_hidden!r}: expected a sequence of integers, the widths")
        widths = zip(layers_hidden[:-1], layers_hidden[1:], strict=True)
        self.layers = nn.ModuleList(FastKANLayer(inputs, outputs, **options) for inputs, outputs in widths)

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class AttentionWithFastKANTransform(nn.Module):
    """Attention whose projections are FastKANLayers: q [..., Q, q_dim], k [..., K, k_dim], v [..., K, v_dim].

    bias [..., Q, K] is added after the softmax, as in fast-kan. Returns [..., Q, q_dim].
    """

    def __init__(self, q_dim: int, k_dim: int, v_dim: int, head_dim: int, num_heads: int, gating: bool = True):
        super().__init__()
        total = head_dim * num_heads
        self.num_heads, self.gating, self.norm = num_heads, gating, head_dim**-0.5
        self.linear_q = FastKANLayer(q_dim, total)
        self.linear_k = FastKANLayer(k_dim, total)
        self.linear_v = FastKANLayer(v_dim, total)
        self.linear_o = FastKANLayer(total, q_dim)
        self.linear_g = FastKANLayer(q_dim, total) if gating else None

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        heads = (self.num_heads, -1)
        wq = self.linear_q(q).unflatten(-1, heads) * self.norm
        wk, wv = self.linear_k(k).unflatten(-1, heads), self.linear_v(v).unflatten(-1, heads)
        attention = torch.einsum("...qhc,...khc->...qkh", wq, wk).softmax(-2)
        if bias is not None:
            attention = attention + bias[..., None]
        o = torch.einsum("...qkh,...khc->...qhc", attention, wv).flatten(-2)
        if self.linear_g is not None:
            o = torch.sigmoid(self.linear_g(q)) * o
        return self.linear_o(o)


class FusedFastKANLayer(Accelerated):
    """fast-kan's FastKANLayer with forward by the kernels, on views of its own parameters."""

    layernorm: nn.LayerNorm | None
    rbf: RadialBasisFunction
    spline_linear: nn.Linear
    use_base_update: bool
    base_linear: nn.Linear
    base_activation: Callable

    def forward(self, x: Tensor, *args, use_layernorm: bool = True, **options) -> Tensor:
        if args or options:  # such as torch-conv-kan's time_benchmark
            return super().forward(x, *args, **options)
        normal = self.layernorm(x) if self.layernorm is not None and use_layernorm else x
        y = _spline_sum(self, normal)
        if y is None:
            return super().forward(x) if use_layernorm else super().forward(x, use_layernorm=False)
        return y + self.base_linear(self.base_activation(x)) if self.use_base_update else y

    @classmethod
    def fastkan_mismatch(cls, layer: Any) -> str | None:
        names = ("layernorm", "rbf", "spline_linear", "use_base_update")
        names += ("base_linear", "base_activation") if getattr(layer, "use_base_update", False) else ()
        if missing := missing_attributes(layer, names) or missing_attributes(layer.rbf, ("grid", "denominator")):
            return missing
        if layer.rbf.grid.dim() != 1 or layer.spline_linear.weight.shape[1] % len(layer.rbf.grid):
            return "the weights do not fit the grid"
        return None if layer.spline_linear.bias is None else "spline_linear has a bias"

    @classmethod
    @torch.no_grad()
    def fastkan_test_rows(cls, layer: Any) -> Tensor:
        grid = layer.rbf.grid
        grid.copy_(torch.linspace(float(grid[0]), float(grid[-1]), len(grid), dtype=grid.dtype, device=grid.device))
        layer.rbf.denominator = float(grid[-1] - grid[0]) / (len(grid) - 1)
        return rows_around(grid.expand(layer.spline_linear.weight.shape[1] // len(grid), -1))


def from_fast_kan(model: nn.Module) -> nn.Module:
    """A copy of the model with every FastKANLayer of fast-kan converted to fastkan's, computing the same function.

    model: a FastKAN of fast-kan, one layer, or any module that contains some; other modules stay. State dicts have the
    same names and shapes in both libraries. Raises ValueError if there is no such layer.
    """
    matches, convert = partial(is_foreign, name="FastKANLayer"), partial(_converted, layer_class=FastKANLayer)
    return replace_modules(copy.deepcopy(model), matches, FusedFastKANLayer.fastkan_mismatch, convert)


def to_fast_kan(model: nn.Module, layer_class: Callable[..., nn.Module]) -> nn.Module:
    """The inverse: a copy of the model with every FastKANLayer converted to fast-kan's class, layer_class."""

    def matches(module: nn.Module) -> bool:
        return isinstance(module, FastKANLayer)

    convert = partial(_converted, layer_class=layer_class)
    return replace_modules(copy.deepcopy(model), matches, lambda layer: None, convert)


def _converted(layer: Any, layer_class: Callable[..., Any]) -> nn.Module:
    weight, grid = layer.spline_linear.weight, layer.rbf.grid
    options = {"base_activation": layer.base_activation} if layer.use_base_update else {}
    with torch.random.fork_rng(devices=[]):
        new = layer_class(
            weight.shape[1] // len(grid), len(weight), float(grid[0]), float(grid[-1]), len(grid),
            layer.use_base_update, layer.layernorm is not None, **options,
        )  # fmt: skip
    new.to(device=weight.device, dtype=weight.dtype).load_state_dict(layer.state_dict())
    new.rbf.denominator = layer.rbf.denominator
    return new.train(layer.training)


def _spline_sum(layer: FastKANLayer | FusedFastKANLayer, x: Tensor) -> Tensor | None:
    """spline_linear(rbf(x)); None if no kernel computes it."""
    weight, rbf = layer.spline_linear.weight, layer.rbf
    knots = layer.fastkan_convert(rbf.grid, knots_around, float(rbf.denominator))
    if knots is None:
        return None
    coef = weight.unflatten(1, (-1, len(rbf.grid))).permute(1, 2, 0)  # O I F -> I F O
    functional.check_input(x, len(coef))
    return functional.apply(x, coef, knots[0].expand(len(coef), -1), None, None, None, RBF, layer.fastkan_backend)


def knots_around(centres: Tensor, width: float) -> tuple[Tensor | None, bool]:
    """Knots [1, F + 1] of intervals with these midpoints [F]; None unless their width is `width`."""
    functions, centre = len(centres), exact(centres)
    first, last = centre[0] - width / 2, centre[-1] + width / 2
    begin = float(centre[0])
    even = torch.linspace(begin, begin + (functions - 1) * width, functions, device="cpu").to(centre)
    rounding = 4 * torch.finfo(centres.dtype).eps * centre.abs().max()
    if bool(((even - centre).abs() > rounding).any()):
        return None, False
    knots = torch.stack([first + (last - first) * f / functions for f in range(functions + 1)])[None]
    return place(knots, centres.device), True
