"""Layers: KANLinear, its place in existing models, and layers whose functions have parameters of their own."""

from .linear import KANLinear
from .own_parameters import RationalKANLayer, ReLUKANLayer, WavKANLayer
from .replace import replace_linear
from .sequential import KANSequential

__all__ = ["KANLinear", "KANSequential", "RationalKANLayer", "ReLUKANLayer", "WavKANLayer", "replace_linear"]
