"""Layers: KANLinear, convolutions and blocks made of it, and its place in existing models."""

from .convolution import KANConv1d, KANConv2d, KANConv3d, KANConvTranspose1d, KANConvTranspose2d, KANConvTranspose3d
from .linear import KANLinear
from .replace import replace_linear
from .sequential import KANSequential

__all__ = [
    "KANConv1d", "KANConv2d", "KANConv3d", "KANConvTranspose1d", "KANConvTranspose2d", "KANConvTranspose3d",
    "KANLinear", "KANSequential", "replace_linear",
]  # fmt: skip
