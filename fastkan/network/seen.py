"""What a mask was when something was derived from its values, so that this is never used for other values."""

import torch
from torch import Tensor, nn

_MODES = torch._C._TorchDispatchModeKey
_TRACING = (_MODES.FAKE, _MODES.PROXY, _MODES.FUNCTIONAL)


def readable(mask: Tensor) -> bool:
    """Whether it has values that can be looked at now: it is traced by no compiler, and no transform wraps it."""
    if torch.compiler.is_compiling() or type(mask) not in (Tensor, nn.Parameter) or mask.is_meta:
        return False
    if torch._C._functorch.is_functorch_wrapped_tensor(mask):
        return False
    return torch._C._len_torch_dispatch_stack() == 0 or not any(map(torch._C._get_dispatch_mode, _TRACING))


class Seen:
    """A mask as it now is; `holds` tells whether another, or the same one later, has the same values.

    On a CPU by a copy of the values, which sees every write. A GPU would have to be waited for: there by what PyTorch
    knows of the tensor, which misses writes through an alias by `.data` that was taken before.
    """

    def __init__(self, mask: Tensor):
        self.mask = mask.detach().clone() if mask.is_cpu else mask
        self.known = None if mask.is_cpu else _known(mask)

    def holds(self, mask: Tensor) -> bool:
        if mask.is_cpu and self.known is None:
            return mask.dtype == self.mask.dtype and torch.equal(mask, self.mask)
        return mask is self.mask and self.known is not None and self.known == _known(mask)


def _known(mask: Tensor) -> tuple[int, int] | None:
    """None of a tensor of inference mode, which has no version: it is looked at every time."""
    return None if mask.is_inference() else (mask.data_ptr(), mask._version)
