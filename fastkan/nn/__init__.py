"""Layers: KANLinear, and its place in existing models."""

from .linear import KANLinear
from .replace import replace_linear

__all__ = ["KANLinear", "replace_linear"]
