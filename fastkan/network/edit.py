"""Changes to a network's shape and edges: remove, add or swap nodes, switch edges on or off.

All change the model in place. Layers whose number of nodes changes get new parameters: create the optimizer again.
"""

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor

from ..arguments import index, integer, number
from ..devices import exact
from ..nn.parametrized import not_own
from .layers.between import refuse_layer_norm
from .layers.shape import check_edge, owners
from .layers.symbolic import SymbolicLayer
from .scores.attribution import attribute

if TYPE_CHECKING:
    from .model import KAN


def positions(n: int, like: Tensor) -> Tensor:
    """Positions of the n nodes, or subnodes, of a layer in a drawing: evenly spaced on [0, 1], [n]."""
    return (torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) / n


def distances(ends: Tensor, starts: Tensor) -> Tensor:
    return (ends[:, None] - starts).abs()


@torch.no_grad()
def connection_cost(model: "KAN") -> Tensor:
    """Wiring cost: the sum over all edges of length times score.

    The length of an edge from node i of I to subnode o of O is |(i + 1/2) / I - (o + 1/2) / O|. Scores are those of
    the last attribute; without one, attribute runs on the data of get_act.
    """
    return wiring_cost(_edge_scores(model))


def wiring_cost(scores: Sequence[Tensor]) -> Tensor:
    """The sum over all edges of length times score; scores [O, I] for every layer."""
    costs = [(distances(positions(e.shape[0], e), positions(e.shape[1], e)) * e).sum() for e in scores]
    return reduce(torch.add, costs)


def auto_swap(model: "KAN") -> None:
    """Reorder the nodes of every hidden layer, from the first to the last, see auto_swap_l. The function stays."""
    for l in range(1, model.depth):
        auto_swap_l(model, l)


@torch.no_grad()
def auto_swap_l(model: "KAN", l: int) -> None:
    """Swap nodes of hidden layer l, each with the one that lowers connection_cost most, until no swap lowers it.

    Only nodes of one kind swap: summing nodes, or multiplication nodes of one arity. The function stays.
    """
    if index("l", l, model.depth) == 0:
        raise ValueError(f"l={l}: expected a hidden layer, 1 to {model.depth - 1}")
    scores = _edge_scores(model)
    groups = model.subnodes(l)
    order = list(range(len(groups)))
    n_sum = model.width[l][0]
    kinds = [0 if node < n_sum else len(group) for node, group in enumerate(groups)]
    for kind in set(kinds):
        nodes = [node for node in order if kinds[node] == kind]
        best = best_order(swap_costs(scores[l - 1], scores[l], nodes, [groups[node] for node in nodes]))
        for position, node in zip(nodes, [nodes[n] for n in best], strict=True):
            order[position] = node
    if order != sorted(order):
        rearrange(model, l, order)


def swap_costs(into: Tensor, out: Tensor, nodes: list[int], groups: list[list[int]]) -> Tensor:
    """cost[p, n]: wiring cost of the edges of nodes[n] if it were moved to the position of nodes[p].

    groups: the subnodes of each of the nodes. into [O, I]: scores of the edges to the layer's subnodes; out [O', nodes
    of the layer]: of the edges from its nodes.
    """
    here, there = positions(out.shape[1], out), positions(out.shape[0], out)
    cost = distances(here[nodes], there) @ out[:, nodes]
    here, there = positions(into.shape[0], into), positions(into.shape[1], into)
    for factors in zip(*groups, strict=True):  # the first subnode of every node, the second, ...
        chosen = list(factors)
        cost = cost + distances(here[chosen], there) @ into[chosen].T
    return exact(cost)


def best_order(cost: Tensor) -> list[int]:
    """The node in every position after the best swap for each position in turn, until no swap lowers the cost."""
    n = len(cost)
    order = torch.arange(n, device=cost.device)
    least = 1e-12 * cost.abs().sum()
    improved = True
    while improved:
        improved = False
        for position in range(n):
            node = order[position]
            every = torch.arange(n, device=cost.device)
            gain = cost[position, node] + cost[every, order] - cost[position, order] - cost[every, node]
            other = gain.argmax()
            if gain[other] > least:
                order[position], order[other] = order[other].clone(), node.clone()
                improved = True
    return order.tolist()


