"""Kernels launched without Triton's own search for the compiled one, which takes the host longer than all else."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from triton import knobs
from triton.runtime import driver

INTERPRETED = knobs.runtime.interpret


class Launch:
    """A kernel with all but its tensors: numbers, compile-time constants, options, and the programs to start.

    The kernel's arguments are tensors, numbers, constants. Constants that it does not have are left out. All launches
    are with tensors of one device and of the same types, which of them are None included. `accumulator`: the type of
    coordinates and sums. `tuned` launches in place of this kernel, by measurements, where no graph is captured.
    """

    def __init__(
        self, kernel: Any, programs: int, numbers: tuple[int, ...], constants: Mapping[str, Any],
        options: Mapping[str, int], accumulator: torch.dtype, tuned: Callable[..., None] | None = None,
    ):  # fmt: skip
        self.kernel, self.programs, self.numbers = kernel, programs, numbers
        self.accumulator, self.tuned = accumulator, tuned
        self.constants = {name: constants[name] for name in kernel.arg_names if name in constants}
        assert tuple(self.constants) == tuple(kernel.arg_names[-len(self.constants) :]), "constants come last"
        self.options = {} if INTERPRETED else {"enable_fp_fusion": True, **options}
        self.last = *numbers, *self.constants.values()
        # Which pointers are multiples of 16 bytes -> kernel compiled for that, its launcher, and what that is told.
        self.compiled: dict[tuple[bool, ...], tuple[Any, ...]] = {}


def run(launch: Launch, *tensors: Any) -> None:
    """Launch on the current stream of the device of the first tensor; others may be None."""
    device = tensors[0].device
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        _run(launch, device.index or 0, tensors)
    else:
        with torch.cuda.device(device):
            _run(launch, device.index, tensors)


def _run(launch: Launch, device: int, tensors: tuple[Any, ...]) -> None:
    if launch.tuned is not None and not (tensors[0].is_cuda and torch.cuda.is_current_stream_capturing()):
        launch.tuned(*tensors)
        return
    if INTERPRETED:
        launch.kernel[launch.programs,](*tensors, *launch.numbers, **launch.constants)
        return
    # As Triton's launcher takes them; of a tensor it would ask the driver whether the GPU can access it.
    pointers = [None if t is None else t.data_ptr() for t in tensors]
    aligned = tuple([p is None or p & 15 == 0 for p in pointers])
    found = launch.compiled.get(aligned)
    hooks = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    if found is None or any([getattr(hook, "calls", hook) for hook in hooks]):
        arguments = *tensors, *launch.numbers
        compiled = launch.kernel[launch.programs,](*arguments, **launch.constants, **launch.options)
        launch.compiled[aligned] = compiled, compiled.run, compiled.function, compiled.packed_metadata
        return
    _, start, function, metadata = found
    stream = driver.active.get_current_stream(device)
    start(launch.programs, 1, 1, stream, function, metadata, None, None, None, *pointers, *launch.last)


def on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
