"""Kolmogorov-Arnold Network layers for PyTorch, at the speed of the hardware."""

from typing import TYPE_CHECKING

from . import (
    functional,
    imports,
    nn,
    ops,  # noqa: F401  registers the operators before anything can be traced
)
from .nn import KANLinear, KANSequential, replace_linear
from .select import BackendError, backends, use_backend

__version__ = "0.1.0"
imports.watch()
# Imported on first use, since they take longer than the rest: name -> module.
_LAZY = {
    "KAN": "network", "kanpiler": "network", "network": "network", "science": "science",
    "AttentionWithFastKANTransform": "compat.fast_kan", "FastKAN": "compat.fast_kan", "FastKANLayer": "compat.fast_kan",
    "RadialBasisFunction": "compat.fast_kan", "SplineLinear": "compat.fast_kan",
    "accelerate": "compat.accelerate", "restore": "compat.accelerate",
}  # fmt: skip
__all__ = [
    "KAN", "AttentionWithFastKANTransform", "BackendError", "FastKAN", "FastKANLayer", "KANLinear", "KANSequential",
    "RadialBasisFunction", "SplineLinear", "accelerate", "backends", "functional", "kanpiler", "network", "nn",
    "replace_linear", "restore", "science", "use_backend",
]  # fmt: skip

if TYPE_CHECKING:
    from . import network, science
    from .compat.accelerate import accelerate, restore
    from .compat.fast_kan import AttentionWithFastKANTransform, FastKAN, FastKANLayer, RadialBasisFunction, SplineLinear
    from .network import KAN, kanpiler
else:

    def __getattr__(name: str):
        """Import the names of _LAZY on first use."""
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        module = import_module(f".{_LAZY[name]}", __name__)
        return module if name == _LAZY[name] else getattr(module, name)

    def __dir__() -> list[str]:
        """The public names, of which some are not imported yet."""
        return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