def _edge_scores(model: "KAN") -> list[Tensor]:
    """Scores of the edges, [O, I] for every layer."""
    if model.edge_scores is None:
        attribute(model)
    return cast(list[Tensor], model.edge_scores)


class New(NamedTuple):
    """A node to add: a summing one, or a multiplication node of this arity."""

    arity: int | None = None


@torch.no_grad()
def rearrange(model: "KAN", l: int, nodes: Sequence[int | New]) -> None:
    """Set the nodes of layer l, in this order, summing ones first: an index for an old node, New for a new one.

    Edges of new nodes are switched off, so that the function stays if all old nodes do.
    """
    if 0 < l < model.depth and sorted(map(str, nodes)) != sorted(map(str, range(model.width_in[l]))):
        refuse_layer_norm(model, "a change of the hidden nodes, whose mean and variance it would change")
    for layer in range(max(0, l - 1), min(l + 1, model.depth)):
        _check_own(model, layer)
    n_sum, groups = model.width[l][0], model.subnodes(l)
    arities = [node.arity if isinstance(node, New) else len(groups[node]) if node >= n_sum else None for node in nodes]
    old = [None if isinstance(node, New) else node for node in nodes]
    subnodes = []
    for node, arity in zip(old, arities, strict=True):
        subnodes += [None] * (arity or 1) if node is None else groups[node]
    if l < model.depth:
        _edges(model, l, old, list(range(model.width_out[l + 1])))
    if l > 0:
        _edges(model, l - 1, list(range(model.width_in[l - 1])), subnodes)
        for name, indices in (("node", old), ("subnode", subnodes)):
            _select(getattr(model, f"{name}_bias"), l - 1, indices, 0.0)
            _select(getattr(model, f"{name}_scale"), l - 1, indices, 1.0)
    else:
        model.input_id = model.input_id[torch.tensor(old, device=model.device)]
    model.mult_arity[l] = [arity for arity in arities if arity is not None]
    model.width[l] = [len(nodes) - len(model.mult_arity[l]), len(model.mult_arity[l])]
    model.forget()


def _edges(model: "KAN", l: int, inputs: list[int | None], outputs: list[int | None]) -> None:
    for layers in (model.act_fun, model.symbolic_fun):
        layers[l] = layers[l].rearranged(inputs, outputs).train(layers[l].training)


def _check_own(model: "KAN", l: int) -> None:
    """RuntimeError where a layer's parameters are computed from others (parametrizations), which new nodes lack."""
    for name in ("coef", "base_weight", "spline_scale"):
        if name not in model.act_fun[l].linear._parameters:
            raise not_own(f"act_fun[{l}].linear.{name}")
    if "affine" not in model.symbolic_fun[l]._parameters:
        raise not_own(f"symbolic_fun[{l}].affine")


def _select(parameters: torch.nn.ParameterList, l: int, indices: list[int | None], fill: float) -> None:
    """Replace parameters[l] by its elements at these indices, `fill` for None."""
    old = parameters[l]
    values = [old.new_tensor(fill) if n is None else old[n] for n in indices]
    parameters[l] = torch.nn.Parameter(torch.stack(values), requires_grad=old.requires_grad)


def expand_width(
    model: "KAN", layer_id: int, n_added_nodes: int, sum_bool: bool = True, mult_arity: int | list = 2
) -> None:
    """Add nodes to hidden layer layer_id: summing ones before the others, or multiplication nodes after them.

    The function stays, numeric edges included. mult_arity: of the added nodes, one for all or a list.
    """
    _check_hidden("layer_id", layer_id, model)
    count = integer("n_added_nodes", n_added_nodes, 1)
    old = list(range(model.width_in[layer_id]))
    if sum_bool:
        rearrange(model, layer_id, [New()] * count + old)
        return
    arities = list(mult_arity) if isinstance(mult_arity, list | tuple) else [mult_arity] * count
    if len(arities) != count:
        raise ValueError(f"mult_arity={mult_arity!r}: expected an integer or {count} of them, one for each added node")
    rearrange(model, layer_id, old + [New(integer("mult_arity", arity, 1)) for arity in arities])


