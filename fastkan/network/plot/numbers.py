"""Numbers of a plot: the range of a curve, and digits relative to a range rather than to a number's size.

A function may be 1000 + 0.001 sin x. With a fixed number of digits its curve is a staircase, and its ends look equal.
"""

import math

import torch
from torch import Tensor

LEVELS = 100  # steps of the model's type in the range of a curve; with fewer the steps would be seen
DIGITS = 4  # of a curve's range that are kept in files: a ten thousandth is less than a pixel


def bounds(y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The range of the finite values of each curve, [E, 1] each: y [E, P], computed in a type of this eps.

    Equal where a curve is constant up to rounding: its range has fewer than LEVELS steps of the type.
    """
    finite = y.isfinite()
    low = torch.where(finite, y, torch.inf).amin(1, keepdim=True).nan_to_num(posinf=0.0)
    high = torch.where(finite, y, -torch.inf).amax(1, keepdim=True).nan_to_num(neginf=0.0)
    constant = high - low <= LEVELS * eps * torch.maximum(low.abs(), high.abs()) + 1e-30
    middle = low + (high - low) / 2
    return torch.where(constant, middle, low), torch.where(constant, middle, high)


def heights(y: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Values as shares of the range from low to high, 0 to 1; 0.5 where it is empty, NaN where y is not finite."""
    share = torch.where(high > low, (y - low) / (high - low).clamp_min(1e-300), 0.5)
    return share.where(y.isfinite(), torch.nan)


def rounded(values: list[float], low: float, high: float) -> list[float | None]:
    """Values with DIGITS digits of the range from low to high, five digits where it is empty; None if not finite."""
    span = high - low
    if not 0.0 < span < math.inf:
        return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]
    places = DIGITS - math.floor(math.log10(span))
    return [round(value, places) if math.isfinite(value) else None for value in values]


def ends(low: float, high: float) -> tuple[str, str]:
    """Both ends of a range with the fewest digits, two to six, that place each to a tenth of it.

    Where six don't, the second is the distance from the first: 1000, +1e-5.
    """
    for digits in range(2, 7):
        near = [float(f"{value:.{digits}g}") for value in (low, high)]
        if abs(near[0] - low) <= 0.1 * (high - low) >= abs(near[1] - high) or low == high:
            return short(near[0]), short(near[1])
    return short(low), f"+{short(high - low, 2)}"


def digits(size: float, span: float) -> int:
    """How many digits, 3 to 15, a number of this size needs to be known to a thousandth of a range."""
    if not 0.0 < span < abs(size) < math.inf:
        return 3
    return min(15, 3 + math.ceil(math.log10(abs(size) / span)))


def short(value: float, digits: int = 6) -> str:
    """A number with up to so many digits: 460, 0.046, 4.6e-5."""
    near = float(f"{value:.{digits}g}")
    if 0.0 < abs(near) < 1e-3:
        mantissa, exponent = f"{near:.{digits - 1}e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{near:g}".replace("e+0", "e").replace("e+", "e")
