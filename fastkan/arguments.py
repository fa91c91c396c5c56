"""Argument validation: errors name the argument, its value and what was expected."""

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor


def integer(name: str, value: Any, low: int, high: float = math.inf) -> int:
    """value as an int from `low` to `high`; TypeError or ValueError."""
    expected = f"an integer, at least {low}" if high == math.inf else f"an integer from {low} to {high}"
    if isinstance(value, bool) or not hasattr(value, "__index__") or getattr(value, "ndim", 0):
        raise TypeError(f"{name}={value!r}: expected {expected}")
    if not low <= value.__index__() <= high:
        raise ValueError(f"{name}={value!r}: expected {expected}")
    return value.__index__()


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """value as a finite float from `low` to `high`; TypeError or ValueError."""
    expected = "a finite number" + (f", at least {low}" if low > -math.inf else "")
    expected += f" and at most {high}" if high < math.inf else ""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"{name}={value!r}: expected {expected}")
    if not (math.isfinite(float(value)) and low <= float(value) <= high):
        raise ValueError(f"{name}={value!r}: expected {expected}")
    return float(value)


def index(name: str, value: Any, count: int) -> int:
    """value as an index from 0 to count - 1; TypeError or IndexError."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}={value!r}: expected an integer from 0 to {count - 1}")
    if not 0 <= value.__index__() < count:
        raise IndexError(f"{name}={value!r}: expected an integer from 0 to {count - 1}")
    return value.__index__()


def indices(name: str, values: Tensor | Iterable[int], count: int) -> list[int]:
    """values as different indices from 0 to count - 1."""
    values = values.tolist() if isinstance(values, Tensor) else list(values)
    checked = [index(f"{name}[{n}]", value, count) for n, value in enumerate(values)]
    if len(set(checked)) != len(checked):
        raise ValueError(f"{name}={values!r}: expected different indices")
    return checked


def ascending(name: str, value: Any) -> tuple[float, float]:
    """value as two ascending floats; TypeError or ValueError."""
    try:
        low, high = value
    except (TypeError, ValueError):
        raise TypeError(f"{name}={value!r}: expected two numbers, ascending") from None
    low, high = number(f"{name}[0]", low), number(f"{name}[1]", high)
    if not low < high:
        raise ValueError(f"{name}={value!r}: expected two numbers, ascending")
    return low, high
