"""get_molecule: the hierarchy in which variables combine, as a tree of symmetries.

A set of variables is a symmetry if no other variable rotates the gradient by it. The smallest one that contains two
variables is their closure under adding any variable that rotates the gradient by two members. Unions of overlapping
symmetries are symmetries, functions of a sum of functions of their parts. Merging them leaves nested or disjoint sets,
a tree that does not depend on the order of the variables.

Source: Liu et al., KAN 2.0 (arXiv 2408.10205), section 4.3; Gorman, The structure of utility functions (Review of
Economic Studies 1968), for overlapping symmetries.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

from torch import Tensor

from ..arguments import number
from .derivatives import check_points
from .resampling import Resampled
from .separability import test_general_separability, test_separability
from .symmetry import dependences

Molecules = list[list[list[int]]]


def get_molecule(
    model: Callable[[Tensor], Tensor], x: Tensor, sym_th: float = 5e-2, verbose: bool = False
) -> Molecules:
    """The groups in which variables combine, level by level.

    Args:
        model: a function with one output, x [N, n] -> [N, 1]; x: representative data.
        sym_th: the symmetry score from which a variable rotates the gradient by others.
        verbose: print the symmetries.

    Returns a list of levels, each a list of groups of variables: in the first every variable alone, in the last all
    together. A group consists of adjacent groups of the previous level.
    """
    resampled = Resampled(model, x)
    threshold = number("sym_th", sym_th, 0.0)
    rotates = dependences(resampled) >= threshold  # a b k: whether k rotates the gradient by a and b
    inputs = resampled.inputs
    family = {_closure(pair, rotates, inputs) for pair in combinations(range(inputs), 2)}
    family = _laminar(family | {frozenset([i]) for i in range(inputs)} | {frozenset(range(inputs))})
    if verbose:
        print("symmetries:", sorted(map(sorted, family), key=lambda group: (len(group), group)))
    return _levels(family)


def get_tree_node(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    moleculess: Molecules,
    sep_th: float = 1e-1,
    skip_test: bool = True,
) -> tuple[list[list[int]], list[list[str]]]:
    """The number of parts of every molecule, and how they combine.

    Args:
        model, x: as in get_molecule, which returns moleculess.
        sep_th: threshold of test_general_separability; test_separability uses a tenth of it, since its scores come from
            values of the model, whose errors are smaller than those of derivatives.
        skip_test: do not test how parts combine.

    Returns arities and properties for all levels but the first: "Id" for a single part; "GS" (generally separable) for
    a function of a sum of functions of the parts; in the last level "Add" or "Mul" for a sum or product; else "".
    """
    check_points(x)
    arities, properties = [], []
    for below, level in zip(moleculess, moleculess[1:], strict=False):
        parts = [[part for part in below if set(part) <= set(molecule)] for molecule in level]
        arities.append([len(groups) for groups in parts])
        last = level is moleculess[-1]
        properties.append([_property(model, x, groups, sep_th, skip_test, last) for groups in parts])
    return arities, properties


def _property(model: Callable, x: Tensor, groups: list[list[int]], sep_th: float, skip_test: bool, last: bool) -> str:
    if len(groups) == 1:
        return "Id"
    if skip_test:
        return ""
    for mode, name in (("mul", "Mul"), ("add", "Add")) if last else ():
        if test_separability(model, x, groups, mode, 0.1 * sep_th):
            return name
    return "GS" if test_general_separability(model, x, groups, sep_th) else ""


def _closure(start: Sequence[int], rotates: Tensor, inputs: int) -> frozenset[int]:
    """The smallest symmetry that contains these variables."""
    group = list(start)
    for known, member in enumerate(group):  # group grows meanwhile
        for other in group[:known]:
            group += [k for k in range(inputs) if k not in group and bool(rotates[member, other, k])]
    return frozenset(group)


def _laminar(family: set[frozenset[int]]) -> set[frozenset[int]]:
    """Replace sets that overlap, directly or through others, by their union, until all are nested or disjoint."""
    chains: list[set[frozenset[int]]] = []
    for group in family:
        near = [chain for chain in chains if any(group & other and group - other and other - group for other in chain)]
        chains = [chain for chain in chains if chain not in near] + [{group}.union(*near)]
    unions = {frozenset().union(*chain) for chain in chains}
    return unions if len(chains) == len(family) else _laminar(unions)


def _levels(family: set[frozenset[int]]) -> Molecules:
    """The levels of the tree: level l has the largest sets of height at most l, in the order of the tree."""
    heights: dict[frozenset[int], int] = {}
    for group in sorted(family, key=len):
        heights[group] = 1 + max((heights[part] for part in heights if part < group), default=-1)
    root = max(family, key=len)
    levels = []
    for level in range(max(1, heights[root]) + 1):
        low = [group for group in family if heights[group] <= level]
        largest = [group for group in low if not any(group < other for other in low)]
        levels.append(largest)
    order = _order(root, family)
    place = {variable: n for n, variable in enumerate(order)}
    key = place.__getitem__
    return [sorted((sorted(group, key=key) for group in level), key=lambda group: key(group[0])) for level in levels]


def _order(group: frozenset[int], family: set[frozenset[int]]) -> list[int]:
    """The variables of a set, with those of every part adjacent."""
    inside = [part for part in family if part < group]
    parts = sorted((part for part in inside if not any(part < other for other in inside)), key=min)
    return [variable for part in parts for variable in _order(part, family)] if parts else list(group)
