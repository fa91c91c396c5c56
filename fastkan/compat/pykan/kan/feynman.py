"""kan.feynman: the 120 equations of the Feynman Symbolic Regression Database."""

import contextlib

import torch

with contextlib.suppress(ImportError):
    from sympy import *  # pyright: ignore[reportWildcardImportFromLibrary]  # as in pykan

from ....science import get_feynman_dataset
