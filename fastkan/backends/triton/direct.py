"""Kernels launched without Triton's own search for the compiled one, which takes the host longer than all else."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from triton import knobs
from triton.runtime import driver as _driver

INTERPRETED = knobs.runtime.interpret
_RUNTIME = knobs.runtime
driver: Any = _driver  # untyped


class Launch:
    """A kernel with all but its tensors: numbers, compile-time constants, options, and the programs to start.

    The kernel's arguments are tensors, numbers, constants. Constants that it does not have are left out. All launches
    are with tensors of that device and of the same types, which of them are None included. `accumulator`: the type of
    coordinates and sums. `tuned` launches in place of this kernel, by measurements, where no graph is captured.
    """

    def __init__(
        self, kernel: Any, programs: int, numbers: tuple[int, ...], constants: Mapping[str, Any],
        options: Mapping[str, int], device: torch.device, accumulator: torch.dtype,
        tuned: Callable[..., None] | None = None,
    ):  # fmt: skip
        self.kernel, self.programs, self.numbers = kernel, programs, numbers
        self.constants = {name: constants[name] for name in kernel.arg_names if name in constants}
        assert tuple(self.constants) == tuple(kernel.arg_names[-len(self.constants) :]), "constants come last"
        self.options = {} if INTERPRETED else {"enable_fp_fusion": True, **options}
        self.device, self.accumulator, self.tuned = device, accumulator, tuned
        self.gpu = device.index if device.type == "cuda" else None
        self.last = *numbers, *self.constants.values()
        # Which pointers are no multiples of 16 bytes -> the kernel compiled for that, and what starts it.
        self.compiled: dict[tuple[bool, ...], tuple[Any, ...]] = {}


def run(launch: Launch, *tensors: Any) -> None:
    """Launch on the current stream of the launch's device."""
    if launch.gpu is None or launch.gpu == torch.cuda.current_device():
        _run(launch, tensors)
    else:
        with on(launch.device):
            _run(launch, tensors)


def _run(launch: Launch, tensors: tuple[Any, ...]) -> None:
    if launch.tuned is not None and (launch.gpu is None or not torch.cuda.is_current_stream_capturing()):
        launch.tuned(*tensors)
        return
    if INTERPRETED:
        launch.kernel[launch.programs,](*tensors, *launch.numbers, **launch.constants)
        return
    # As numbers Triton's launcher takes them; of a tensor it asks the driver whether the GPU can access it.
    pointers, bits = [], 0
    for t in tensors:
        if t is None:
            pointers.append(None)
        else:
            if t.device != launch.device:
                raise RuntimeError(f"a tensor is on {t.device}: expected all on {launch.device}, the device of x")
            pointers.append(pointer := t.data_ptr())
            bits |= pointer
    # Triton specialises on pointers that are multiples of 16 bytes.
    key = tuple([bool((p or 0) & 15) for p in pointers]) if bits & 15 else ()
    found = launch.compiled.get(key)
    enter, leave = _RUNTIME.launch_enter_hook, _RUNTIME.launch_exit_hook  # by which profilers see launches
    if found is None or getattr(enter, "calls", enter) or getattr(leave, "calls", leave):
        arguments = *tensors, *launch.numbers
        compiled = launch.kernel[launch.programs,](*arguments, **launch.constants, **launch.options)
        launch.compiled[key] = compiled, compiled.run, (compiled.function, compiled.packed_metadata, None, None, None)
        return
    _, start, middle = found
    stream = driver.active.get_current_stream(launch.gpu or 0)
    start(launch.programs, 1, 1, stream, *middle, *pointers, *launch.last)


def on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
