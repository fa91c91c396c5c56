"""Progress bars, if tqdm is installed, and a line with the present stage."""

import functools
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
SECONDS = 15.0  # between lines, where the output is no terminal


def bar(items: Iterable[T], label: str) -> Iterable[T]:
    """Iterate over the items with a progress bar on standard error."""
    try:
        from tqdm import tqdm
    except ImportError:
        _say_once()
        return items
    return tqdm(items, desc=label, leave=False, dynamic_ncols=True)


@contextmanager
def stages(shown: bool = True) -> Iterator[Callable[[str], None]]:
    """Yields a function to call with the name of each stage as it starts.

    On a terminal it updates a line on standard error with the seconds so far; elsewhere it prints the first stage, and
    another one only when SECONDS have passed since.
    """
    start, terminal, last = time.monotonic(), sys.stderr.isatty(), -math.inf

    def stage(name: str) -> None:
        nonlocal last
        seconds = time.monotonic() - start
        if terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{f'{seconds:4.0f} s  {name}'[:width]:{width}}", end="", file=sys.stderr, flush=True)
        elif seconds - last >= SECONDS:
            print(f"{seconds:4.0f} s  {name}", file=sys.stderr, flush=True)
            last = seconds

    if not shown:
        yield lambda name: None
        return
    try:
        yield stage
    finally:
        if terminal:
            print(f"\r{'':{shutil.get_terminal_size().columns - 1}}\r", end="", file=sys.stderr, flush=True)


@functools.cache
def _say_once() -> None:
    print("No progress bars without tqdm: pip install tqdm", file=sys.stderr)
