"""MLP: a multilayer perceptron as a baseline for a KAN, with the same training and analysis, and pykan's names."""

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..arguments import index, integer, number
from ..network.activations import std
from ..network.edit import best_order, swap_costs, wiring_cost
from ..network.layers.shape import as_list
from ..network.train import fit as training
from ..network.train.penalties import penalty
from ..nn.module import computed, lookup
from .mlp_plot import plot
from .tree import plot_tree

if TYPE_CHECKING:
    from ..network import KAN

ACTIVATIONS = {"silu": F.silu, "relu": F.relu, "gelu": F.gelu, "tanh": torch.tanh, "sin": torch.sin}
METRICS = ("w", "act", "fa", "a")


class Activations:
    """The activations of one forward pass, differentiable.

    acts[l] [N, width[l]], depth + 1 of them including the output; acts_scale[l] [width[l + 1]], their standard
    deviations over the data, without the input's; wa_forward[l] [out, in], weights times the standard deviations of
    their inputs.
    """

    sums = ()  # over edges with grids, for jacobian.Structured

    def __init__(self, model: "MLP", x: Tensor):
        if not isinstance(x, Tensor) or x.dim() == 0 or x.shape[-1] != model.width[0]:
            got = f"shape {list(x.shape)}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
            raise ValueError(f"x has {got}: expected a tensor [..., {model.width[0]}], the number of inputs")
        self.model, self.acts = model, [x.reshape(-1, x.shape[-1])]
        for l, linear in enumerate(model.linears):
            y = linear(self.acts[-1])
            self.acts.append(y if l == model.depth - 1 else model.act(y))

    @property
    def acts_scale(self) -> list[Tensor]:
        return [std(h) for h in self.acts[1:]]

    @property
    def wa_forward(self) -> list[Tensor]:
        return [std(h) * linear.weight for h, linear in zip(self.acts, self.model.linears, strict=False)]

    def scores(self) -> tuple[list[Tensor], list[Tensor]]:
        """The contributions to the outputs of the nodes of every layer, [width[l]], and of all weights, [out, in]."""
        nodes, edges = [self.acts[-1].new_ones(self.model.width[-1])], []
        for weight, scale in zip(reversed(self.wa_forward), reversed(self.acts_scale), strict=True):
            edges.insert(0, weight.abs() * (nodes[0] / (scale + 1e-4))[:, None])
            nodes.insert(0, edges[0].sum(0) / weight.shape[1] ** 0.5)
        return nodes, edges


