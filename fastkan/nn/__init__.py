"""Layers: KANLinear, convolutions and blocks made of it, and its place in existing models."""

from .attention import KANAttention
from .convolution import KANConv1d, KANConv2d, KANConv3d, KANConvTranspose1d, KANConvTranspose2d, KANConvTranspose3d
from .embedding import KANEmbedding
from .feed_forward import KANFeedForward
from .linear import KANLinear
from .replace import replace_linear
from .sequential import KANSequential

__all__ = [
    "KANAttention", "KANConv1d", "KANConv2d", "KANConv3d", "KANConvTranspose1d", "KANConvTranspose2d",
    "KANConvTranspose3d", "KANEmbedding", "KANFeedForward", "KANLinear", "KANSequential", "replace_linear",
]  # fmt: skip
