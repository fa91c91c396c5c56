"""A driver for Triton that launches nothing: what is compiled, and what the host does, without a GPU.

Kernels are launched on tensors in the host's memory, through all of Triton up to its launcher. It replaces the driver
of the whole process, which must not have Triton in its interpreter: for programs like triton_frontend.py.
"""

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from triton import compiler, knobs
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from fastkan import KANLinear
from fastkan.backends import triton as backend
from fastkan.backends.triton import plan

TARGETS = {
    **{f"sm_{arch}": GPUTarget("cuda", arch, 32) for arch in (75, 80, 86, 89, 90, 100, 120)},
    **{arch: GPUTarget("hip", arch, 64) for arch in ("gfx90a", "gfx942", "gfx950")},
    "gfx1100": GPUTarget("hip", "gfx1100", 32),
}
PROCESSORS = 132  # of the GPU that is not there


class Kernel(compiler.CompiledKernel):
    """Stands in for a compiled kernel; only its launches are counted."""

    def __init__(self, source: compiler.ASTSource, launched: Counter):
        self.src, self.name, self.launched = source, source.fn.__name__, launched
        self.module = self.function = self.packed_metadata = 1
        self._run = self.count

    def __del__(self):
        pass

    def count(self, *args: Any) -> None:
        self.launched[self.name] += 1


class Driver:
    """Device 0 of a machine without one. `compile` makes Triton's kernel from its source, or checks the source only."""

    def __init__(self, target: str = "sm_90", compile: Callable[[Any, GPUTarget, Any], None] | None = None):
        self.target, self.compile = TARGETS[target], compile
        self.compiled: Counter[str] = Counter()  # kernels by name
        self.launched: Counter[str] = Counter()
        self.utils = SimpleNamespace(get_device_properties=lambda device: {"multiprocessor_count": PROCESSORS})

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def use(self) -> "Driver":
        """Launch through this driver from now on, and let the Triton backend serve tensors on the CPU."""
        assert not knobs.runtime.interpret, "TRITON_INTERPRET=1: expected a process without the interpreter"
        driver.set_active(self)
        this = self

        def do_compile(function, key, signature, device, constexprs, options, attributes, warmup):
            source = compiler.ASTSource(function, signature, constexprs, attributes)
            this.compiled[function.__name__] += 1
            if this.compile is not None:
                this.compile(source, this.target, options)
            kernel = function.device_caches[device][0][key] = Kernel(source, this.launched)
            return kernel

        JITFunction._do_compile = do_compile
        backend.missing = backend.features.missing = lambda *_: None
        plan.processors = lambda device: PROCESSORS
        # As for a layer on a GPU: uniform knots are promised.
        KANLinear.spec = property(lambda layer: layer._promised(layer._buffers["grid"]))
        return self


def front_end(source: compiler.ASTSource, target: GPUTarget, options: Any) -> None:
    """Translate a kernel to Triton's intermediate representation, where Python's types and names are resolved."""
    made_for = compiler.make_backend(target)
    context = ir.context()
    ir.load_dialects(context)
    made_for.load_dialects(context)
    source.make_ir(target, options, made_for.get_codegen_implementation(options), made_for.get_module_map(), context)
