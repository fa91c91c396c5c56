"""Whether Python may read a tensor's values, and whether they have changed since.

Anything may write to a tensor: optimizers, averages, broadcasts, `.data`, NumPy. So a cached result that depends on
values is cached with a Snapshot of them.
"""

import torch
from torch import Tensor, nn

from .transforms import by_func, is_traced

_KEY = torch._C._TorchDispatchModeKey
_TRACERS = (_KEY.FAKE, _KEY.FUNCTIONAL, _KEY.PROXY)


def readable(t: Tensor) -> bool:
    """Whether Python may read t's values: not while it is traced or transformed, fake, or on "meta"."""
    return (
        type(t) in (Tensor, nn.Parameter)
        and not is_traced()
        and not t.is_meta
        and not by_func()
        and (torch._C._len_torch_dispatch_stack() == 0 or all(torch._C._get_dispatch_mode(k) is None for k in _TRACERS))
    )


class Snapshot:
    """The values of a readable tensor at one moment.

    On a CPU a copy to compare with. Elsewhere a comparison would wait for the device: there values count as unchanged
    while storage and version are the same. The tensor is kept alive, so that no other takes its address.
    """

    def __init__(self, t: Tensor):
        self._dtype, self._values, self._place = t.dtype, t.detach(), None
        if t.is_cpu:
            self._values = self._values.clone()
        else:
            self._place = _place(t)

    def holds(self, t: Tensor) -> bool:
        """Whether t has these values; False where that is unknown."""
        if t.dtype is not self._dtype or t.is_cpu is not self._values.is_cpu:
            return False
        if t.is_cpu:
            return torch.equal(self._values, t)
        return self._place is not None and self._place == _place(t)


def _place(t: Tensor) -> tuple[object, ...] | None:
    """Address, layout and version of a tensor; None in inference mode, where tensors have no version."""
    return None if t.is_inference() else (t.data_ptr(), t.device, t.shape, t.stride(), t._version)