@torch.no_grad()
def expand_depth(model: "KAN") -> None:
    """Add an identity layer after the last: symbolic edges x on the diagonal. The function stays.

    A disabled symbolic branch is enabled, with its previous edges switched off.
    """
    if model.layer_norm:
        raise ValueError("layer_norm=True: expected False for expand_depth, after which outputs would be normalised")
    last, size = model.act_fun[-1], model.width_in[-1]
    like = last.linear.coef
    numeric = last.another(size, size, sp_trainable=model.sp_trainable, sb_trainable=model.sb_trainable)
    numeric.mask.zero_()
    symbolic = SymbolicLayer(size, size, device=like.device, dtype=like.dtype)
    for node in range(size):
        symbolic.set_edge(node, node, "x")
    if not model.symbolic_enabled:
        for layer in model.symbolic_fun:
            layer.mask.zero_()
    model.act_fun.append(numeric)
    model.symbolic_fun.append(symbolic)
    for name in ("node", "subnode"):
        for part, fill in (("bias", 0.0), ("scale", 1.0)):
            value = torch.full((size,), fill, device=like.device, dtype=like.dtype)
            getattr(model, f"{name}_{part}").append(torch.nn.Parameter(value, requires_grad=model.affine_trainable))
    model.width.append([size, 0])
    model.mult_arity.append([])
    model.symbolic_enabled = True
    model.train(model.training)
    model.forget()


def swap(model: "KAN", l: int, i1: int, i2: int) -> None:
    """Exchange two nodes of hidden layer l with their edges and affine maps: the function stays.

    Both must be summing nodes, or both multiplication nodes.
    """
    _check_hidden("l", l, model)
    nodes = list(range(model.width_in[l]))
    i1, i2 = index("i1", i1, len(nodes)), index("i2", i2, len(nodes))
    if (i1 < model.width[l][0]) != (i2 < model.width[l][0]):
        raise ValueError(f"i1={i1}, i2={i2}: expected two nodes that sum or two that multiply")
    nodes[i1], nodes[i2] = i2, i1
    rearrange(model, l, nodes)


@torch.no_grad()
def set_mode(model: "KAN", l: int, i: int, j: int, mode: str, mask_n: float | None = None) -> None:
    """Set the branches of edge (l, i, j): "n" numeric, "s" symbolic, "ns" or "sn" both, "0" none.

    mask_n: the mask of the numeric branch in "ns", 1 by default.
    """
    check_edge(model, l, i, j)
    if mode not in ("n", "s", "ns", "sn", "0"):
        raise ValueError(f"mode={mode!r}: expected 'n', 's', 'ns', 'sn' or '0'")
    numeric = 1.0 if mask_n is None or mode == "n" else number("mask_n", mask_n)
    model.act_fun[l].mask[i, j] = numeric if "n" in mode else 0.0
    model.symbolic_fun[l].mask[j, i] = 1.0 if "s" in mode else 0.0


def remove_edge(model: "KAN", l: int, i: int, j: int) -> None:
    """Switch off the edge from node i of layer l to subnode j of layer l + 1, in both branches."""
    set_mode(model, l, i, j, "0")


@torch.no_grad()
def remove_node(model: "KAN", l: int, i: int, mode: str = "all") -> None:
    """Switch off the incoming ("down"), outgoing ("up") or "all" edges of node i of layer l.

    The node stays (prune_node removes it); with "down" its value is that of its affine maps at 0. With "down" and
    "all", pykan's i is a subnode; here it is the node with all its subnodes.
    """
    index("l", l, model.depth + 1)
    index("i", i, model.width_in[l])
    if mode not in ("all", "up", "down"):
        raise ValueError(f"mode={mode!r}: expected 'all', 'up' or 'down'")
    if mode != "down" and l < model.depth:
        model.act_fun[l].mask[i] = 0.0
        model.symbolic_fun[l].mask[:, i] = 0.0
    if mode != "up" and l > 0:
        subnodes = model.subnodes(l)[i]
        model.act_fun[l - 1].mask[:, subnodes] = 0.0
        model.symbolic_fun[l - 1].mask[subnodes] = 0.0


PERTURBED = {  # kinds of edges: source and target node active (a) or inactive (i), then the edge itself
    "all": ("aa_a", "aa_i", "ai", "ia", "ii"),
    "non-intrusive": ("ai", "ii"),
    "minimal": ("aa_a",),
}


