"""KANSequential: nn.Sequential of KAN layers, small ones as one fused call."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from .. import functional
from ..stack import Layer
from .hooks import any_global_hook, hooked
from .linear import KANLinear


class KANSequential(nn.Sequential):
    """nn.Sequential of KANLinear layers that runs a small network as one fused call, forward and backward.

    In a network of a few nodes PyTorch's overhead per layer dominates. If every module is a KANLinear with a fused base
    function and without hooks, and the layers are few and small, they run as one operator, for which autograd saves x
    and the parameters; differentiable to every order. Otherwise, and under torch.func's transforms and autocast, this
    is nn.Sequential. The results are equal up to rounding.

    Args: as nn.Sequential; any module but KANLinear makes all of them run one by one.
    """

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] x as in KANLinear
        """x [..., I] -> [..., O]."""
        if (fused := self._fused()) is None:
            return super().forward(x)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] untyped
        layers, backend = fused
        functional.check_input(x, layers[0].coef.shape[0])
        return functional.apply_stack(x, layers, backend)

    def _fused(self) -> tuple[list[Layer], str | None] | None:
        """The layers for one fused call, and their backend; None where the modules must run one by one."""
        modules = [m for m in self._modules.values() if type(m) is KANLinear and not hooked(m)]
        if not modules or len(modules) < len(self._modules) or any_global_hook():
            return None
        layers = [m.as_layer() for m in modules]
        fusable = [layer for layer in layers if layer is not None]
        same_backend = len({m.backend for m in modules}) == 1
        return (fusable, modules[0].backend) if len(fusable) == len(layers) and same_backend else None
