"""What may be known of the values of tensors, and for how long.

Nothing that follows from a tensor's values is kept without what shows that they are still the same, since anything may
write them: optimizers, averages, broadcasts, `.data`, NumPy.
"""

import torch
from torch import Tensor, nn

from .transforms import by_func, is_traced

_KEY = torch._C._TorchDispatchModeKey
_TRACERS = (_KEY.FAKE, _KEY.FUNCTIONAL, _KEY.PROXY)


def readable(t: Tensor) -> bool:
    """Whether t has values that Python may look at: not while it is traced or transformed, fake, or without storage."""
    return (
        type(t) in (Tensor, nn.Parameter)
        and not is_traced()
        and not t.is_meta
        and not by_func()
        and (torch._C._len_torch_dispatch_stack() == 0 or all(torch._C._get_dispatch_mode(k) is None for k in _TRACERS))
    )


class Snapshot:
    """The values of a readable tensor at a moment.

    On a CPU a copy, which is compared with. Elsewhere that would wait for the device: there the values are taken to be
    the same while the tensor has the same storage and version. It is held, so that no other can come to lie there.
    """

    def __init__(self, t: Tensor):
        self._dtype, self._kept, self._place = t.dtype, t.detach(), None
        if t.is_cpu:
            self._kept = self._kept.clone()
        else:
            self._place = _place(t)

    def holds(self, t: Tensor) -> bool:
        """Whether t has these values: False where that is not known."""
        if t.dtype is not self._dtype or t.is_cpu is not self._kept.is_cpu:
            return False
        if t.is_cpu:
            return torch.equal(self._kept, t)
        return self._place is not None and self._place == _place(t)


def _place(t: Tensor) -> tuple | None:
    """Where a tensor lies, and its version; None for one of inference mode, which has none."""
    return None if t.is_inference() else (t.data_ptr(), t.device, t.shape, t.stride(), t._version)
