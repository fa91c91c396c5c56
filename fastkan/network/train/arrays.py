"""Tensors from what people have: tensors, NumPy arrays, pandas' frames and series, lists of numbers."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def is_data(value: Any) -> bool:
    """Whether value holds numbers or labels: a tensor, an array, a frame, a series, or a list of numbers or texts."""
    if isinstance(value, list):
        first = value[0] if value else None
        return isinstance(first, bool | int | float | str) or (isinstance(first, list) and is_data(first))
    return isinstance(value, Tensor) or hasattr(value, "__array__")


def tensor(name: str, value: Any, dtype: torch.dtype) -> Tensor:
    """value as a tensor; numbers that are not in a tensor become dtype. TypeError for text, and for no data."""
    if isinstance(value, Tensor):
        return value
    if not is_data(value):
        raise TypeError(f"{name} is a {type(value).__name__}: expected a tensor, a NumPy array or a DataFrame")
    if hasattr(value, "__array__"):
        import numpy as np  # there, since value is its array or is made of some

        array = np.asarray(value)
        if array.dtype.kind == "O":
            try:
                array = array.astype(np.float64)
            except (TypeError, ValueError):
                pass
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name} has {_texts(value)}: expected numbers")
        value = torch.from_numpy(np.array(array, dtype=np.float64))
    try:
        return torch.as_tensor(value, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected numbers, in lists of equal lengths ({error})") from None


def _texts(value: Any) -> str:
    """What is not a number in an array or a frame."""
    if hasattr(value, "columns"):
        texts = [name for name in value.columns if getattr(value[name].dtype, "kind", "O") not in "biuf"]
        return f"no numbers in column {texts[0]!r}" if texts else "cells that are no numbers"
    return f"cells of {getattr(value, 'dtype', type(value).__name__)}"


def is_text(value: Any) -> bool:
    """Whether value, of is_data, holds texts or other objects: names of classes."""
    if isinstance(value, Tensor):
        return False
    if isinstance(value, list):
        return any(isinstance(entry, str) for entry in value)
    return getattr(getattr(value, "dtype", None), "kind", "f") not in "biuf"  # a frame's labels are numbers


def is_whole(value: Any) -> bool:
    """Whether value, of is_data, holds whole numbers or truth values by its type."""
    if isinstance(value, Tensor):
        return not (value.is_floating_point() or value.is_complex())
    if isinstance(value, list):
        return all(isinstance(entry, bool | int) for entry in value)
    return getattr(getattr(value, "dtype", None), "kind", "f") in "biu"


def entries(value: Any) -> list:
    """The labels [N] or [N, 1] of is_data, as Python's objects."""
    listed: Iterable = value if isinstance(value, list) else value.tolist()
    return [entry[0] if isinstance(entry, list) and len(entry) == 1 else entry for entry in listed]


def columns(value: Any) -> int:
    """Number of dimensions of value, of is_data."""
    return 1 + isinstance(value[0], list) if isinstance(value, list) else value.ndim
