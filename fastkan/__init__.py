"""Kolmogorov-Arnold Network layers for PyTorch, at the speed of the hardware."""

from . import (
    functional,
    imports,
    nn,
    ops,  # noqa: F401  registers the operators before anything can be traced
)
from .nn import KANLinear
from .select import BackendError, backends, use_backend

__version__ = "0.1.0"
imports.watch()
# What is imported when it is first used: name -> module, which is meant itself where it has that name.
_LATER = {
    "KAN": "network", "kanpiler": "network", "network": "network", "science": "science",
    "AttentionWithFastKANTransform": "compat.fast_kan", "FastKAN": "compat.fast_kan", "FastKANLayer": "compat.fast_kan",
    "RadialBasisFunction": "compat.fast_kan", "SplineLinear": "compat.fast_kan",
    "accelerate": "compat.accelerate", "restore": "compat.accelerate",
}  # fmt: skip
__all__ = [
    "KAN", "AttentionWithFastKANTransform", "BackendError", "FastKAN", "FastKANLayer", "KANLinear",
    "RadialBasisFunction", "SplineLinear", "accelerate", "backends", "functional", "kanpiler", "network", "nn",
    "restore", "science", "use_backend",
]  # fmt: skip


def __getattr__(name: str):
    """KAN and the rest of the KAN system, and what is for the code of others, are imported when they are first used."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f".{_LATER[name]}", __name__)
    return module if name == _LATER[name] else getattr(module, name)
