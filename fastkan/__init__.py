"""Kolmogorov-Arnold Network layers for PyTorch, at the speed of the hardware."""

from . import (
    functional,
    nn,
    ops,  # noqa: F401  registers the operators before anything can be traced
)
from .nn import KANLinear
from .select import BackendError, backends, use_backend

__version__ = "0.1.0"
__all__ = [
    "KAN", "BackendError", "KANLinear", "backends", "functional", "kanpiler", "network", "nn", "science", "use_backend",
]  # fmt: skip


def __getattr__(name: str):
    """KAN and the rest of the KAN system are imported when they are first used."""
    if name not in ("KAN", "kanpiler", "network", "science"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name in ("network", "science"):
        return import_module(f".{name}", __name__)
    return getattr(import_module(".network", __name__), name)
