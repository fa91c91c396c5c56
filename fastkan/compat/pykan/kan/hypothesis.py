"""kan.hypothesis: separability, symmetry and the tree of a function, by fastkan.science.

The tests use pykan's method, medians of derivatives at single rows (local=True in fastkan.science), and its thresholds.
The tree is fastkan.science's, whose thresholds are between 0 and 1.
"""

import contextlib
from collections.abc import Callable, Sequence

from torch import Tensor

with contextlib.suppress(ImportError):
    import numpy as np
with contextlib.suppress(ImportError):
    import matplotlib.pyplot as plt
with contextlib.suppress(ImportError):
    import sympy

from .... import science
from ....science import batch_hessian, batch_jacobian, get_dependence, get_molecule, get_tree_node, test_symmetry_var
from ....science.symmetry import batch_grad_normgrad
from ..side_effects import on_pyplot

Function = Callable[[Tensor], Tensor]


def detect_separability(
    model: Function, x: Tensor, mode: str = "add", score_th: float = 1e-2, res_th: float = 1e-2,
    n_clusters: int | Sequence[int] | None = None, bias: float = 0.0, verbose: bool = False,
) -> dict:  # fmt: skip
    """fastkan.science.detect_separability; prints the result."""
    result = science.detect_separability(model, x, mode, score_th, res_th, n_clusters, bias, verbose, local=True)
    print(f"{mode} separability {'' if result['n_groups'] > 1 else 'not '}detected")
    return result


def test_separability(
    model: Function, x: Tensor, groups: Sequence[Sequence[int]], mode: str = "add", threshold: float = 1e-2,
    bias: float = 0.0,
) -> bool:  # fmt: skip
    """fastkan.science.test_separability."""
    return science.test_separability(model, x, groups, mode, threshold, bias, local=True)


def test_general_separability(
    model: Function, x: Tensor, groups: Sequence[Sequence[int]], threshold: float = 1e-2
) -> bool:
    """fastkan.science.test_general_separability."""
    return science.test_general_separability(model, x, groups, threshold, local=True)


def test_symmetry(model: Function, x: Tensor, group: Sequence[int], dependence_th: float = 1e-3) -> bool:
    """fastkan.science.test_symmetry."""
    return science.test_symmetry(model, x, group, dependence_th, local=True)


def plot_tree(
    model: Function, x: Tensor, in_var: Sequence | None = None, style: str = "tree", sym_th: float = 5e-2,
    sep_th: float = 1e-1, skip_sep_test: bool = False, verbose: bool = False,
):  # fmt: skip
    """fastkan.science.plot_tree on a new pyplot figure."""
    return on_pyplot(science.plot_tree(model, x, in_var, style, sym_th, sep_th, skip_sep_test, verbose))
