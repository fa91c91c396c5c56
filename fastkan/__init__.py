"""Kolmogorov-Arnold Network layers for PyTorch, at the speed of the hardware."""

from . import ops  # noqa: F401  registers the operators before anything can be traced
from . import functional
from .select import BackendError, backends, use_backend

__version__ = "0.1.0"
__all__ = ["BackendError", "backends", "functional", "use_backend"]
