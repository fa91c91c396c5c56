"""SYMBOLIC_LIB: a view of fastkan's library of symbolic functions, with entries in pykan's format."""

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import replace

import torch

from ...network.layers import library
from ...network.layers.library import SymbolicFunction


class Library(MutableMapping):
    """name -> (function of a tensor, of a SymPy expression, complexity, (x, y_th) -> (..., value)); a view."""

    def __getitem__(self, name: str) -> tuple[Callable, Callable, float, Callable]:
        function = library.SYMBOLIC_LIB[name]
        return function.torch_fn, function.sympy_fn, function.complexity, bounded(function)

    def __setitem__(self, name: str, entry: tuple) -> None:
        torch_fn, sympy_fn, complexity, singular = entry
        function = library.add_symbolic(name, torch_fn, complexity, singular)
        library.SYMBOLIC_LIB[name] = replace(function, sympy_fn=sympy_fn)

    def __delitem__(self, name: str) -> None:
        del library.SYMBOLIC_LIB[name]

    def __iter__(self) -> Iterator[str]:
        return iter(library.SYMBOLIC_LIB)

    def __len__(self) -> int:
        return len(library.SYMBOLIC_LIB)

    def __repr__(self) -> str:
        return f"SYMBOLIC_LIB({', '.join(self)})"


def bounded(function: SymbolicFunction) -> Callable:
    """The function without singularities in pykan's format: (x, y_th) -> a tuple that ends with the value."""

    def evaluate(x: torch.Tensor, y_th: float | torch.Tensor) -> tuple:
        return (), function.singular_torch_fn(x, float(y_th) if isinstance(y_th, torch.Tensor) else y_th)

    return evaluate


SYMBOLIC_LIB = Library()
