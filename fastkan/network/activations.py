"""get_act: a forward pass that records the activations of all nodes and the scale of every edge.

Scales are standard deviations over the data; pykan prunes and regularises by them. They are computed without a tensor
[N, O, I]; the values of the functions on every edge are computed when they are read.
"""

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from .layers.numeric import KANLayer, safe_sqrt
from .layers.symbolic import SymbolicLayer

if TYPE_CHECKING:
    from .model import KAN

MAX_BYTES = 1 << 26  # of the basis functions of edges, in one evaluation


class Activations:
    """The activations of one forward pass: lists over the layers l of edges, differentiable unless detached.

    acts[l] [N, width_in[l]], depth + 1 of them, with the network's output at the end; sums[l] [N, width_out[l + 1]]
    before, acts_premult[l] after the affine of the subnodes.
    """

    def __init__(self, model: "KAN", x: Tensor, singularity_avoiding: bool = False, y_th: float = 10.0):
        self.options = {"singularity_avoiding": singularity_avoiding, "y_th": y_th}
        self.acts, self.sums, self.acts_premult = [model.rows(x)], [], []
        # Read as attributes they would lose the check that they are the identity, see stacked.affine.
        scale, bias = model._modules["subnode_scale"], model._modules["subnode_bias"]
        for l in range(model.depth):
            sums = model.sums(l, self.acts[-1], **self.options)
            self.sums.append(sums)
            self.acts_premult.append((sums * scale[l] + bias[l]).detach())
            self.acts.append(model.nodes(l, sums))

    def scale_up(self, model: "KAN") -> "Activations":
        """Add the scales, as pykan defines them: standard deviations over the N rows.

        subnode_actscale[l] [width_out[l + 1]] of the sums; edge_actscale[l] [O, I] of the edges, acts_scale[l] that
        over the input's standard deviation + 0.1, acts_scale_spline[l] the same of the numeric branch alone.
        """
        self.subnode_actscale = [std(s.detach()) for s in self.sums]
        self.edge_actscale, self.acts_scale, self.acts_scale_spline = [], [], []
        for l, x in enumerate(self.acts[:-1]):
            numeric, every = edge_std(model, l, x, self.options)
            input_range = std(x) + 0.1
            self.edge_actscale.append(every)
            self.acts_scale.append(every / input_range)
            self.acts_scale_spline.append(numeric / input_range)
        return self

    def spline_preacts(self, model: "KAN") -> list[Tensor]:
        """Every edge's input, [N, O, I]: views of acts."""
        return [x[:, None].expand(-1, model.width_out[l + 1], -1) for l, x in enumerate(self.acts[:-1])]

    def spline_postacts(self, model: "KAN") -> list[Tensor]:
        """Every edge's output, [N, O, I], with the model's present parameters."""
        return [postacts(model, l, x, self.options) for l, x in enumerate(self.acts[:-1])]

    def spline_postsplines(self, model: "KAN") -> list[Tensor]:
        """Every edge's spline without scale and mask, [N, O, I], with the model's present parameters."""
        return [model.act_fun[l].postspline(x) for l, x in enumerate(self.acts[:-1])]


def std(x: Tensor) -> Tensor:
    """The standard deviation of the columns of x [N, I], with the gradient 0 where it is 0; 0 of one row."""
    x = x - x.mean(0)
    return safe_sqrt(x.square().sum(0) / max(1, len(x) - 1))


def edge_std(model: "KAN", l: int, x: Tensor, options: dict) -> tuple[Tensor, Tensor]:
    """The standard deviation of the numeric branch of every edge of layer l, and of both branches: [O, I] each."""
    numeric, symbolic = model.act_fun[l], model.symbolic_fun[l]
    if numeric.active:
        of_numeric = numeric.edge_std(x)
    else:
        of_numeric = numeric.linear.coef.new_zeros(numeric.out_dim, numeric.in_dim)
    if not (model.symbolic_enabled and symbolic.active):
        return of_numeric, of_numeric
    outputs, inputs, values = symbolic.edges(x, **options)
    if mixed(numeric, symbolic):
        values = values + numeric.edge_values(x, inputs, outputs)
    return of_numeric, of_numeric.index_put((outputs, inputs), std(values).to(of_numeric.dtype))


