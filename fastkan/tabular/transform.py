"""Transforms of a target that is spread over orders of magnitude: log, or asinh for numbers of both signs.

asinh(y / unit) is about y / unit near 0 and the logarithm of 2 |y| / unit, with the sign of y, far from it.

Source: Box and Cox, An analysis of transformations (1964), for the choice (see skew.py).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Transform(NamedTuple):
    """forward and inverse of numbers over the unit; log_slope: the logarithm of the derivative of forward; of SymPy
    expressions the inverse; how it is written for a name and a unit."""

    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    log_slope: Callable[[Tensor], Tensor]
    symbolic_inverse: Callable[[Any, Any], Any]
    written: Callable[[str, float], str]


TRANSFORMS = {
    "log": Transform(
        torch.log, torch.exp, lambda y: -y.log(), lambda sympy, z: sympy.exp(z), lambda name, unit: f"log({name})"
    ),
    "asinh": Transform(
        torch.asinh,
        torch.sinh,
        lambda y: -0.5 * (1 + y.square()).log(),
        lambda sympy, z: sympy.sinh(z),
        lambda name, unit: f"asinh({name})" if unit == 1 else f"asinh({name}/{unit:g})",
    ),
}
