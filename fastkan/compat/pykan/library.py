"""SYMBOLIC_LIB: fastkan's library of functions, read and written in pykan's form."""

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import replace

import torch

from ...network.layers import library
from ...network.layers.library import SymbolicFunction


class Library(MutableMapping):
    """name -> (function of a tensor, of a SymPy expression, complexity, (x, y_th) -> (..., value)); not a copy."""

    def __getitem__(self, name: str) -> tuple[Callable, Callable, float, Callable]:
        found = library.SYMBOLIC_LIB[name]
        return found.torch_fn, found.sympy_fn, found.complexity, avoiding(found)

    def __setitem__(self, name: str, entry: tuple) -> None:
        fun, form, complexity, singular = entry
        added = library.add_symbolic(name, fun, complexity, singular)
        library.SYMBOLIC_LIB[name] = replace(added, sympy_fn=form)

    def __delitem__(self, name: str) -> None:
        del library.SYMBOLIC_LIB[name]

    def __iter__(self) -> Iterator[str]:
        return iter(library.SYMBOLIC_LIB)

    def __len__(self) -> int:
        return len(library.SYMBOLIC_LIB)

    def __repr__(self) -> str:
        return f"SYMBOLIC_LIB({', '.join(self)})"


def avoiding(function: SymbolicFunction) -> Callable:
    """The form without singularities as pykan's, which gives a tuple whose last member is the value."""

    def form(x, y_th):
        return (), function.singular_torch_fn(x, float(y_th) if isinstance(y_th, torch.Tensor) else y_th)

    return form


SYMBOLIC_LIB = Library()