@torch.no_grad()
def perturb(model: "KAN", mag: float = 1.0, mode: str = "non-intrusive") -> None:
    """Switch on the numeric branch of edges without one, with mask `mag`, so that training can use them.

    A node is active if it has an edge that is on, symbolic or numeric, in the layer. mode:
        "non-intrusive": edges into inactive nodes without outgoing edges, and in the last layer all edges, with
            scales 0: the function stays;
        "minimal": symbolic edges;
        "all".
    Numeric edges that are on stay as they are. (pykan's "non-intrusive" also switches on edges into inactive nodes with
    outgoing edges, which changes the function.)
    """
    if mode not in PERTURBED:
        raise ValueError(f"mode={mode!r}: expected one of {', '.join(map(repr, PERTURBED))}")
    mag = number("mag", mag)
    keeps_function = mode == "non-intrusive"
    edges = [_edges_on(model, l) for l in range(model.depth)]
    for l, numeric in enumerate(model.act_fun):
        on = numeric.edge_mask != 0
        source, target = edges[l].any(1)[:, None], edges[l].any(0)[None]
        kinds = {
            "aa_a": source & target & edges[l], "aa_i": source & target & ~edges[l],
            "ai": source & ~target, "ia": ~source & target, "ii": ~source & ~target,
        }  # fmt: skip
        chosen = torch.stack([kinds[kind] for kind in PERTURBED[mode]]).any(0) & ~on
        value = mag
        if keeps_function and l == model.depth - 1:
            chosen, value = ~on, 1.0
            numeric.scale_base = numeric.scale_base.masked_fill(chosen, 0.0)
            numeric.scale_sp = numeric.scale_sp.masked_fill(chosen, 0.0)
        elif keeps_function:
            is_read = edges[l + 1].any(1).tolist()
            nodes = owners(model.subnodes(l + 1))
            chosen &= torch.tensor([not is_read[node] for node in nodes], device=chosen.device)
        numeric.mask = numeric.edge_mask.masked_fill(chosen, value)


def _edges_on(model: "KAN", l: int) -> Tensor:
    """Mask [I, O] of the edges of layer l with a function, numeric or symbolic other than "0"."""
    numeric, symbolic = model.act_fun[l], model.symbolic_fun[l]
    named = torch.tensor([[name != "0" for name in row] for row in symbolic.funs_name], device=model.device).T
    return (numeric.edge_mask != 0) | (named & (symbolic.edge_mask.T != 0))


@torch.no_grad()
def module(model: "KAN", start_layer: int, chain: str) -> None:
    """Isolate a module of nodes: switch off all edges between it and the other nodes.

    chain: "[nodes]->[subnodes]->[nodes]->[subnodes]...": the module's nodes of layer start_layer and its subnodes of
    the next layer, then the same for the next layer, and so on, as in "[0,1]->[2,3]->[2,3]->[-1]". Negative numbers
    count from the end.
    """
    index("start_layer", start_layer, model.depth)
    groups = [_numbers(chain, part) for part in chain.split("->")]
    layers = list(range(start_layer, start_layer + len(groups) // 2))
    if len(groups) % 2 or layers[-1] >= model.depth:
        most = 2 * (model.depth - start_layer)
        raise ValueError(f"chain={chain!r}: expected pairs of groups, at most {most} groups from layer {start_layer}")
    masks = []
    for l, start, end in zip(layers, groups[::2], groups[1::2], strict=True):
        inside = [
            torch.zeros(n, dtype=torch.bool, device=model.device) for n in (model.width_in[l], model.width_out[l + 1])
        ]
        for group, part in zip((start, end), inside, strict=True):
            for i in group:
                part[index("chain", i + len(part) if i < 0 else i, len(part))] = True
        masks.append(inside[0][:, None] == inside[1])  # I O
    for l, mask in zip(layers, masks, strict=True):
        model.act_fun[l].mask *= mask
        model.symbolic_fun[l].mask *= mask.T
    model.forget()


def _numbers(chain: str, part: str) -> list[int]:
    part = part.strip()
    try:
        if part[:1] == "[" and part[-1:] == "]":
            return [int(number) for number in part[1:-1].split(",")]
    except ValueError:
        pass
    raise ValueError(f"chain={chain!r} has {part!r}: expected groups like '[0,1]', joined by '->'")


def _check_hidden(name: str, l: int, model: "KAN") -> None:
    if index(name, l, model.depth + 1) in (0, model.depth):
        raise ValueError(f"{name}={l}: expected a hidden layer, 1 to {model.depth - 1}")
