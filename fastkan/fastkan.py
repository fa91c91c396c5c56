"""The module that fast-kan's names live in there, for its scripts and for its models that were saved whole."""

from .compat.fast_kan import (
    AttentionWithFastKANTransform,
    FastKAN,
    FastKANLayer,
    RadialBasisFunction,
    SplineLinear,
)

__all__ = ["AttentionWithFastKANTransform", "FastKAN", "FastKANLayer", "RadialBasisFunction", "SplineLinear"]
