"""The shape of a network: widths, arities of multiplication nodes, per-layer values, indices of edges.

Layer l = 0..depth has n_sum[l] summing and n_mult[l] multiplication nodes. A summing node has one subnode, a
multiplication node as many as its arity; edges of layer l lead from nodes of layer l to subnodes of layer l + 1.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...arguments import index, integer

if TYPE_CHECKING:
    from ..model import KAN


def check_edge(model: "KAN", l: int, i: int, j: int) -> None:
    """IndexError or TypeError unless there is an edge from node i of layer l to subnode j of layer l + 1."""
    index("l", l, model.depth)
    index("i", i, model.width_in[l])
    index("j", j, model.width_out[l + 1])


def edges_on(model: "KAN", l: int) -> Tensor:
    """Mask [I, O] of the edges of layer l that are on in either branch."""
    return torch.logical_or(model.act_fun[l].edge_mask, model.symbolic_fun[l].edge_mask.T)


def as_list(values: Any) -> Any:
    """A NumPy array or tensor as a list; anything else unchanged."""
    return values.tolist() if hasattr(values, "tolist") and getattr(values, "ndim", 0) else values


def parse_width(width: Sequence) -> list[list[int]]:
    """[2, [5, 1], 1] -> [[2, 0], [5, 1], [1, 0]]: [n_sum, n_mult] of every layer."""
    expected = "expected at least two layers, each an integer or [n_sum, n_mult], as in KAN([2, 5, 1])"
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


def parse_arity(mult_arity: Any, width: list[list[int]]) -> list[list[int]]:
    """The arity of every multiplication node of every layer, from one integer for all or a list of lists."""
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


def per_layer(name: str, value: Any, depth: int, low: int, high: float = math.inf) -> list[int]:
    """One integer for every layer of edges, from one for all or a list."""
    value = as_list(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != depth:
            raise ValueError(f"{name}={value!r}: expected an integer, or {depth} of them, one for each layer")
        return [integer(f"{name}[{layer}]", v, low, high) for layer, v in enumerate(value)]
    return [integer(name, value, low, high)] * depth


def common(values: list) -> Any:
    """The value if all are equal, else the list: the form of `grid` and `k`."""
    return values[0] if all(v == values[0] for v in values) else list(values)


def subnodes(n_sum: int, arities: list[int]) -> list[list[int]]:
    """The subnodes of every node of a layer: first of the summing nodes, then of each multiplication node."""
    groups, start = [[node] for node in range(n_sum)], n_sum
    for arity in arities:
        groups.append(list(range(start, start + arity)))
        start += arity
    return groups


def owners(groups: list[list[int]]) -> list[int]:
    """The node of every subnode of a layer; groups: the subnodes of every node."""
    return [node for node, group in enumerate(groups) for _ in group]


def node_values(x: Tensor, n_sum: int, arities: list[int]) -> Tensor:
    """Subnodes [N, n_sum + sum(arities)] -> nodes [N, n_sum + len(arities)]: sums are copied, products computed."""
    if not arities:
        return x
    first, arity = n_sum, arities[0]
    if all(a == arity for a in arities):
        factors = [x[:, first + n :: arity] for n in range(arity)]
    else:  # products with fewer factors are padded by a column of ones
        groups = subnodes(n_sum, arities)[n_sum:]
        columns = torch.tensor([g + [x.shape[1]] * (max(arities) - len(g)) for g in groups], device=x.device)
        factors = torch.cat([x, x.new_ones(x.shape[0], 1)], 1)[:, columns].unbind(2)
    product = factors[0]
    for factor in factors[1:]:
        product = product * factor
    return torch.cat([x[:, :n_sum], product], 1)
