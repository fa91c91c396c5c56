"""Layers: KANLinear, its place in existing models, convolutions and blocks made of it, layers whose functions have
parameters of their own, and tables for inference."""

from .attention import KANAttention
from .convolution import KANConv1d, KANConv2d, KANConv3d, KANConvTranspose1d, KANConvTranspose2d, KANConvTranspose3d
from .embedding import KANEmbedding
from .feed_forward import KANFeedForward
from .linear import KANLinear
from .own_parameters import RationalKANLayer, ReLUKANLayer, WavKANLayer
from .quantize import quantize
from .quantized import QuantizedKANLinear
from .replace import replace_linear
from .sequential import KANSequential

__all__ = [
    "KANAttention", "KANConv1d", "KANConv2d", "KANConv3d", "KANConvTranspose1d", "KANConvTranspose2d",
    "KANConvTranspose3d", "KANEmbedding", "KANFeedForward", "KANLinear", "KANSequential", "QuantizedKANLinear",
    "RationalKANLayer", "ReLUKANLayer", "WavKANLayer", "quantize", "replace_linear",
]  # fmt: skip
