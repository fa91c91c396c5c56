"""Count of the operators for which the host waits for a device, as a GPU makes it wait, with the place of each."""

import os
import sys
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor
from torch._C import DispatchKey
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fastkan

PACKAGE = f"{Path(fastkan.__file__).parent}{os.sep}"
# Operators whose result's size depends on values, or that check values before they return.
READS = {
    "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "linalg_cholesky", "linalg_inv",
    "linalg_solve", "linalg_eigh", "linalg_lstsq", "_linalg_check_errors", "_assert_async",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}  # a mask of bool becomes indices by nonzero


class Waits(TorchDispatchMode):
    """Counts waits for a device other than the CPU and "meta": values that are read, copies from and to the host
    (unless non_blocking), and results whose size depends on values.

    places: how often each line of the package waited. Operators of fastkan count by what their reference does.
    """

    def __init__(self):
        super().__init__()
        self.places: Counter[str] = Counter()

    @property
    def count(self) -> int:
        return self.places.total()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.namespace == "fastkan" and func.has_kernel_for_dispatch_key(DispatchKey.CompositeExplicitAutograd):
            with self:
                return func._op_dk(DispatchKey.CompositeExplicitAutograd, *args, **kwargs)
        result = func(*args, **kwargs)
        if _waits(func, args, kwargs, result):
            self.places[_place()] += 1
        return result


def _waits(func, args, kwargs, result) -> bool:
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    name = func.overloadpacket.__name__
    if name in ("copy_", "_to_copy", "_copy_from"):
        to = args[0] if name == "copy_" else result
        there = {_remote(t.device) for t in (to, *tensors)}
        return len(there) > 1 and not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
    if not any(_remote(t.device) for t in tensors):
        return False
    if name == "lift_fresh":  # torch.tensor has copied numbers of the host
        return True
    if name in INDEXING:
        return any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1])
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None and isinstance(args[-1], Tensor)
    return name in READS or isinstance(result, bool | int | float)


def _remote(device: torch.device) -> bool:
    return device.type not in ("cpu", "meta")


def _place() -> str:
    """The innermost line of the package on the stack."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            return f"{frame.f_code.co_filename.removeprefix(PACKAGE)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"
