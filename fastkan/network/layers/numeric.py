"""KANLayer: the numeric branch of a layer, with pykan's names and shapes, built on KANLinear."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ... import functional
from ...arguments import integer, number
from ...basis.base import BASES
from ...devices import home
from ...nn.hooks import any_global_hook, hooked
from ...nn.linear import degree_of
from ...nn.module import Module
from ...nn.parametrized import set_computed
from ...nn.view import view_of
from ...snapshot import Snapshot, readable
from ...transforms import by_func
from .edge_linear import EdgeLinear, Start, first_mask
from .state_dict import prepare_numeric

BLOCK = 8  # inputs whose basis functions are evaluated in one call
MAX_SAVED = 1 << 18  # basis function values that autograd may save for the backward pass


class KANLayer(Module):
    """y[n,o] = sum_i mask[i,o] (scale_base[i,o] b(x[n,i]) + scale_sp[i,o] sum_f coef[i,o,f] B_{i,f}(x[n,i])).

    One fused call, with the mask multiplied into the weights, differentiable, without a tensor [N, I, O]. Inputs and
    outputs whose edges all have the mask 0 are left out of the call.

    The parameters are those of `linear`, a KANLinear. pykan's names for them are `coef` [I, O, G + k], `scale_base`,
    `scale_sp` [I, O] and `grid` [I, G + 2k + 1]; they and `mask` [I, O] may be changed in place or set. On a GPU a
    change of `mask` through `.data` is not noticed.

    Args:
        in_dim, out_dim: I and O.
        num, k: number of grid intervals, degree of the splines (0 to 5; None for 3); of another family, the number of
            functions, and None or 0.
        noise_scale: splines initially interpolate uniform noise of +-noise_scale / (2 num) at the knots.
        scale_base_mu, scale_base_sigma: scale_base is initially (mu + sigma * uniform(-1, 1)) / sqrt(I).
        scale_sp: scale_sp is initially scale_sp / sqrt(I) where the mask is not 0.
        base_fun: "silu", "identity", "zero", or any elementwise function of a tensor.
        sparse_init: start with edges between nearest neighbours only.
        generator: of the random initialization, on the CPU, which is the same for every device.
        others: as in KANLinear.

    Source: Liu et al., KAN (arXiv 2404.19756), section 2.2.
    """

    # In the body of a class whose sums are those of this one, so that layers may run as one fused call.
    fusable = True
    linear: EdgeLinear
    edge_mask: Tensor
    _modules: dict[str, Any]

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        num: int = 5,
        k: int | None = None,
        noise_scale: float = 0.5,
        scale_base_mu: float = 0.0,
        scale_base_sigma: float = 1.0,
        scale_sp: float = 1.0,
        base_fun: str | Callable[[Tensor], Tensor] = "silu",
        grid_eps: float = 0.02,
        grid_range: tuple[float, float] = (-1, 1),
        sp_trainable: bool = True,
        sb_trainable: bool = True,
        sparse_init: bool = False,
        *,
        outside: str | None = None,
        family: str = "bspline",
        backend: str | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        in_dim, out_dim = integer("in_dim", in_dim, 1), integer("out_dim", out_dim, 1)
        num, k = integer("num", num, 1), degree_of("k", k, family)
        if not (base_fun in BASES if isinstance(base_fun, str) else base_fun is None or callable(base_fun)):
            kind = ValueError if isinstance(base_fun, str) else TypeError
            raise kind(f"base_fun={base_fun!r}: expected one of {', '.join(map(repr, BASES))}, or a function")
        start = Start(
            number("noise_scale", noise_scale), number("scale_base_mu", scale_base_mu),
            number("scale_base_sigma", scale_base_sigma), number("scale_sp", scale_sp), bool(sparse_init),
        )  # fmt: skip
        self.linear = EdgeLinear(
            start, generator, in_dim, out_dim, num, k, base_activation=base_fun, grid_eps=grid_eps,
            grid_range=grid_range, outside=outside, family=family, backend=backend, device=device, dtype=dtype,
        )  # fmt: skip
        self.register_buffer("edge_mask", first_mask(in_dim, out_dim, start.sparse_init).to(self.linear.coef))
        self._plan = None
        self.linear.spline_scale.requires_grad_(bool(sp_trainable))
        if self.linear.base_weight is not None:
            self.linear.base_weight.requires_grad_(bool(sb_trainable))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialize again: the mask, random parameters, and a uniform grid of the present size on grid_range."""
        linear = self.linear
        self.edge_mask.copy_(first_mask(self.in_dim, self.out_dim, linear.start.sparse_init))
        linear.reset_parameters(generator)

    # Forward

    def forward(self, x: Tensor) -> Tensor:
        """x [N, I] -> [N, O] in the parameters' dtype."""
        functional.check_input(x, self.in_dim)
        linear = self._modules["linear"]
        if any_global_hook() or hooked(linear):
            return linear(x, self.edge_mask)
        plan = self.current_plan()
        if plan is None:  # correct for every mask
            return linear.forward(x, self.edge_mask)
        if plan.full:
            return linear.forward(x)
        if not plan.active:
            return self.unused(x.new_zeros(x.shape[0], self.out_dim, dtype=linear.coef.dtype))
        if plan.inputs is None and plan.outputs is None:
            return linear.forward(x, self.edge_mask)
        (base, scale), coef, knots = self.masked(), linear.coef, linear.knots
        if plan.inputs is not None:
            x, coef, knots = x[:, plan.inputs], coef[plan.inputs], knots[plan.inputs]
            base, scale = None if base is None else base[plan.inputs], scale[plan.inputs]
        if plan.outputs is None:
            return linear.evaluate(x, coef, knots, base, None, scale)
        coef, base = coef[:, :, plan.outputs], None if base is None else base[:, plan.outputs]
        y = linear.evaluate(x, coef, knots, base, None, scale[:, plan.outputs])
        return y.new_zeros(y.shape[0], self.out_dim).index_copy(1, plan.outputs, y)

    def sums(self, x: Tensor) -> Tensor:
        """The sums over the edges [N, O], for a model: what a call returns."""
        return self(x)

    def unused(self, y: Tensor) -> Tensor:
        """y of a layer without edges, with its parameters in the autograd graph but without gradients, since
        DistributedDataParallel waits for all parameters."""
        parameters = [p for p in self.linear.parameters() if p.requires_grad] if torch.is_grad_enabled() else []
        return Unused.apply(y, *parameters) if parameters else y

    def masked(self) -> tuple[Tensor | None, Tensor]:
        """base_weight and spline_scale times the mask, [I, O]."""
        base, mask = self.linear.base_weight, self.edge_mask
        return None if base is None else base * mask, self.linear.spline_scale * mask

    def weights(self, masked: bool = True) -> Tensor:
        """The weights [I, F + 1, O] of every edge for its features: basis functions, then the base function."""
        base, scale = self.masked() if masked else (self.linear.base_weight, self.linear.spline_scale)
        base = torch.zeros_like(scale) if base is None else base
        return torch.cat([self.linear.coef * scale[:, None], base[:, None]], 1)

    def features(self, x: Tensor) -> Tensor:
        """The basis functions of every input, then the base function: x [N, I] -> [N, I, F + 1].

        In float64, or float32 on a device without it.
        """
        parts = zip(x.split(BLOCK, 1), self.linear.knots.split(BLOCK), strict=True)
        blocks = [self._features(part, grid) for part, grid in parts]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1)

    def _features(self, x: Tensor, grid: Tensor) -> Tensor:
        # By the fused operator, with one output for every basis function of a few inputs.
        if functional.is_autocast(x.device):  # 16 bits are not enough for a covariance
            with torch.autocast(x.device.type, enabled=False):
                return self._features(x, grid)
        linear, functions = self.linear, self.num + self.k
        spec = linear.spec._replace(base=BASES.index("zero"))
        dtype = torch.promote_types(linear.coef.dtype, torch.float32)
        identity = torch.eye(len(grid) * functions, device=x.device, dtype=dtype).view(len(grid), functions, -1)
        y = functional.apply(x, identity, grid, None, None, None, spec, linear.backend)
        activation = linear.base_activation
        base = torch.zeros_like(x) if activation is None else activation(x)
        return torch.cat([y.view(len(x), len(grid), functions), base[..., None]], -1).to(grid.dtype)

    def postacts(self, x: Tensor) -> Tensor:
        """The output of every edge, [N, O, I]; for inspection, not for training."""
        return self._values(x).to(self.linear.coef.dtype)

    def _values(self, x: Tensor) -> Tensor:
        phi = self.features(x)
        return torch.einsum("nif,ifo->noi", phi, self.weights().to(phi.dtype))

    def postspline(self, x: Tensor) -> Tensor:
        """Every edge's spline without its scale and mask, [N, O, I]; for inspection."""
        phi = self.features(x)[..., :-1]
        return torch.einsum("nif,ifo->noi", phi, self.linear.coef.to(phi.dtype)).to(self.linear.coef.dtype)

    def edge_values(self, x: Tensor, inputs: Tensor, outputs: Tensor, masked: bool = True) -> Tensor:
        """The outputs of edges from inputs[e] to outputs[e]: x [N, I] -> [N, E]."""
        phi = self.features(x)[:, inputs]  # N E F
        weights = self.weights(masked)[inputs, :, outputs].to(phi.dtype)  # E F
        return torch.einsum("nef,ef->ne", phi, weights).to(self.linear.coef.dtype)

    def edge_std(self, x: Tensor) -> Tensor:
        """The standard deviation of every edge over the rows of x [N, I]: [O, I], differentiable, no [N, I, O].

        Computed by the fused operator. For a base function that is not fused: with C[i] the covariance of input i's
        features, the variance of an edge is w C w, in their dtype. Its square root amplifies rounding: a constant edge
        has about 1e-8 of its weights in float64. A few inputs at a time; where there are many features, they are
        computed again in the backward pass.
        """
        if self.linear.fused:
            variance = self.moments(x)[2].T * (len(x) / max(1, len(x) - 1))
            return safe_sqrt(variance).to(self.linear.coef.dtype)
        parts = list(zip(x.split(BLOCK, 1), self.linear.knots.split(BLOCK), self.weights().split(BLOCK), strict=True))
        if x.numel() * (self.num + self.k) < MAX_SAVED or by_func():
            blocks = [self._edge_std(*part) for part in parts]
        else:
            options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
            blocks = [checkpoint(self._edge_std, *part, **options) for part in parts]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1)

    def _edge_std(self, x: Tensor, grid: Tensor, weights: Tensor) -> Tensor:
        phi = self._features(x, grid)
        phi = (phi - phi.mean(0)).transpose(0, 1)  # I N F
        weights = weights.to(phi.dtype)  # I F O
        variance = (weights * (phi.mT @ phi @ weights)).sum(1).T / max(1, len(x) - 1)
        return safe_sqrt(variance).to(self.linear.coef.dtype)

    def edge_mean(self, x: Tensor) -> Tensor:
        """The mean of |phi| over the rows of x [N, I] for every edge: [O, I], differentiable, by the fused operator."""
        if self.linear.fused:
            return self.moments(x)[0].T.to(self.linear.coef.dtype)
        return self._values(x).abs().mean(0).to(self.linear.coef.dtype)

    def moments(self, x: Tensor) -> Tensor:
        """Mean absolute value, mean and variance of every edge, see functional.apply_edge_moments."""
        linear, (base, scale) = self.linear, self.masked()
        coef = linear.coef * scale[:, None]
        return functional.apply_edge_moments(x, coef, linear.knots, base, linear.spec, linear.backend)

    def another(self, in_dim: int, out_dim: int, **options) -> "KANLayer":
        """A newly initialized layer of another size with this layer's options."""
        linear = self.linear
        new = type(self)(
            in_dim, out_dim, self.num, self.k, noise_scale=0.3,
            base_fun="zero" if linear.base_weight is None else "identity", grid_eps=linear.grid_eps,
            grid_range=linear.grid_range, outside=linear.outside, family=linear.family, backend=linear.backend,
            generator=torch.Generator("cpu").manual_seed(0), device=linear.coef.device, dtype=linear.coef.dtype,
            **options,
        )  # fmt: skip
        new.base_fun = self.base_fun
        return new

    def rearranged(self, inputs: Sequence[int | None], outputs: Sequence[int | None]) -> "KANLayer":
        """A layer with these inputs and outputs of this layer, in this order; None for a new one.

        Edges of a new input or output are newly initialized and switched off.
        """
        linear, new = self.linear, self.another(len(inputs), len(outputs))
        (to_i, from_i), (to_j, from_j) = (_matches(indices, linear.coef.device) for indices in (inputs, outputs))
        to_edges, from_edges = (to_i[:, None], to_j), (from_i[:, None], from_j)
        with torch.no_grad():
            grid = new.linear.grid.clone()
            grid[to_i] = linear.knots[from_i]
            new.linear.set_grid(grid)
            new.edge_mask.zero_()
            new.edge_mask[to_edges] = self.edge_mask[from_edges]
            for name in ("coef", "base_weight", "spline_scale"):
                if getattr(linear, name) is not None:
                    target, source = (getattr(of, name).movedim(-1, 1) for of in (new.linear, linear))
                    target[to_edges] = source[from_edges]
        for name, p in new.linear.named_parameters(recurse=False):
            p.requires_grad_(getattr(linear, name).requires_grad)
        return new

    # The mask

    @property
    def mask(self) -> Tensor:
        """[I, O], 0 where an edge is switched off; may be changed in place or set."""
        self._plan = None
        return self.edge_mask

    @mask.setter
    def mask(self, mask: Tensor) -> None:
        with torch.no_grad():
            self.edge_mask.copy_(torch.as_tensor(mask))
        self._plan = None

    def current_plan(self) -> "Plan | None":
        """The plan for the present mask; None where its values are not known."""
        mask = self._buffers["edge_mask"]  # an attribute takes as long as a small layer
        if not readable(mask) or (not mask.is_cpu and mask.is_inference()):
            return None
        return self.plan_of(mask)

    def plan_of(self, mask: Tensor) -> "Plan":
        """current_plan for the layer's mask where it is known to be readable."""
        plan = self._plan
        if plan is None or not plan.mask.holds(mask):
            plan = self._plan = Plan(mask)
        return plan

    @property
    def active(self) -> bool:
        """Whether any edge has a mask other than 0."""
        plan = self.current_plan()
        return True if plan is None else plan.active

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_plan": None}

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        prepare_numeric(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    # pykan's names

    @property
    def in_dim(self) -> int:
        return self.linear.in_features

    @property
    def out_dim(self) -> int:
        return self.linear.out_features

    @property
    def num(self) -> int:
        """G, the number of grid intervals."""
        return self.linear.grid_size

    @property
    def k(self) -> int:
        return self.linear.spline_order

    @property
    def nonzero(self) -> int:
        """How many basis functions are not zero at an x: k + 1 splines, all functions of another family."""
        return self.k + 1 if self.linear.family == "bspline" else self.num

    @property
    def base_fun(self) -> str | Callable[[Tensor], Tensor]:
        """The base function, by its name where it has one of BASES; may be set."""
        return cast(str | Callable[[Tensor], Tensor], self.linear.base_name or self.linear.base_activation)

    @base_fun.setter
    def base_fun(self, base_fun: str | Callable[[Tensor], Tensor]) -> None:
        self.linear.base_activation = base_fun  # pyright: ignore[reportAttributeAccessIssue]  converted when set

    @property
    def grid_eps(self) -> float:
        return self.linear.grid_eps

    @property
    def device(self) -> torch.device:
        return self.linear.coef.device

    @property
    def grid(self) -> Tensor:
        """[I, G + 2k + 1], see KANLinear; may be set, see linear.set_grid for coef to go with it."""
        return self.linear.grid

    @grid.setter
    def grid(self, grid: Tensor) -> None:
        self.linear.grid = grid

    @property
    def coef(self) -> Tensor:
        """linear.coef [I, G + k, O] as [I, O, G + k]; see ParameterView. May be set."""
        return view_of(self.linear.coef, 0, 2, 1)

    @coef.setter
    def coef(self, coef: Tensor) -> None:
        self.coef.data = coef

    @property
    def scale_base(self) -> Tensor:
        """[I, O]; zeros where there is no base function."""
        return (
            torch.zeros_like(self.linear.spline_scale) if self.linear.base_weight is None else self.linear.base_weight
        )

    @scale_base.setter
    def scale_base(self, scale: Tensor) -> None:
        if self.linear.base_weight is not None:
            self._write("base_weight", scale)

    @property
    def scale_sp(self) -> Tensor:
        """[I, O]."""
        return self.linear.spline_scale

    @scale_sp.setter
    def scale_sp(self, scale: Tensor) -> None:
        self._write("spline_scale", scale)

    @torch.no_grad()
    def _write(self, name: str, value: Tensor) -> None:
        value = torch.as_tensor(value).to(getattr(self.linear, name))
        own = self.linear._parameters.get(name)
        if own is not None:
            own.copy_(value)
        else:
            set_computed(self.linear, name, value.expand(self.in_dim, self.out_dim))


class Plan:
    """The parts of a layer that a forward pass needs for a mask.

    inputs, outputs: the indices of those with an edge, or None if all or none have one; full: all masks are 1; active:
    any is not 0; on [I, O]: which are not 0, on the host.
    """

    def __init__(self, mask: Tensor):
        self.mask, self.home = Snapshot(mask), home(mask.device)
        values = mask.cpu()  # on a GPU one wait, not four
        self.full = bool((values == 1).all())
        self.on = values != 0
        self.active = bool(self.on.any())
        self.inputs, self.outputs = (
            None if bool(u.all()) or not self.active else u.nonzero().flatten().to(mask.device)
            for u in (self.on.any(1), self.on.any(0))
        )

    @cached_property
    def edges(self) -> tuple[Tensor, Tensor]:
        """Inputs and outputs [E] of the edges whose mask is not 0, on the device on which float64 is computed."""
        inputs, outputs = self.on.nonzero().T.contiguous().to(self.home)
        return inputs, outputs


def _matches(indices: Sequence[int | None], device: torch.device) -> tuple[Tensor, Tensor]:
    """The positions of the old nodes in `indices`, and their old indices."""
    pairs = [(new, old) for new, old in enumerate(indices) if old is not None]
    matches = torch.tensor(pairs, dtype=torch.long, device=device).reshape(-1, 2)
    return matches[:, 0], matches[:, 1]


class Unused(torch.autograd.Function):
    """The identity of its first argument; the other arguments get no gradient."""

    @staticmethod
    def forward(ctx, y: Tensor, *parameters: Tensor) -> Tensor:
        ctx.count = len(parameters)
        return y.view_as(y)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, *(None,) * ctx.count


def safe_sqrt(x: Tensor) -> Tensor:
    """sqrt with value and gradient 0 where x <= 0 (by rounding); NaN for NaN."""
    is_zero = x <= 0
    return x.masked_fill(is_zero, 1.0).sqrt().masked_fill(is_zero, 0.0)
