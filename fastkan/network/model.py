"""KAN: the network of the KAN papers, with pykan's names, built from fused layers."""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from .. import functional
from ..arguments import ascending, integer, number
from ..devices import place
from ..nn.module import Module, computed, lookup
from ..snapshot import Snapshot, readable
from ..spec import FAMILIES, MAX_DEGREE, index_of
from . import activations, checkpoint, edit, grids, prune, stacked
from . import history as history_
from .formulas import discover, edges, expression
from .history import History
from .layers.between import between
from .layers.numeric import KANLayer
from .layers.rounding import narrower, warn_of_rounding
from .layers.shape import common, edges_on, node_values, parse_arity, parse_width, per_layer, subnodes
from .layers.state_dict import prepare_model, warn_of_lost_precision
from .layers.symbolic import SymbolicLayer
from .plot import diagram, page
from .plot import edge as plot_edge
from .scores import attribution
from .train import fit as training
from .train import penalties, tables, taylor
from .train import predict as prediction

T = TypeVar("T")

if TYPE_CHECKING:

    class Layers(nn.ModuleList, Generic[T]):
        """A ModuleList of one class of layers, for type checkers."""

        def __getitem__(self, idx: int) -> T: ...
        def __iter__(self) -> Iterator[T]: ...


class KAN(Module):
    """A Kolmogorov-Arnold network of any depth and width, with multiplication nodes and a symbolic branch.

    From layer l to l + 1, with phi the numeric and psi the symbolic functions of the edges:

        s[j] = subnode_scale[j] sum_i (phi[i,j] + psi[i,j])(x[i]) + subnode_bias[j]
        y[m] = node_scale[m] prod_{j in subnodes of m} s[j] + node_bias[m]

    where a summing node has one subnode and a multiplying one as many as its arity.

    Args:
        width: number of nodes of every layer, from the inputs to the outputs, as integers or [n_sum, n_mult].
        grid: number of grid intervals, one for all layers or a list; k: degree of the splines (0 to 5; None for 3),
            likewise. With another family `grid` is the number of functions, and k None or 0.
        mult_arity: arity of the multiplication nodes: one for all, or for every entry of width a list for its nodes.
        noise_scale, scale_base_mu, scale_base_sigma, base_fun, sparse_init: initialization, see KANLayer.
        symbolic_enabled: use the symbolic branch; while no edge is symbolic it costs nothing.
        affine_trainable: train node_scale, node_bias, subnode_scale and subnode_bias.
        grid_eps: share of the uniform grid in a grid update, 0 to 1; grid_range: initial range of the grid.
        sp_trainable, sb_trainable: train scale_sp, scale_base.
        seed: of the initial parameters, which are those of pykan with this seed. torch's generators are not touched.
        family: of the basis functions, "bspline" or another such as "fourier", see docs/families.md.
        outside: extrapolation of a spline beyond its grid range, "linear" (the default), "zero" (pykan's) or "clamp",
            see functional.kan_linear; other families have one of their own. With "linear", inputs just beyond the
            training data continue the function, and a refinement, which makes the last intervals narrow, changes
            nothing there.
        dropout: share of the hidden nodes that are set to 0 in training mode, the others scaled up; see eval(). Not for
            fit with LBFGS or LM. layer_norm: scale the hidden nodes of a layer, of every row, to mean 0 and variance 1,
            without parameters. Both may be set later.
        backend: the backend to use, or None for the automatic choice, see fastkan.backends().
        device, dtype: of the parameters.
        history: record the model's states: True in memory, a folder, or a History; see History.
        save_act, auto_save, ckpt_path: pykan's. auto_save=True is history=ckpt_path; save_act has no effect.

    Attributes, by pykan's names: act_fun (KANLayer), symbolic_fun (SymbolicLayer); node_bias, node_scale, subnode_bias,
    subnode_scale (biases is node_bias); width, width_in, width_out, mult_arity, depth, grid, k, base_fun; input_id, the
    columns of x that are read. cache_data: the inputs of the last get_act or fit; last_activations, last_scores: the
    results of the last get_act and attribute. classes: see fit. Nothing is written to disk, and no activations are
    kept, unless asked.
    On a GPU, do not write through `.data` of a node_scale, node_bias, ... obtained before the last forward pass.

    Raises TypeError or ValueError that name the argument, its value and what was expected.

    Source: Liu et al., KAN (arXiv 2404.19756), section 2, and KAN 2.0 (arXiv 2408.10205), section 3.
    """

    exact = ("input_id",)
    _numeric_layer = KANLayer  # the class of act_fun's layers
    own_steps: dict[str, Callable]  # the methods of KAN itself that make up forward, by name
    act_fun: "Layers[KANLayer]"
    symbolic_fun: "Layers[SymbolicLayer]"
    last_activations: activations.Activations | None
    last_scores: attribution.Scores | None
    node_attribute_scores: list[Tensor]  # of the last node_attribute
    cache_data: Tensor | None
    classes: list | None = None  # of the labels that fit has trained on, in the order of the outputs
    dropout: float = 0.0  # of models made before there was one, too
    layer_norm: bool = False
    _column_order: tuple[Snapshot, bool] | None = None  # of input_id: its values, and whether they are 0, 1, 2, ...
    _modules: dict[str, Any]

    def __init__(
        self,
        width: Sequence,
        grid: int | Sequence[int] = 3,
        k: int | Sequence[int] | None = None,
        mult_arity: int | Sequence[Sequence[int]] = 2,
        noise_scale: float = 0.3,
        scale_base_mu: float = 0.0,
        scale_base_sigma: float = 1.0,
        base_fun: str | Callable[[Tensor], Tensor] = "silu",
        symbolic_enabled: bool = True,
        affine_trainable: bool = False,
        grid_eps: float = 0.02,
        grid_range: tuple[float, float] = (-1, 1),
        sp_trainable: bool = True,
        sb_trainable: bool = True,
        seed: int = 1,
        sparse_init: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        backend: str | None = None,
        *,
        family: str = "bspline",
        outside: str | None = None,
        dropout: float = 0.0,
        layer_norm: bool = False,
        history: History | str | os.PathLike | bool | None = None,
        save_act: bool = True,
        auto_save: bool = False,
        ckpt_path: str | os.PathLike = "./model",
    ):
        super().__init__()
        self.width = parse_width(width)
        self.mult_arity = parse_arity(mult_arity, self.width)
        is_spline = index_of("family", family, FAMILIES) == 0
        k = (3 if is_spline else 0) if k is None else k
        sizes, degrees = per_layer("grid", grid, self.depth, 1), per_layer("k", k, self.depth, 0, MAX_DEGREE)
        outside = "linear" if outside is None and is_spline else outside
        self.symbolic_enabled, self.affine_trainable = bool(symbolic_enabled), bool(affine_trainable)
        self.sp_trainable, self.sb_trainable = bool(sp_trainable), bool(sb_trainable)
        scales = {
            "noise_scale": number("noise_scale", noise_scale),
            "scale_base_mu": number("scale_base_mu", scale_base_mu),
            "scale_base_sigma": number("scale_base_sigma", scale_base_sigma),
        }
        generator = torch.Generator("cpu").manual_seed(integer("seed", seed, 0))
        self.act_fun = cast("Layers[KANLayer]", nn.ModuleList())
        self.symbolic_fun = cast("Layers[SymbolicLayer]", nn.ModuleList())
        for l in range(self.depth):
            inputs, outputs = self.width_in[l], self.width_out[l + 1]
            numeric = self._numeric_layer(
                inputs, outputs, sizes[l], degrees[l], base_fun=base_fun, grid_eps=grid_eps, grid_range=grid_range,
                sp_trainable=sp_trainable, sb_trainable=sb_trainable, sparse_init=sparse_init, generator=generator,
                outside=outside, family=family, backend=backend, device=device, dtype=dtype, **scales,
            )  # fmt: skip
            self.act_fun.append(numeric)
            self.symbolic_fun.append(SymbolicLayer(inputs, outputs, device=device, dtype=dtype))
        nodes, sub = self.width_in[1:], self.width_out[1:]
        self.node_bias, self.node_scale = self._affine(torch.zeros, nodes), self._affine(torch.ones, nodes)
        self.subnode_bias, self.subnode_scale = self._affine(torch.zeros, sub), self._affine(torch.ones, sub)
        self.in_features = self.width_in[0]
        self.input_id = torch.arange(self.in_features, device=device)
        self._seed = seed
        self.dropout, self.layer_norm = number("dropout", dropout, 0.0, 1.0), bool(layer_norm)
        self.last_activations, self.last_scores, self.cache_data = None, None, None
        self.history = ckpt_path if auto_save and history is None else history

    def _affine(self, fill: Callable, sizes: list[int]) -> nn.ParameterList:
        like = self.act_fun[0].linear.coef
        values = [fill(n, device=like.device, dtype=like.dtype) for n in sizes]
        return nn.ParameterList([nn.Parameter(v, requires_grad=self.affine_trainable) for v in values])

    @torch.no_grad()
    def reset_parameters(self, seed: int | None = None) -> None:
        """Initialize again: random parameters of this seed (default: the model's own), uniform grids of the present
        sizes on grid_range, no symbolic edges. For a model created on "meta", after to_empty.

        Raises RuntimeError where inputs were pruned and input_id no longer holds the remaining columns."""
        seed = integer("seed", self._seed if seed is None else seed, 0)
        generator = torch.Generator("cpu").manual_seed(seed)
        for numeric, symbolic in zip(self.act_fun, self.symbolic_fun, strict=True):
            numeric.reset_parameters(generator)
            symbolic.reset_parameters()
        for name, value in stacked.IDENTITY.items():
            for p in self._modules[name]:
                p.fill_(value)
        columns = self._buffers["input_id"]
        if len(columns) == self.in_features:
            self.input_id = torch.arange(self.in_features, device=self.device)
        elif readable(columns) and columns.isnan().any():
            raise RuntimeError(
                f"input_id has no values (meta device), and {len(columns)} of {self.in_features} columns of x are "
                "read: set input_id first, or load a state dict"
            )
        self.forget()

    @classmethod
    def kolmogorov(cls, n: int, **options) -> "KAN":
        """A network of the width of the Kolmogorov-Arnold theorem for functions of n variables, [n, 2n + 1, 1]."""
        n = integer("n", n, 1)
        return cls([n, 2 * n + 1, 1], **options)

    __getattr__ = lookup

    # Forward

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, singularity_avoiding: bool = False, y_th: float = 10.0) -> Tensor: ...

    def forward(self, x: Tensor, singularity_avoiding: bool = False, y_th: float = 10.0) -> Tensor:
        """x [..., in_features] -> [..., width_in[-1]]; a NaN in x makes the outputs that depend on it NaN.

        singularity_avoiding bounds the symbolic functions near their singularities by about y_th.
        """
        y = rows = self.rows(x)
        if stack := stacked.stack_of(self):
            y = functional.apply_stack(rows, *stack)
        else:
            for l in range(self.depth):
                y = self.nodes(l, self.sums(l, y, singularity_avoiding, y_th))
        return y if rows is x else y.unflatten(0, x.shape[:-1]) if x.dim() > 1 else y[0]

    def rows(self, x: Tensor) -> Tensor:
        """The inputs of the first layer: x [..., in_features] -> [N, width_in[0]]."""
        functional.check_input(x, self.in_features)
        if x.dim() != 2:
            x = x.reshape(-1, x.shape[-1])
        return x if self.in_features == self.width[0][0] and self._in_order() else x[:, self.input_id]

    def _in_order(self) -> bool:
        """Whether input_id is 0, 1, 2, ...; False where its values are not known."""
        columns = self._buffers["input_id"]
        if not readable(columns) or (not columns.is_cpu and columns.is_inference()):
            return False
        order = self._column_order
        if order is None or not order[0].holds(columns):
            if columns.is_cuda and torch.cuda.is_current_stream_capturing():
                return False
            order = self._column_order = Snapshot(columns), columns.tolist() == list(range(len(columns)))
        return order[1]

    def sums(self, l: int, x: Tensor, singularity_avoiding: bool = False, y_th: float = 10.0) -> Tensor:
        """The sums over the edges of layer l: x [N, width_in[l]] -> [N, width_out[l + 1]]."""
        numeric, symbolic = self.act_fun[l], self.symbolic_fun[l]
        if not (self.symbolic_enabled and symbolic.active):
            return numeric.sums(x)
        y = symbolic(x, singularity_avoiding, y_th)
        return y + numeric.sums(x) if numeric.active else numeric.unused(y)

    def nodes(self, l: int, sums: Tensor) -> Tensor:
        """The nodes of layer l + 1 from the sums of layer l: [N, width_out[l + 1]] -> [N, width_in[l + 1]]."""
        affine = self._modules
        s = torch.addcmul(affine["subnode_bias"][l], sums, affine["subnode_scale"][l])
        y = node_values(s, self.width[l + 1][0], self.mult_arity[l + 1])
        y = torch.addcmul(affine["node_bias"][l], y, affine["node_scale"][l])
        return between(self, l, y) if self.layer_norm or self.dropout else y

    node_bias, node_scale = stacked.affine("node_bias"), stacked.affine("node_scale")
    subnode_bias, subnode_scale = stacked.affine("subnode_bias"), stacked.affine("subnode_scale")

    def forget(self) -> None:
        """Drop the results of get_act and attribute."""
        self.last_activations, self.last_scores = None, None

    # Shape

    @property
    def depth(self) -> int:
        """The number of layers of edges."""
        return len(self.width) - 1

    @property
    def width_in(self) -> list[int]:
        """Number of nodes of every layer."""
        return [n_sum + n_mult for n_sum, n_mult in self.width]

    @property
    def width_out(self) -> list[int]:
        """Number of subnodes of every layer: a multiplication node has as many as its arity."""
        return [n_sum + sum(arity) for (n_sum, _), arity in zip(self.width, self.mult_arity, strict=True)]

    @property
    def n_sum(self) -> list[int]:
        """Number of summing nodes of the hidden layers."""
        return [n for n, _ in self.width[1:-1]]

    @property
    def n_mult(self) -> list[int]:
        """Number of multiplication nodes of the hidden layers."""
        return [n for _, n in self.width[1:-1]]

    @property
    def grid(self) -> int | list[int]:
        """Number of grid intervals: one number, or a list over layers where they differ."""
        return common([layer.num for layer in self.act_fun])

    @property
    def k(self) -> int | list[int]:
        """Degree of the splines: one number, or a list over layers where they differ."""
        return common([layer.k for layer in self.act_fun])

    @property
    def family(self) -> str:
        """The family of the basis functions."""
        return self.act_fun[0].linear.family

    @property
    def base_fun(self) -> str | Callable[[Tensor], Tensor]:
        """The base function of the edges, by its name where it has one; of the first layer where layers differ. Setting
        it sets all layers."""
        return self.act_fun[0].base_fun

    @base_fun.setter
    def base_fun(self, base_fun: str | Callable[[Tensor], Tensor]) -> None:
        for layer in self.act_fun:
            layer.base_fun = base_fun

    @property
    def grid_eps(self) -> float:
        """The share of the uniform grid in a grid update; setting it sets all layers."""
        return self.act_fun[0].linear.grid_eps

    @grid_eps.setter
    def grid_eps(self, grid_eps: float) -> None:
        grid_eps = number("grid_eps", grid_eps, 0.0, 1.0)
        for layer in self.act_fun:
            layer.linear.grid_eps = grid_eps

    @property
    def grid_range(self) -> tuple[float, float]:
        """The range of the grids at initialization; setting it sets all layers, whose grids stay."""
        return self.act_fun[0].linear.grid_range

    @grid_range.setter
    def grid_range(self, grid_range: Sequence[float]) -> None:
        ends = ascending("grid_range", grid_range)
        for layer in self.act_fun:
            layer.linear.grid_range = ends

    @property
    def biases(self) -> nn.ParameterList:
        """node_bias, by its earlier name."""
        return self.node_bias

    @property
    def input_id(self) -> Tensor:
        """The columns of x that are read, in the order of the inputs; may be set."""
        return self._buffers["input_id"].round().long()

    @input_id.setter
    def input_id(self, columns: Tensor) -> None:
        # Floating point, since averages of integers by torch's own functions are errors, or rounded towards 0.
        columns = columns.detach() if isinstance(columns, Tensor) else torch.tensor(columns)
        self._buffers["input_id"] = place(columns, columns.device)

    @property
    def device(self) -> torch.device:
        return self._buffers["input_id"].device

    @property
    def n_edge(self) -> int:
        """Number of edges that are on, numeric or symbolic."""
        return sum(int(edges_on(self, l).sum()) for l in range(self.depth))

    def subnodes(self, l: int) -> list[list[int]]:
        """The subnodes of every node of layer l."""
        return subnodes(self.width[l][0], self.mult_arity[l])

    def extra_repr(self) -> str:
        more = {"dropout": self.dropout, "layer_norm": self.layer_norm}
        shown = "".join(f", {name}={value}" for name, value in more.items() if value)
        return f"width={self.width}, grid={self.grid}, k={self.k}, mult_arity={self.mult_arity}{shown}"

    # Activations

    flow, get_act = activations.flow, activations.get_act
    acts, acts_premult = activations.lists("acts"), activations.lists("acts_premult")
    spline_preacts, spline_postacts = activations.lists("spline_preacts"), activations.lists("spline_postacts")
    spline_postsplines = activations.lists("spline_postsplines")
    acts_scale, acts_scale_spline = activations.lists("acts_scale"), activations.lists("acts_scale_spline")
    edge_actscale, subnode_actscale = activations.lists("edge_actscale"), activations.lists("subnode_actscale")

    # Grids

    update_grid_from_samples = update_grid = grids.update_grid_from_samples
    refine = grids.refine
    initialize_from_another_model = grids.initialize_from_another_model
    initialize_grid_from_another_model = grids.initialize_grid_from_another_model
    get_range, get_fun = grids.get_range, grids.get_fun

    # Edges and nodes

    set_mode, remove_edge, remove_node = edit.set_mode, edit.remove_edge, edit.remove_node
    expand_width, expand_depth, swap, perturb = edit.expand_width, edit.expand_depth, edit.swap, edit.perturb
    module, connection_cost = edit.module, computed(edit.connection_cost)
    auto_swap, auto_swap_l = edit.auto_swap, edit.auto_swap_l

    # Scores and pruning

    attribute, node_attribute = attribution.attribute, attribution.node_attribute
    feature_score, feature_interaction = computed(attribution.feature_score), attribution.feature_interaction
    node_scores, node_scores_all = attribution.lists("nodes", True), attribution.lists("nodes", False)
    edge_scores, edge_scores_all = attribution.lists("edges", True), attribution.lists("edges", False)
    subnode_scores, subnode_scores_all = attribution.lists("subnodes", True), attribution.lists("subnodes", False)
    prune_node, prune_edge, prune_input, prune = prune.prune_node, prune.prune_edge, prune.prune_input, prune.prune
    reg = get_reg = penalties.reg
    reg_metrics, reg_sizes = penalties.METRICS, penalties.sizes
    evaluate = penalties.evaluate
    fit = training.fit
    predict, predict_proba, score = prediction.predict, prediction.predict_proba, prediction.score
    derivatives, as_tables = taylor.derivatives, tables.as_tables

    # Pictures

    plot, plot_edge, to_html = diagram.plot, plot_edge.plot_edge, page.to_html

    # Formulas

    fix_symbolic, unfix_symbolic = edges.fix_symbolic, edges.unfix_symbolic
    unfix_symbolic_all = edges.unfix_symbolic_all
    suggest_symbolic, auto_symbolic = edges.suggest_symbolic, edges.auto_symbolic
    symbolic_formula = expression.symbolic_formula
    discover = classmethod(discover.discover)

    # Files and copies

    config, save, saveckpt = checkpoint.config, checkpoint.save, checkpoint.save
    gathered = checkpoint.gathered
    load = classmethod(checkpoint.load)
    loadckpt = load
    keep, rewind, checkout, log_history = history_.keep, history_.rewind, history_.checkout, history_.log_history

    @property
    def history(self) -> History | None:
        """The History, or None. May be set: True, a folder, a History, or None for none."""
        return history_.get_history(self)

    @history.setter
    def history(self, history: History | str | os.PathLike | bool | None) -> None:
        history_.set_history(self, history)

    def __getstate__(self) -> dict:
        state = super().__getstate__() | {"_column_order": None}
        stacked.drop_cache(state)
        return state

    def _apply(self, fn, recurse: bool = True):
        before, columns = [layer.affine.detach() for layer in self.symbolic_fun], self._buffers["input_id"]
        super()._apply(fn, recurse)
        if columns.is_meta and not self._buffers["input_id"].is_meta:
            self._buffers["input_id"].fill_(torch.nan)  # until it is loaded or set
        self._warn_of_lost_precision(before)
        return self

    def _warn_of_lost_precision(self, before: list[Tensor]) -> None:
        """Warn of symbolic functions that the present dtype is too narrow for; before: affine before the cast."""
        layers = list(zip(self.act_fun, self.symbolic_fun, before, strict=True))
        dtype = layers[0][1].affine.dtype
        if all(narrower(dtype, old.dtype) and readable(symbolic.edge_mask) for _, symbolic, old in layers):
            ends = [numeric.linear.grid[:, [numeric.k, -numeric.k - 1]] for numeric in self.act_fun]
            parts = [(s.funs_name, s.edge_mask, old, end) for (_, s, old), end in zip(layers, ends, strict=True)]
            warn_of_rounding(parts, dtype)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args) -> None:
        assign = local_metadata.get("assign_to_params_buffers", False)
        prepare_model(self, state_dict, prefix, assign)
        if not assign:
            warn_of_lost_precision(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
        self.input_id = self._buffers["input_id"]  # as floating point

    def _save_to_state_dict(self, destination, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}input_id"] = self.input_id

    def copy(self) -> "KAN":
        """A deep copy."""
        return copy.deepcopy(self)

    def get_params(self) -> Iterator[nn.Parameter]:
        """parameters(), by pykan's name."""
        return self.parameters()

    def speed(self, compile: bool = False) -> "KAN":
        """The model itself, or torch.compile(model) with compile=True; pykan's name."""
        return cast("KAN", torch.compile(self)) if compile else self


history_.log_steps(KAN)
History.model_class = KAN
KAN.own_steps = {name: getattr(KAN, name) for name in ("forward", *stacked.STEPS)}
