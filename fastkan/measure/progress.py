"""Progress bars, if tqdm is installed."""

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def bar(items: Iterable[T], label: str) -> Iterable[T]:
    """Iterate over the items with a progress bar on standard error."""
    try:
        from tqdm import tqdm
    except ImportError:
        _say_once()
        return items
    return tqdm(items, desc=label, leave=False, dynamic_ncols=True)


@contextmanager
def steps(count: int, shown: bool = True) -> Iterator[Callable[..., None]]:
    """Yields a function to call at the start of each of about `count` steps with its name, which updates a bar."""
    shown = shown and sys.stderr.isatty()
    try:
        from tqdm import tqdm
    except ImportError:
        tqdm = None
        if shown:
            _say_once()
    if tqdm is None or not shown:
        yield lambda name, forward=1: None
        return
    with tqdm(total=count, leave=False, dynamic_ncols=True, bar_format="{percentage:3.0f}%|{bar}| {desc}") as line:

        def step(name: str, forward: int = 1) -> None:
            line.update(min(forward, line.total - line.n))
            line.set_description_str(name)

        yield step


@functools.cache
def _say_once() -> None:
    print("No progress bars without tqdm: pip install tqdm", file=sys.stderr)
