"""Progress bars, if tqdm is there."""

import functools
import sys
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def bar(items: Iterable[T], label: str) -> Iterable[T]:
    """The items, with a bar on standard error while they are gone through."""
    try:
        from tqdm import tqdm
    except ImportError:
        _say_once()
        return items
    return tqdm(items, desc=label, leave=False, dynamic_ncols=True)


@functools.cache
def _say_once() -> None:
    print("No progress bars without tqdm: pip install fastkan[demo]", file=sys.stderr)
