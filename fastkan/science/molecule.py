"""get_molecule: which variables combine first, and which of these combinations then; a tree of symmetries.

A set of variables is a symmetry if no other variable turns the gradient by it. The smallest one around two variables is
found by taking in whatever turns the gradient by two of its members, until nothing does. Unions of symmetries that
overlap are symmetries, functions of a sum of functions of their parts. So what is left of those that overlap none is a
tree, whatever the order of the variables.

Source: Liu et al., KAN 2.0 (arXiv 2408.10205), section 4.3; Gorman, The structure of utility functions (Review of
Economic Studies 1968), for overlapping symmetries.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

from torch import Tensor

from ..arguments import number
from .derivatives import check_points
from .resampling import Exchange
from .separability import test_general_separability, test_separability
from .symmetry import dependences

Molecules = list[list[list[int]]]


def get_molecule(
    model: Callable[[Tensor], Tensor], x: Tensor, sym_th: float = 5e-2, verbose: bool = False
) -> Molecules:
    """How variables are combined, level by level.

    Args:
        model: of one output, x [N, n] -> [N, 1]; x: data, as the model is used.
        sym_th: a variable depends on another one's value from this symmetry score on.
        verbose: print the symmetries.

    Returns a list of levels. The first has every variable alone, the last all together; a level has lists of variables,
    each made of some of the level before, which stand side by side in it.
    """
    exchange = Exchange(model, x)
    threshold = number("sym_th", sym_th, 0.0)
    splits = dependences(exchange) >= threshold  # a b k: does k turn the gradient by a and b
    inputs = exchange.inputs
    family = {_closure(pair, splits, inputs) for pair in combinations(range(inputs), 2)}
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
    """Of how many parts every molecule is made, and how.

    Args:
        model, x: as in get_molecule, which gives moleculess.
        sep_th: threshold of test_general_separability; a tenth of it is that of test_separability, whose scores come
            from values of the model and not from slopes, of which its errors are larger.
        skip_test: leave out how.

    Returns arities and properties for all levels but the first: "Id" of one part, handed on; "GS" (generally separable)
    of a function of a sum of functions of its parts; at the last level "Add" or "Mul" for a sum or a product; else "".
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


def _closure(start: Sequence[int], splits: Tensor, inputs: int) -> frozenset[int]:
    """The smallest symmetry around some variables."""
    group = list(start)
    for known, member in enumerate(group):  # which grows
        for other in group[:known]:
            group += [k for k in range(inputs) if k not in group and bool(splits[member, other, k])]
    return frozenset(group)


def _laminar(family: set[frozenset[int]]) -> set[frozenset[int]]:
    """Sets that overlap one another, directly or through others, as their union: then none overlap."""
    chains: list[set[frozenset[int]]] = []
    for group in family:
        near = [chain for chain in chains if any(group & other and group - other and other - group for other in chain)]
        chains = [chain for chain in chains if chain not in near] + [{group}.union(*near)]
    unions = {frozenset().union(*chain) for chain in chains}
    return unions if len(chains) == len(family) else _laminar(unions)


def _levels(family: set[frozenset[int]]) -> Molecules:
    """The levels of the tree: at level l the largest sets of height l at most, in the order of the tree."""
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
    """The variables of a set, those of every part side by side."""
    inside = [part for part in family if part < group]
    parts = sorted((part for part in inside if not any(part < other for other in inside)), key=min)
    return [variable for part in parts for variable in _order(part, family)] if parts else list(group)
