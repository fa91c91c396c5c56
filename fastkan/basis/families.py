"""The basis families: a row for each, which is all that a backend in plain PyTorch needs to serve it."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from .bernstein import bernstein_features
from .chebyshev import chebyshev_features
from .chebyshev2 import chebyshev2_features
from .fourier import fourier_features
from .gegenbauer import gegenbauer_features
from .hermite import hermite_features
from .jacobi import jacobi_features
from .legendre import legendre_features
from .rbf import rbf_features
from .relu import relu_features
from .switch import switch_features, unit_switch_features
from .wavelets import dog_features, mexican_hat_features, morlet_features


class Family(NamedTuple):
    """features(x, grid, order): x [N, I], grid [I, F + 1], equidistant, in one dtype -> derivatives [N, I, F].

    outside: the only extrapolation beyond the grid range, by its name in bspline.OUTSIDE; None for a formula that holds
    for every x. kernels: whether there are compiled and Triton kernels.
    """

    features: Callable[..., Tensor]
    outside: str | None = None
    kernels: bool = False


# Beside B-splines, in the order of the integers that Spec and the kernels know them by, from 1 on.
FAMILIES = {
    "rbf": Family(rbf_features, "zero", kernels=True),
    "chebyshev": Family(chebyshev_features, "clamp", kernels=True),
    "legendre": Family(legendre_features),
    "jacobi": Family(jacobi_features),
    "gegenbauer": Family(gegenbauer_features),
    "hermite": Family(hermite_features),
    "chebyshev2": Family(chebyshev2_features),
    "bernstein": Family(bernstein_features),
    "fourier": Family(fourier_features),
    "relu": Family(relu_features),
    "mexican_hat": Family(mexican_hat_features),
    "morlet": Family(morlet_features),
    "dog": Family(dog_features),
    "switch": Family(switch_features),
    "unit_switch": Family(unit_switch_features),
}
