"""KANSequential: KAN layers one after the other, small ones in one call."""

from torch import Tensor, nn

from .. import functional
from ..stack import Layer
from .hooks import any_global_hook, hooked
from .linear import KANLinear


class KANSequential(nn.Sequential):
    """nn.Sequential of KANLinear layers that runs a small network in one call, forward and backward.

    What a network of a few nodes costs is PyTorch's overhead per layer. Where every module is a KANLinear with a fused
    base function and no hooks, and the layers are few and small, all of them are one operator, of which autograd keeps
    x and the parameters; every order of derivative is there. Else, and under torch.func's transforms and autocast, it
    is nn.Sequential. The results are the same up to rounding.

    Args: as nn.Sequential; other modules than KANLinear are welcome, and go one by one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] -> [..., O]."""
        if (layers := self._layers()) is None:
            return super().forward(x)
        functional.check_input(x, layers[0].coef.shape[0])
        return functional.apply_stack(x, layers, next(iter(self)).backend)

    def _layers(self) -> list[Layer] | None:
        modules = list(self._modules.values())
        if not modules or any_global_hook() or any(type(m) is not KANLinear or hooked(m) for m in modules):
            return None
        layers = [m.as_layer() for m in modules]
        return None if None in layers or len({m.backend for m in modules}) > 1 else layers
