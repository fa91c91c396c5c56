"""torch-conv-kan's fully connected layers and networks by name and arguments, made of fastkan's; and a pytest plugin
that runs its own tests on them, in a checkout of it, with FASTKAN that of fastkan:

    export PYTHONPATH=FASTKAN:FASTKAN/tests
    python -m pytest -p support.torch_conv_kan tests/test_kan_fc.py tests/test_mlp_kan.py

Functions are fastkan's: of KALNLayer on the grid range [-1, 1] and not scaled by the batch, of the Gram layers
Legendre polynomials, which span what theirs do without the trained coefficients and the activation of each.
"""

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import ModuleType

from torch import Tensor, nn

from fastkan.nn import KANLinear, ReLUKANLayer, WavKANLayer


def spline_layer(i: int, o: int, *, grid_size=5, spline_order=3, base_activation=nn.GELU, grid_range=(-1, 1)):
    splines = KANLinear(i, o, grid_size, spline_order, base_activation=base_activation, grid_range=tuple(grid_range))
    return nn.Sequential(splines, nn.LayerNorm(o), nn.PReLU())


def gaussian_layer(
    i: int, o: int, *, grid_min=-2.0, grid_max=2.0, num_grids=8, use_base_update=True, base_activation=nn.SiLU,
    spline_weight_init_scale=0.1,
):  # fmt: skip
    base = base_activation if use_base_update else None
    layer = KANLinear(i, o, num_grids, base_activation=base, grid_range=(grid_min, grid_max), family="rbf", bias=True)
    nn.init.trunc_normal_(layer.coef, std=spline_weight_init_scale)
    return layer


def chebyshev_layer(i: int, o: int, degree: int):
    return nn.Sequential(nn.Tanh(), KANLinear(i, o, degree + 1, family="chebyshev", base_activation=None))


def family_layer(family: str) -> Callable[..., nn.Module]:
    """A layer of degree + 1 functions, a norm and an activation, as torch-conv-kan's of polynomials."""

    def layer(i: int, o: int, degree: int = 3, act=nn.SiLU, base_activation=None):
        act = base_activation or act  # the name in networks
        return nn.Sequential(KANLinear(i, o, degree + 1, family=family, base_activation=act), nn.LayerNorm(o), act())

    return layer


class BottleNeckGRAMLayer(nn.Module):
    """A layer of polynomials between two linear ones, beside the base term."""

    def __init__(self, i: int, o: int, degree=3, act=nn.SiLU, dim_reduction=8.0, min_internal=16, base_activation=None):
        super().__init__()
        act = base_activation or act
        width = int(max(i, o) / dim_reduction)
        width = min(min_internal, i, o) if width < min_internal else width
        functions = KANLinear(width, width, degree + 1, family="legendre", base_activation=None)
        self.inner = nn.Sequential(nn.Linear(i, width), functions, nn.Linear(width, o))
        self.base = nn.Sequential(act(), nn.Linear(i, o, bias=False))
        self.outer = nn.Sequential(nn.LayerNorm(o), act())

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x) + self.base(x))


def wavelet_layer(i: int, o: int, wavelet_type: str = "mexican_hat"):
    return nn.Sequential(WavKANLayer(i, o, wavelet_type), nn.BatchNorm1d(o))


def relu_layer(i: int, g: int, k: int, o: int, train_ab: bool = True):
    return ReLUKANLayer(i, o, g, k, train_ab)


class L1(nn.Sequential):
    """A layer whose parameters' gradients get those of l1_decay sum |p|."""

    def __init__(self, layer: nn.Module, l1_decay: float):
        super().__init__(layer)
        for p in layer.parameters():
            if p.requires_grad:
                p.register_hook(lambda grad, p=p: grad + l1_decay * p.sign())


def network(layer: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """A function from widths and options to a network of these layers."""

    def build(widths: Sequence[int], dropout=0.0, l1_decay=0.0, first_dropout=True, **options) -> nn.Module:
        layers: list[nn.Module] = []
        for l, (i, o) in enumerate(pairwise(widths)):
            if dropout and (l or first_dropout):
                layers.append(nn.Dropout(dropout))
            made, last = layer(i, o, **options), l == len(widths) - 2
            layers.append(L1(made, l1_decay) if l1_decay and not last else made)
        return nn.Sequential(*layers)

    return build


def gaussian_of_network(i: int, o: int, *, grid_size=8, grid_range=(-2, 2), **options):
    return gaussian_layer(i, o, num_grids=grid_size, grid_min=grid_range[0], grid_max=grid_range[1], **options)


LAYERS = {
    "KANLayer": spline_layer,
    "FastKANLayer": gaussian_layer,
    "ChebyKANLayer": chebyshev_layer,
    "KALNLayer": family_layer("legendre"),
    "JacobiKANLayer": family_layer("jacobi"),
    "BernsteinKANLayer": family_layer("bernstein"),
    "GRAMLayer": family_layer("legendre"),
    "BottleNeckGRAMLayer": BottleNeckGRAMLayer,
    "WavKANLayer": wavelet_layer,
    "ReLUKANLayer": relu_layer,
}
NETWORKS = {
    "KAN": network(spline_layer),
    "FastKAN": network(gaussian_of_network),
    "KACN": network(chebyshev_layer),
    "KALN": network(LAYERS["KALNLayer"]),
    "KAJN": network(LAYERS["JacobiKANLayer"]),
    "KABN": network(LAYERS["BernsteinKANLayer"]),
    "KAGN": network(LAYERS["GRAMLayer"]),
    "BottleNeckKAGN": network(BottleNeckGRAMLayer),
    "WavKAN": network(wavelet_layer),
    "ReLUKAN": network(lambda i, o, **options: relu_layer(i, o=o, **options)),
}


def pytest_configure() -> None:
    """The module that its tests import."""
    kans = sys.modules["kans"] = ModuleType("kans")
    vars(kans).update(LAYERS | NETWORKS)
