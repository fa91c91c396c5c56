"""What a diagram shows of a large network: the strongest edges of each layer, and the nodes they join."""

from typing import TYPE_CHECKING, NamedTuple

from .edge_data import Edges
from .layout import Shape

if TYPE_CHECKING:
    from ..model import KAN


MAX_EDGES = 70  # of a layer: boxes of 0.3 inches in three rows of 10 inches
MIN_OPACITY = 0.35  # of an edge or node: 2.4 to 1 in contrast, black on white


class Selection(NamedTuple):
    """The edges and nodes that are drawn. Edges and subnodes count the drawn nodes only.

    nodes: of each layer, by index; sums: how many of them are sums; groups: the subnodes of each of them.
    totals: the number of edges of each layer that are on, and of nodes.
    """

    edges: list[Edges]
    nodes: list[list[int]]
    sums: list[int]
    groups: list[list[list[int]]]
    totals: tuple[list[int], list[int]]

    def shape(self) -> Shape:
        subnodes = [sum(map(len, groups)) for groups in self.groups]
        return Shape([len(nodes) for nodes in self.nodes], subnodes, [len(layer.inputs) for layer in self.edges])

    def left_out(self) -> list[str]:
        """A sentence for each layer of edges that is not complete."""
        (edges, nodes), texts = self.totals, []
        for l, layer in enumerate(self.edges):
            if len(layer.inputs) < edges[l]:
                ends = [(len(self.nodes[n]), nodes[n]) for n in (l, l + 1)]
                some = " → ".join(f"{shown} of {total}" if shown < total else f"{total}" for shown, total in ends)
                texts.append(f"layer {l}: the {len(layer.inputs)} strongest of {edges[l]} edges; nodes: {some}")
        return texts


def strongest(model: "KAN", edges: list[Edges], most: int | None) -> Selection:
    """Up to `most` edges of each layer, those with the highest scores; all if None.

    Nodes of a layer beside an incomplete one are left out if no drawn edge ends there, except where nodes multiply.
    """
    totals = [len(layer.inputs) for layer in edges], list(model.width_in)
    edges = [layer if most is None or len(layer.inputs) <= most else _top(layer, most) for layer in edges]
    cut = [len(layer.inputs) < total for layer, total in zip(edges, totals[0], strict=True)]
    nodes, sums, groups = [], [], []
    for l, width in enumerate(model.width_in):
        used = set(range(width))
        if (any(cut[max(0, l - 1) : l + 1])) and not model.width[l][1]:
            used = {*(edges[l].inputs if l < model.depth else ()), *(edges[l - 1].outputs if l else ())}
        nodes.append(sorted(used))
        sums.append(len(used) - model.width[l][1])
        groups.append(model.subnodes(l) if model.width[l][1] else [[n] for n in range(len(used))])
    for l, layer in enumerate(edges):
        edges[l] = layer._replace(inputs=_places(layer.inputs, nodes[l]))
        if not model.width[l + 1][1]:
            edges[l] = edges[l]._replace(outputs=_places(layer.outputs, nodes[l + 1]))
    return Selection(edges, nodes, sums, groups, totals)


def _top(edges: Edges, count: int) -> Edges:
    order = edges.scores.nan_to_num(0.0).argsort(descending=True, stable=True)[:count]
    return edges.only(order.sort().values.tolist())


def _places(values: list[int], among: list[int]) -> list[int]:
    place = {value: n for n, value in enumerate(among)}
    return [place[value] for value in values]
