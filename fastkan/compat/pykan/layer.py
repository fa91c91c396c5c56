"""EdgeLayer: the numeric branch of a layer in a MultKAN, which returns pykan's tuple when it is called."""

from typing import Any

from torch import Tensor

from ...arguments import number
from ...network.layers import numeric
from ...nn.hooks import any_global_hook, hooked
from .plain import fixed, moving


class EdgeLayer(numeric.KANLayer):
    """fastkan.network's KANLayer, whose forward also returns the values on every edge.

    The model itself takes the sums alone. in_dim, out_dim, num and k may be set to their values, device to move the
    layer, and grid_eps.
    """

    fusable = True

    @classmethod
    def of(cls, layer: numeric.KANLayer) -> Any:
        """A layer of this class with the parameters of another, which it shares."""
        if isinstance(layer, cls):
            return layer
        new = cls.__new__(cls)
        new.__dict__.update(layer.__dict__)
        return new

    # pykan's forward returns more than its base class does here
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """x [N, I] -> the sums [N, O]; and for every edge, [N, O, I], its input, value and spline without scale."""
        preacts = x[:, None].expand(-1, self.out_dim, -1)
        return super().forward(x), preacts, self.postacts(x), self.postspline(x)

    def sums(self, x: Tensor) -> Tensor:
        """The sums alone; with all values on edges only where a hook reads them."""
        return self(x)[0] if hooked(self) or any_global_hook() else super().forward(x)

    in_dim, out_dim = fixed(numeric.KANLayer, "in_dim"), fixed(numeric.KANLayer, "out_dim")
    num, k = fixed(numeric.KANLayer, "num"), fixed(numeric.KANLayer, "k")
    device = moving(numeric.KANLayer)

    @property
    def grid_eps(self) -> float:
        """The share of the uniform grid in a grid update; may be set."""
        return self.linear.grid_eps

    @grid_eps.setter
    def grid_eps(self, grid_eps: float) -> None:
        self.linear.grid_eps = number("grid_eps", grid_eps, 0.0, 1.0)