def mixed(numeric: KANLayer, symbolic: SymbolicLayer) -> bool:
    """Whether any edge is on in both branches of a layer; True where the masks are not readable."""
    plan, on = numeric.current_plan(), symbolic.on
    return plan is None or on is None or bool((plan.on.T & on).any())


def flow(model: "KAN", x: Tensor, singularity_avoiding: bool = False, y_th: float = 10.0) -> Activations:
    """The activations of a forward pass of x [..., in_features]."""
    return Activations(model, x, singularity_avoiding, y_th)


@torch.no_grad()
def get_act(
    model: "KAN", x: Tensor | dict | None = None, singularity_avoiding: bool = False, y_th: float = 10.0
) -> None:
    """Run x through the network and record its activations: acts, acts_scale, edge_actscale, ..., by pykan's names.

    x: [..., in_features], a dataset (its "train_input"), or None for the data of the last call. It is kept as
    cache_data. Takes the memory of the nodes' activations; spline_postacts and spline_postsplines, [N, O, I], are
    computed when they are read.
    """
    x = x["train_input"] if isinstance(x, dict) else model.cache_data if x is None else x
    if x is None:
        raise ValueError("x=None: expected data, since this model has seen none yet; call get_act(x) once")
    model.cache_data = x.detach()
    model.last_activations = Activations(model, model.cache_data, singularity_avoiding, y_th).scale_up(model)


def latest(model: "KAN") -> Activations:
    """The activations of the last get_act, which runs on cache_data where there are none."""
    if model.last_activations is None:
        model.get_act()
    assert model.last_activations is not None
    return model.last_activations


@torch.no_grad()
def edge_values(model: "KAN", l: int, x: Tensor, inputs: Tensor, outputs: Tensor, **options) -> Tensor:
    """The outputs [N, E] of edges from inputs[e] to outputs[e] of layer l, both branches, at x [N, width_in[l]]."""
    numeric, symbolic = model.act_fun[l], model.symbolic_fun[l]
    step = max(1, MAX_BYTES // (8 * max(1, len(x)) * (numeric.num + numeric.k + 1)))
    parts = zip(inputs.split(step), outputs.split(step), strict=True)
    values = torch.cat([numeric.edge_values(x, *part) for part in parts], 1)
    if model.symbolic_enabled and symbolic.active:
        to, source, part = symbolic.edges(x, **options)
        column = torch.full_like(symbolic.edge_mask, -1, dtype=torch.long)
        column[to, source] = torch.arange(len(to), device=x.device)
        column = column[outputs, inputs]
        values[:, column >= 0] += part[:, column[column >= 0]].to(values.dtype)
    return values


def lists(name: str) -> property:
    """The property of a model that reads one of Activations' lists; None before get_act."""

    @torch.no_grad()
    def read(model: "KAN") -> list[Tensor] | None:
        if model.last_activations is None:
            return None
        value = getattr(model.last_activations, name)
        return cast(list[Tensor], value(model) if callable(value) else value)

    return property(read, doc=f"{name} of the last get_act, see activations.Activations; None before.")


def postacts(model: "KAN", l: int, x: Tensor, options: dict) -> Tensor:
    """The output, of both branches, of every edge of layer l: x [N, I] -> [N, O, I]."""
    values = model.act_fun[l].postacts(x)
    if model.symbolic_enabled and model.symbolic_fun[l].active:
        outputs, inputs, part = model.symbolic_fun[l].edges(x, **options)
        values[:, outputs, inputs] += part.to(values.dtype)
    return values
