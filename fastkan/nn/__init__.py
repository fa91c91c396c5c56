"""Layers: KANLinear, its place in existing models, convolutions and blocks made of it, and layers whose functions have
parameters of their own."""

from .attention import KANAttention
from .convolution import KANConv1d, KANConv2d, KANConv3d, KANConvTranspose1d, KANConvTranspose2d, KANConvTranspose3d
from .embedding import KANEmbedding
from .feed_forward import KANFeedForward
from .linear import KANLinear
from .own_parameters import RationalKANLayer, ReLUKANLayer, WavKANLayer
from .replace import replace_linear
from .sequential import KANSequential

__all__ = [
    "KANAttention", "KANConv1d", "KANConv2d", "KANConv3d", "KANConvTranspose1d", "KANConvTranspose2d",
    "KANConvTranspose3d", "KANEmbedding", "KANFeedForward", "KANLinear", "KANSequential", "RationalKANLayer",
    "ReLUKANLayer", "WavKANLayer", "replace_linear",
]  # fmt: skip
