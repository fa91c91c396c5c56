"""Kolmogorov-Arnold Network layers for PyTorch, at the speed of the hardware."""

from . import (
    functional,
    nn,
    ops,  # noqa: F401  registers the operators before anything can be traced
)
from .nn import KANLinear
from .select import BackendError, backends, use_backend

__version__ = "0.1.0"
__all__ = ["BackendError", "KANLinear", "backends", "functional", "nn", "use_backend"]
