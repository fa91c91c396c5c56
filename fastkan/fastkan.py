"""fast-kan's names under its module name, for its scripts and its pickled models."""

from .compat.fast_kan import (
    AttentionWithFastKANTransform,
    FastKAN,
    FastKANLayer,
    RadialBasisFunction,
    SplineLinear,
)

__all__ = ["AttentionWithFastKANTransform", "FastKAN", "FastKANLayer", "RadialBasisFunction", "SplineLinear"]
