"""The shape of a network: widths, arities of multiplication nodes, values that may differ from layer to layer.

Layer l = 0..depth has n_sum[l] nodes that sum and n_mult[l] that multiply. A summing node has one subnode, a
multiplying one has as many as its arity; edges of layer l lead from nodes of layer l to subnodes of layer l + 1.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...arguments import integer


def as_list(values):
    """The list that an array of NumPy or a tensor stands for, or what else it is."""
    return values.tolist() if hasattr(values, "tolist") and getattr(values, "ndim", 0) else values


def parse_width(width: Sequence) -> list[list[int]]:
    """[2, [5, 1], 1] -> [[2, 0], [5, 1], [1, 0]]: the numbers of summing and of multiplying nodes of every layer."""
    expected = "expected at least two layers, each an integer or [n_sum, n_mult]"
    width = as_list(width)
    if isinstance(width, str | bytes) or not isinstance(width, Sequence) or len(width) < 2:
        raise ValueError(f"width={width!r}: {expected}")
    parsed = []
    for layer, entry in enumerate(map(as_list, width)):
        name = f"width[{layer}]"
        if isinstance(entry, Sequence) and not isinstance(entry, str):
            if len(entry) != 2:
                raise ValueError(f"{name}={entry!r}: expected an integer or [n_sum, n_mult]")
            pair = [integer(f"{name}[{part}]", entry[part], 0) for part in (0, 1)]
        else:
            pair = [integer(name, entry, 1), 0]
        if sum(pair) < 1:
            raise ValueError(f"{name}={entry!r}: expected at least one node")
        parsed.append(pair)
    if parsed[0][1]:
        raise ValueError(f"width[0]={width[0]!r}: expected no multiplication nodes among the inputs")
    return parsed


def parse_arity(mult_arity, width: list[list[int]]) -> list[list[int]]:
    """The arity of every multiplication node of every layer, from one integer for all or from a list of lists."""
    mult_arity = as_list(mult_arity)
    if not isinstance(mult_arity, Sequence) or isinstance(mult_arity, str):
        arity = integer("mult_arity", mult_arity, 1)
        return [[arity] * n_mult for _, n_mult in width]
    if len(mult_arity) != len(width):
        raise ValueError(
            f"mult_arity={mult_arity!r}: expected an integer, or {len(width)} lists, one for each entry of width"
        )
    parsed = []
    for layer, (arities, (_, n_mult)) in enumerate(zip(map(as_list, mult_arity), width, strict=True)):
        name = f"mult_arity[{layer}]"
        if not isinstance(arities, Sequence) or len(arities) != n_mult:
            raise ValueError(f"{name}={arities!r}: expected {n_mult} arities, one for each multiplication node")
        parsed.append([integer(f"{name}[{node}]", arity, 1) for node, arity in enumerate(arities)])
    return parsed


def per_layer(name: str, value, depth: int, low: int, high: float = math.inf) -> list[int]:
    """One integer for every layer of edges, from one for all or from a list."""
    value = as_list(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != depth:
            raise ValueError(f"{name}={value!r}: expected an integer, or {depth} of them, one for each layer")
        return [integer(f"{name}[{layer}]", v, low, high) for layer, v in enumerate(value)]
    return [integer(name, value, low, high)] * depth


def common(values: list):
    """The value that all share, or the list: how `grid` and `k` are shown."""
    return values[0] if all(v == values[0] for v in values) else list(values)


def subnodes(n_sum: int, arities: list[int]) -> list[list[int]]:
    """The subnodes of every node of a layer: the summing nodes' first, then those of each multiplication node."""
    groups, start = [[node] for node in range(n_sum)], n_sum
    for arity in arities:
        groups.append(list(range(start, start + arity)))
        start += arity
    return groups


def node_values(x: Tensor, n_sum: int, arities: list[int]) -> Tensor:
    """Subnodes [N, n_sum + sum(arities)] -> nodes [N, n_sum + len(arities)]: sums pass, products are taken."""
    if not arities:
        return x
    first, arity = n_sum, arities[0]
    if all(a == arity for a in arities):
        factors = [x[:, first + n :: arity] for n in range(arity)]
    else:  # a column of ones stands in where a product has fewer factors than the longest
        groups = subnodes(n_sum, arities)[n_sum:]
        columns = torch.tensor([g + [x.shape[1]] * (max(arities) - len(g)) for g in groups], device=x.device)
        factors = torch.cat([x, x.new_ones(x.shape[0], 1)], 1)[:, columns].unbind(2)
    product = factors[0]
    for factor in factors[1:]:
        product = product * factor
    return torch.cat([x[:, :n_sum], product], 1)
