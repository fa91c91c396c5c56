"""Kernels launched without Triton's own search for the compiled one, which takes the host longer than all else."""

from dataclasses import dataclass
from typing import Any

import torch
from triton import knobs

INTERPRETED = knobs.runtime.interpret
_MOST = 4096  # compiled kernels, by all that Triton specialises on


@dataclass(eq=False)  # hashed by identity: made once for all calls of a kind
class Kind:
    """A kernel with the compile-time constants and launch options of one kind of call.

    The kernel's arguments are tensors, then numbers, then constants in the order of this dictionary.
    """

    kernel: Any
    constants: dict[str, Any]
    options: dict[str, Any]

    def __post_init__(self):
        self.last = tuple(self.constants.values())
        if not INTERPRETED:
            assert tuple(self.constants) == tuple(self.kernel.arg_names[-len(self.last) :]), "another order"
            self.options = {"enable_fp_fusion": True, **self.options}


_compiled: dict[tuple[object, ...], Any] = {}


def run(kind: Kind, programs: int, tensors: tuple[Any, ...], numbers: tuple[int, ...]) -> None:
    """Launch on the current stream of the first tensor's device; tensors may be None, but for the first."""
    device = tensors[0].device
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        _run(kind, programs, device.index, tensors, numbers)
    else:
        with torch.cuda.device(device):
            _run(kind, programs, device.index, tensors, numbers)


def _run(kind: Kind, programs: int, device: int | None, tensors: tuple, numbers: tuple[int, ...]) -> None:
    if INTERPRETED:
        kind.kernel[programs,](*tensors, *numbers, **kind.constants)
        return
    # Triton specialises on types, on pointers that are multiples of 16 bytes, and on properties of the numbers.
    types = tuple([None if t is None else (t.dtype, t.data_ptr() & 15) for t in tensors])
    key = (kind, device, types, numbers)
    compiled = _compiled.get(key)
    if compiled is not None:
        compiled[programs, 1, 1](*tensors, *numbers, *kind.last)
        return
    if len(_compiled) >= _MOST:
        _compiled.clear()
    _compiled[key] = kind.kernel[programs,](*tensors, *numbers, **kind.constants, **kind.options)