class MLP(nn.Module):
    """A fully connected network with the interface of KAN.

    Args:
        width: the number of nodes of every layer, from the inputs to the outputs.
        act: "silu", "relu", "gelu", "tanh" or "sin", or a function of tensors; after every layer but the last.
        save_act: no effect, for pykan's code: only get_act stores activations.
        seed: of the initial parameters, which equal pykan's; torch's global generator is not used.
        device, dtype: of the parameters.

    Attributes: linears (nn.Linear; state dicts are pykan's), width, depth, act; w, the weights [out, in].

    Raises TypeError or ValueError that name the argument, its value and what was expected.
    """

    # Attributes of a KAN that training.fit reads: there are no layers with grids.
    act_fun, symbolic_fun, symbolic_enabled, grid = (), (), False, None
    reg_metrics = METRICS
    classes: list | None = None  # of the labels that fit has trained on

    linears: Sequence[nn.Linear]
    last_activations: Activations | None
    last_scores: tuple[list[Tensor], list[Tensor]] | None
    cache_data: Tensor | None

    def __init__(
        self,
        width: Sequence[int],
        act: str | Callable[[Tensor], Tensor] = "silu",
        save_act: bool = True,
        seed: int = 0,
        device: torch.device | str | None = None,
        *,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        width = as_list(width)
        if isinstance(width, str) or not isinstance(width, Sequence) or len(width) < 2:
            raise ValueError(f"width={width!r}: expected the nodes of at least two layers")
        if not (callable(act) or act in ACTIVATIONS):
            raise ValueError(f"act={act!r}: expected one of {', '.join(map(repr, ACTIVATIONS))}, or a function")
        self.width = [integer(f"width[{l}]", nodes, 1) for l, nodes in enumerate(width)]
        self.act = act if callable(act) else ACTIVATIONS[act]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(integer("seed", seed, 0))
            layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(self.width, self.width[1:], strict=False))
        self.linears = cast(Sequence[nn.Linear], layers)
        self.to(device, dtype)
        self.last_activations, self.last_scores, self.cache_data = None, None, None

    __getattr__ = lookup

    def forward(self, x: Tensor) -> Tensor:
        """x [..., width[0]] -> [..., width[-1]]."""
        for linear in self.linears[:-1]:
            x = self.act(linear(x))
        return self.linears[-1](x)

    @property
    def depth(self) -> int:
        """The number of linear layers."""
        return len(self.width) - 1

    @property
    def w(self) -> list[Tensor]:
        return [linear.weight for linear in self.linears]

    @property
    def device(self) -> torch.device:
        return self.linears[0].weight.device

    def extra_repr(self) -> str:
        return f"width={self.width}"

    def copy(self) -> "MLP":
        """A copy that shares nothing."""
        return copy.deepcopy(self)

    # Training

    def fit(
        self, dataset, opt="LBFGS", steps: int = 100, log: int = 1, lamb: float = 0.0, lamb_l1: float = 1.0,
        lamb_entropy: float = 2.0, loss_fn: Callable | None = None, lr: float | None = None, batch: int = -1,
        metrics: Sequence[Callable] | None = None, reg_metric: str = "w", display_metrics: Sequence[str] | None = None,
        **options,
    ) -> dict:  # fmt: skip
        """Train in place, see KAN.fit. reg_metric: see reg. options: callback, patience, keep_best, seed, progress."""
        results = training.fit(
            cast("KAN", self), dataset, opt, steps, log, lamb, lamb_l1, lamb_entropy, update_grid=False,
            loss_fn=loss_fn, lr=lr, batch=batch, metrics=metrics, reg_metric=reg_metric,
            display_metrics=display_metrics, **options,
        )  # fmt: skip
        del results["grid"]
        return results

    def reg_sizes(self, record: Activations, metric: str) -> list[Tensor]:
        """The values that the metric penalises, for every layer."""
        if metric not in METRICS:
            raise ValueError(f"reg_metric={metric!r}: expected one of {', '.join(map(repr, METRICS))}")
        if metric == "fa":
            return record.scores()[1]
        values = {"w": lambda: self.w, "act": lambda: record.wa_forward, "a": lambda: record.acts_scale}[metric]()
        return [value.abs() for value in values]

    def reg(
        self, reg_metric: str = "w", lamb_l1: float = 1.0, lamb_entropy: float = 2.0, x: Tensor | None = None
    ) -> Tensor:
        """The penalty lamb_l1 * L1 + lamb_entropy * entropy of weights or nodes: a scalar, differentiable.

        x: data, by default cache_data. reg_metric: "w", the weights; "act", weights times the standard deviations of
        their inputs; "fa", the scores of attribute; "a", the nodes' standard deviations.
        """
        record: Any = self.flow(self._data(x))
        return penalty(cast("KAN", self), record, reg_metric, lamb_l1, lamb_entropy, 0.0, 0.0)

    get_reg = reg

    # Scores and pruning

    def flow(self, x: Tensor) -> Activations:
        """A forward pass of x [..., width[0]] that stores the activations."""
        return Activations(self, x)

    @torch.no_grad()
    def get_act(self, x: Tensor | dict | None = None) -> None:
        """Run x, or the "train_input" of a dataset, or cache_data, and store acts, acts_scale, wa_forward."""
        self.cache_data = self._data(x["train_input"] if isinstance(x, dict) else x).detach()
        self.last_activations, self.last_scores = self.flow(self.cache_data), None

    @torch.no_grad()
    def attribute(self) -> None:
        """Score nodes and weights by their contributions to the outputs: node_scores, edge_scores (wa_backward).

        A node's score is distributed to its weights in proportion to wa_forward, divided by the node's standard
        deviation, and from the weights to their inputs, divided by the square root of their number; as in pykan, which
        says that it suits KANs better.
        """
        if self.last_activations is None:
            self.get_act()
        self.last_scores = cast(Activations, self.last_activations).scores()

    @computed
    def feature_score(self) -> Tensor:
        """The contribution of every input to the outputs, [width[0]]."""
        self.attribute()
        return self.node_scores[0]

    @torch.no_grad()
    def prune_node(self, threshold: float = 1e-2) -> "MLP":
        """A new MLP without the hidden nodes whose score is below threshold, except the best node of every layer."""
        threshold = number("threshold", threshold)
        self.attribute()
        kept = [torch.arange(self.width[0])]
        kept += [torch.where((s >= threshold) | (s == s.max()))[0].cpu() for s in self.node_scores[1:-1]]
        kept.append(torch.arange(self.width[-1]))
        small = MLP([len(nodes) for nodes in kept], self.act).to(self.w[0])
        for l, linear in enumerate(self.linears):
            small.linears[l].weight.copy_(linear.weight[kept[l + 1]][:, kept[l]])
            small.linears[l].bias.copy_(linear.bias[kept[l + 1]])
        small.cache_data = self.cache_data
        return small

    def forget(self) -> None:
        """Drop the results of get_act and attribute."""
        self.last_activations, self.last_scores = None, None

    def _data(self, x: Tensor | None) -> Tensor:
        x = self.cache_data if x is None else x
        if x is None:
            raise ValueError("x=None: expected data, since this model has no cache_data yet")
        return x

    acts = property(lambda self: self.last_activations and self.last_activations.acts)
    acts_scale = property(lambda self: self.last_activations and _detached(self.last_activations.acts_scale))
    wa_forward = property(lambda self: self.last_activations and _detached(self.last_activations.wa_forward))
    node_scores = property(lambda self: self.last_scores and self.last_scores[0])
    edge_scores = wa_backward = property(lambda self: self.last_scores and self.last_scores[1])

    # Order of the nodes, and plots

    @property
    def connection_cost(self) -> Tensor:
        """The sum over all weights of length times absolute value, a scalar. See KAN.connection_cost."""
        return wiring_cost([weight.detach().abs() for weight in self.w])

    def swap(self, l: int, i1: int, i2: int) -> None:
        """Exchange two nodes of hidden layer l, without changing the function."""
        nodes = list(range(self._hidden(l)))
        i1, i2 = index("i1", i1, len(nodes)), index("i2", i2, len(nodes))
        nodes[i1], nodes[i2] = i2, i1
        self._reorder(l, nodes)

    @torch.no_grad()
    def auto_swap_l(self, l: int) -> None:
        """Swap nodes of hidden layer l, each with the one that reduces connection_cost most, until no swap does."""
        nodes = list(range(self._hidden(l)))
        self._reorder(
            l, best_order(swap_costs(self.w[l - 1].abs(), self.w[l].abs(), nodes, [[node] for node in nodes]))
        )

    def auto_swap(self) -> None:
        """Reorder the nodes of every hidden layer, first to last, without changing the function."""
        for l in range(1, self.depth):
            self.auto_swap_l(l)

    def _hidden(self, l: int) -> int:
        if index("l", l, self.depth) == 0:
            raise ValueError(f"l={l}: expected a hidden layer, 1 to {self.depth - 1}")
        return self.width[l]

    @torch.no_grad()
    def _reorder(self, l: int, nodes: list[int]) -> None:
        below, above = self.linears[l - 1], self.linears[l]
        below.weight.copy_(below.weight[nodes])
        below.bias.copy_(below.bias[nodes])
        above.weight.copy_(above.weight[:, nodes])
        self.forget()

    plot = plot

    def tree(
        self, x: Tensor | None = None, in_var: Sequence | None = None, style: str = "tree", sym_th: float = 5e-2,
        sep_th: float = 1e-1, skip_sep_test: bool = False, verbose: bool = False, **options,
    ):  # fmt: skip
        """plot_tree of the model, on x or cache_data."""
        return plot_tree(self, self._data(x), in_var, style, sym_th, sep_th, skip_sep_test, verbose, **options)


def _detached(values: list[Tensor]) -> list[Tensor]:
    return [value.detach() for value in values]
