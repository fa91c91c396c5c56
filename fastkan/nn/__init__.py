"""Layers: KANLinear, and its place in existing models."""

from .linear import KANLinear
from .replace import replace_linear
from .sequential import KANSequential

__all__ = ["KANLinear", "KANSequential", "replace_linear"]
