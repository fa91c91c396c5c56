"""KANLinear: a KAN layer as a module, under the names that efficient-kan gave them."""

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .. import functional, select
from ..arguments import integer, number
from ..basis.base import BASES
from ..basis.bspline import OUTSIDE, bspline_features, uniform_knots
from ..snapshot import Snapshot, readable
from ..spec import MAX_DEGREE, Spec
from ..stack import Layer
from .computed import set_computed
from .data_sample import Sample
from .grid import adaptive_knots, is_uniform, resized_knots
from .module import Module
from .refit import refit
from .state_dict import read_state
from .view import view_of

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Random numbers drawn by one generator, one after the other.
CHUNK = 1 << 22


class KANLinear(Module):
    """y[n,o] = sum_i (base_weight[i,o] b(x[n,i]) + sum_f coef[i,f,o] B_{i,f}(x[n,i])) + bias[o].

    Takes the place of efficient-kan's KANLinear: its arguments, methods and attributes are here, and its state dicts
    load. One difference is deliberate: the scale of each edge's spline (w_s of the paper, efficient-kan's
    spline_scaler) is a parameter only with enable_standalone_scale_spline=True. It is redundant, since
    scale * coef are coefficients too, and costs a product over all coefficients in every step.

    Args:
        in_features, out_features: I and O, at least 1.
        grid_size: G, intervals of the grid range, at least 1.
        spline_order: K, the degree of the splines, 0 to 5.
        scale_noise: coefficients start uniformly distributed within +-scale_noise * scale_spline / (2 * grid_size).
        scale_base: base weights start as torch.nn.init.kaiming_uniform_ with a = sqrt(5) * scale_base makes them.
        scale_spline: see scale_noise; with enable_standalone_scale_spline the start of every spline_scale instead.
        enable_standalone_scale_spline: have a trainable scale per edge.
        base_activation: b, a class, an instance or any elementwise function; "silu", "identity" or "zero", or None for
            no base term. SiLU and Identity are computed together with the splines, others beside them.
        grid_eps: share of the uniform grid in update_grid, from 0 to 1.
        grid_range: ends of the grid, ascending.
        bias: add a trainable bias, zero at the start.
        outside: what a spline is outside its grid range, "zero", "linear" or "clamp", see functional.kan_linear.
        backend: name of the backend that has to be used; None for the choice that fastkan.backends() explains.
        generator: source of the random start, on the layer's device; None for torch's own.
        device, dtype: of the parameters.

    Parameters: coef [I, G + K, O]; base_weight [I, O] or None; spline_scale [I, O] or None; bias [O] or None.
    Buffer: grid [I, G + 2K + 1], always in float64, whatever the layer is cast to, so that a layer is exact after
    .double(). set_grid, update_grid and extend_grid change it along with coef. It may be written by anything else too:
    a layer is its tensors, and what it computes follows their present values.

    Raises TypeError or ValueError that name the argument, its value and what was expected.

    Source: Liu et al., KAN (arXiv 2404.19756), section 2.2.
    """

    exact = ("grid",)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid_size: int = 5,
        spline_order: int = 3,
        scale_noise: float = 0.1,
        scale_base: float = 1.0,
        scale_spline: float = 1.0,
        enable_standalone_scale_spline: bool = False,
        base_activation: type | Callable[[Tensor], Tensor] | str | None = nn.SiLU,
        grid_eps: float = 0.02,
        grid_range: tuple[float, float] = (-1, 1),
        *,
        bias: bool = False,
        outside: str = "zero",
        backend: str | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_features = integer("in_features", in_features, 1)
        self.out_features = integer("out_features", out_features, 1)
        grid_size = integer("grid_size", grid_size, 1)
        degree = integer("spline_order", spline_order, 0, MAX_DEGREE)
        self.scale_noise = number("scale_noise", scale_noise)
        self.scale_base = number("scale_base", scale_base)
        self.scale_spline = number("scale_spline", scale_spline)
        self.grid_eps = number("grid_eps", grid_eps, 0.0, 1.0)
        self.grid_range = _range(grid_range)
        if backend is not None and backend not in select.BACKENDS:
            raise ValueError(f"backend={backend!r}: expected None or one of {', '.join(map(repr, select.BACKENDS))}")
        self.backend = backend
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if dtype not in _DTYPES:
            raise TypeError(f"dtype={dtype}: expected float32, float64, bfloat16 or float16")
        self._spec, self._evenness = Spec.of(degree, "zero", outside, False), None
        self.base_activation = base_activation
        with_base = not self._fused or BASES[self._spec.base] != "zero"

        def parameter(name: str, wanted: bool, *shape: int) -> None:
            made = nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) if wanted else None
            self.register_parameter(name, made)

        edges = self.in_features, self.out_features
        parameter("coef", True, edges[0], grid_size + degree, edges[1])
        parameter("base_weight", with_base, *edges)
        parameter("spline_scale", bool(enable_standalone_scale_spline), *edges)
        parameter("bias", bool(bias), edges[1])
        knots = grid_size + 2 * degree + 1
        self.register_buffer("grid", torch.empty(edges[0], knots, device=device, dtype=torch.float64))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Back to the start: random parameters, and a uniform grid of the present size on grid_range."""
        knots = uniform_knots(*self.grid_range, self.grid_size, self.spline_order, device=self.grid.device)
        self.grid.copy_(knots.expand_as(self.grid))
        noise = self.scale_noise / (2 * self.grid_size)
        if self.spline_scale is not None:
            self.spline_scale.fill_(self.scale_spline)
        else:
            noise *= self.scale_spline
        _fill_uniform(self.coef, abs(noise), generator)
        if self.base_weight is not None:
            gain = nn.init.calculate_gain("leaky_relu", math.sqrt(5) * self.scale_base)
            bound = gain * math.sqrt(3 / self.in_features)
            self.base_weight.uniform_(-bound, bound, generator=generator)
        if self.bias is not None:
            self.bias.zero_()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [..., I] -> [..., O] in the parameters' dtype; a row with a NaN is NaN. mask [I, O] multiplies edges."""
        functional.check_input(x, self.in_features)
        coef, scale, weight, bias = self.weights()
        if mask is not None:
            weight, scale = None if weight is None else weight * mask, mask if scale is None else scale * mask
        return self.evaluate(x, coef, self.knots, weight, bias, scale)

    def evaluate(
        self, x: Tensor, coef: Tensor, knots: Tensor, weight: Tensor | None, bias: Tensor | None, scale: Tensor | None
    ) -> Tensor:
        """What forward computes, of these tensors in the place of the layer's own."""
        if self.fused:
            return functional.apply(x, coef, knots, weight, bias, scale, self.spec, self.backend)
        y = functional.apply(x, coef, knots, None, bias, scale, self.spec, self.backend)
        if weight is None:
            return y
        return y + torch.matmul(self.base_activation(x).to(weight.dtype), weight).to(y.dtype)

    def as_layer(self) -> Layer | None:
        """What a stack of layers needs of this one; None where its base function is not computed with the splines."""
        if not self.fused:
            return None
        return Layer(*self.weights(), self.knots, self.spec)

    def weights(self) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """coef, spline_scale, base_weight and bias."""
        own = self._parameters  # an attribute takes as long as a small layer
        try:
            return own["coef"], own["spline_scale"], own["base_weight"], own["bias"]
        except KeyError:  # computed from others, or held by a wrapper
            return self.coef, self.spline_scale, self.base_weight, self.bias

    @property
    def fused(self) -> bool:
        """Whether the base function is computed with the splines: SiLU, identity or none, and nothing listens to it."""
        base = self._modules.get("base_activation")
        return self._fused and (base is None or not (base._forward_hooks or base._forward_pre_hooks))

    @property
    def base_name(self) -> str | None:
        """The name of the base function, one of basis.base.BASES; None where it is another."""
        return BASES[self._spec.base] if self._fused else None

    @property
    def knots(self) -> Tensor:
        """The grid in float64, whatever it was replaced by."""
        grid = self._buffers["grid"]
        return grid if grid.dtype == torch.float64 else grid.double()

    @property
    def spec(self) -> Spec:
        """What the layer's functions are, for every backend."""
        grid = self._buffers["grid"]
        if grid.is_cpu or not readable(grid) or grid.is_inference():
            return self._spec  # of any knots: the kernels of a CPU look at them themselves
        if self._evenness is None or not self._evenness[0].holds(grid):
            if grid.is_cuda and torch.cuda.is_current_stream_capturing():
                return self._spec
            self._evenness = Snapshot(grid), is_uniform(grid.double())
        return self._spec._replace(uniform=self._evenness[1])

    @property
    def uniform(self) -> bool:
        """Whether the knots are equidistant, which makes evaluation faster; False where they have no values."""
        return readable(self.grid) and is_uniform(self.knots)

    @property
    def grid_size(self) -> int:
        """G, the number of grid intervals; extend_grid changes it."""
        return self._buffers["grid"].shape[-1] - 2 * self._spec.degree - 1

    @property
    def spline_order(self) -> int:
        """K, the degree of the splines."""
        return self._spec.degree

    @property
    def enable_standalone_scale_spline(self) -> bool:
        """Whether there is a trainable scale per edge."""
        return self.spline_scale is not None

    @property
    def outside(self) -> str:
        """What a spline is outside its grid range; may be set."""
        return OUTSIDE[self._spec.outside]

    @outside.setter
    def outside(self, outside: str) -> None:
        self._spec = Spec.of(self.spline_order, BASES[self._spec.base], outside, False)

    def __setattr__(self, name: str, value) -> None:
        if name == "base_activation":
            value = self._set_base(value)
        elif name == "grid" and "grid" in self._buffers:
            value = self._checked_grid(value)
        super().__setattr__(name, value)

    def _set_base(self, activation) -> Callable[[Tensor], Tensor] | None:
        base, activation = _base(activation)
        has_weight = "coef" not in self._parameters or self.base_weight is not None
        if base != "zero" and not has_weight:
            raise ValueError(f"base_activation={activation!r}: the layer was made without a base function")
        self._fused, self._spec = base is not None, Spec.of(self.spline_order, base or "zero", self.outside, False)
        self._modules.pop("base_activation", None)
        self.__dict__.pop("base_activation", None)
        return activation

    def _checked_grid(self, grid: Tensor) -> Tensor:
        shape = [self.in_features, self.coef.shape[1] + self.spline_order + 1]
        if not isinstance(grid, Tensor) or list(grid.shape) != shape:
            found = list(grid.shape) if isinstance(grid, Tensor) else type(grid).__name__
            raise ValueError(f"grid is {found}: expected a tensor of shape {shape}, to go with coef; see set_grid")
        return grid.detach().to(torch.float64)

    @torch.no_grad()
    def set_grid(self, grid: Tensor, coef: Tensor | None = None) -> None:
        """Other knots, and the coefficients that go with them: grid [M] or [I, M], coef [I, M - K - 1, O].

        Without coef the present coefficients stay, which changes the function; then M has to stay too. With another
        number of intervals `coef` becomes a new Parameter: build the optimizer again. After an error nothing has
        changed.
        """
        self._refuse_if_spread()
        knots = torch.as_tensor(grid, dtype=torch.float64, device=self.grid.device)
        if knots.dim() not in (1, 2) or knots.shape[:-1] not in ((), (self.in_features,)):
            raise ValueError(f"grid has shape {list(knots.shape)}: expected [knots] or [{self.in_features}, knots]")
        grid_size = knots.shape[-1] - 2 * self.spline_order - 1
        if grid_size < 1:
            raise ValueError(f"grid has {knots.shape[-1]} knots: expected at least {2 * self.spline_order + 2}")
        if not knots.is_meta and not (knots.isfinite().all() and (knots.diff(dim=-1) > 0).all()):
            raise ValueError("grid is not strictly increasing: expected finite, ascending knots")
        coef = self.coef if coef is None else coef
        shape = [self.in_features, grid_size + self.spline_order, self.out_features]
        if list(coef.shape) != shape:
            raise ValueError(f"coef has shape {list(coef.shape)}: expected {shape}, to go with grid")
        self._set(knots.expand(self.in_features, -1).contiguous(), coef)

    def update_grid(self, x: Tensor | Iterable, margin: float = 0.01, inwards: float = 1.0) -> None:
        """Let the knots follow the data: grid_eps * uniform + (1 - grid_eps) * quantiles, on the range of x +- margin.

        The function is kept, by least squares on the data (see refit.py): coef changes in place. Inputs that are
        constant, binary or take few values are all right.

        x: [..., I], or batches of it: an iterable of tensors, or of tuples that begin with one, as a DataLoader gives.
        It is passed once; ranges are exact, quantiles and fit use up to sample.SAMPLE_ROWS of the rows, the same
        whatever the batches.

        inwards: the part of its way that an end of the range moves when the range shrinks, 0 to 1. Where x are
        activations that change while a network learns, a range that shrinks at once holds them where they are.

        Coefficients belong to their grid: whoever averages parameters by hand averages layers on the same grid, as
        torch's AveragedModel does. Under DistributedDataParallel, which sends grids from the first process to the
        others and coefficients only at the start, every process gives the same x. Before fully_shard only.

        Raises ValueError for an x that is empty, not finite or of another width. After an error nothing has changed.
        """
        self._refuse_if_spread()
        margin, inwards = number("margin", margin, 0.0), number("inwards", inwards, 0.0, 1.0)
        sample = Sample.of(x, self.in_features, self.grid.device)
        quantiles = sample.quantiles(self.grid_size + 1)
        low, high = sample.low - margin, sample.high + margin
        if inwards < 1:
            first, last = self.knots[:, self.spline_order], self.knots[:, -self.spline_order - 1]
            low, high = torch.minimum(low, first.lerp(low, inwards)), torch.maximum(high, last.lerp(high, inwards))
        self.move_grid(adaptive_knots(quantiles, low, high, self.spline_order, self.grid_eps), sample.ordered)

    def extend_grid(self, new_size: int) -> None:
        """Other number of grid intervals on the same range, from coarse to fine as training goes on.

        On a multiple of the present size the function inside the range is kept to rounding error, else to least
        squares. `coef` becomes a new Parameter: build the optimizer again. After an error nothing has changed.
        """
        self._refuse_if_spread()
        new_size = integer("new_size", new_size, 1)
        self.move_grid(resized_knots(self.knots, self.spline_order, new_size))

    def _refuse_if_spread(self) -> None:
        """Of FSDP also where the parameters are whole for the moment: what is written to them then is lost."""
        if hasattr(self.coef, "full_tensor") or "_is_fsdp_managed_module" in self.__dict__:
            raise RuntimeError(
                "the parameters are spread over processes, so that the grid can't be changed: call update_grid, "
                "extend_grid and set_grid before fully_shard or parallelize_module"
            )

    @torch.no_grad()
    def move_grid(self, grid: Tensor, samples: Tensor | None = None) -> None:
        """Other knots [I, M] in float64, and the coefficients of the same function by least squares, see refit."""
        self._set(grid, refit(self.coef, self.knots, grid, self.spline_order, self.outside, samples))

    def _set(self, grid: Tensor, coef: Tensor) -> None:
        before = self.coef
        coef = coef.to(before)
        if not coef.is_meta and not coef.isfinite().all():
            raise RuntimeError(f"coef on the new grid is not finite in {coef.dtype}: the layer stays as it was")
        if "coef" not in self._parameters:
            set_computed(self, "coef", coef)
        elif coef.shape == before.shape:
            before.copy_(coef)
        else:
            coef = coef.clone(memory_format=torch.contiguous_format)  # optimizers flatten gradients
            self.coef = nn.Parameter(coef, requires_grad=before.requires_grad)
        if (grid.shape, grid.dtype) == (self.grid.shape, self.grid.dtype):
            self.grid.copy_(grid)
        else:
            self.grid = grid.clone()

    def outside_share(self, x: Tensor) -> Tensor:
        """The share of the rows of x [..., I] that is outside the grid range, for each input: [I]; NaN is outside.

        Inputs that have left their grid learn nothing there: the most common silent failure of a KAN. Of no rows it is
        NaN.
        """
        functional.check_input(x, self.in_features)
        knots = self.knots
        low, high = knots[:, self.spline_order], knots[:, -self.spline_order - 1]
        inside = (x >= low) & (x <= high)
        return (~inside).reshape(-1, self.in_features).float().mean(0)

    def edge_mean(self, x: Tensor) -> Tensor:
        """E[i,o] = mean over the rows of x [..., I] of |phi[i,o]|: the size of every edge, [I, O]; differentiable."""
        functional.check_input(x, self.in_features)
        coef = self._scaled_coef()
        if self.fused:
            moments = functional.apply_edge_moments(x, coef, self.knots, self.base_weight, self.spec, self.backend)
            return moments[0].to(coef.dtype)
        rows = x.reshape(-1, self.in_features)
        step = max(1, CHUNK // coef[:, 0].numel())
        parts = [checkpoint(self._edge_sum, part, coef, use_reentrant=False) for part in rows.split(step)]
        return sum(parts) / len(rows)

    def _edge_sum(self, x: Tensor, coef: Tensor) -> Tensor:
        spline = torch.einsum("nif,ifo->nio", self.b_splines(x).to(coef.dtype), coef)
        base = self.base_activation(x).to(coef.dtype)
        return (spline + base[..., None] * self.base_weight).abs().sum(0)

    def regularization(self, x: Tensor, l1: float = 1.0, entropy: float = 1.0) -> Tensor:
        """l1 * sum E - entropy * sum p log p with E = edge_mean(x), p = E / sum E: the paper's, on activations.

        [N, I, O] is never held. Source: Liu et al., KAN (arXiv 2404.19756), eqs. 2.17 to 2.20.
        """
        return _regularization(self.edge_mean(x), l1, entropy)

    def regularization_loss(self, regularize_activation: float = 1.0, regularize_entropy: float = 1.0) -> Tensor:
        """The same of the mean |coef| of every edge, without data, as in efficient-kan."""
        return _regularization(self.coef.abs().mean(1), regularize_activation, regularize_entropy)

    @property
    def spline_weight(self) -> Tensor:
        """coef in efficient-kan's order, [O, I, F], without the scale; see ParameterView. May be set."""
        return view_of(self.coef, 2, 0, 1)

    @spline_weight.setter
    def spline_weight(self, weight: Tensor) -> None:
        self.spline_weight.data = weight

    @property
    def scaled_spline_weight(self) -> Tensor:
        """coef * spline_scale, [O, I, F]."""
        return self._scaled_coef().permute(2, 0, 1)

    @property
    def spline_scaler(self) -> Tensor | None:
        """spline_scale as [O, I]; see ParameterView. May be set."""
        return None if self.spline_scale is None else view_of(self.spline_scale, 1, 0)

    @spline_scaler.setter
    def spline_scaler(self, scale: Tensor) -> None:
        if self.spline_scale is None:
            raise ValueError("spline_scaler: expected a layer made with enable_standalone_scale_spline=True")
        self.spline_scaler.data = scale

    def _scaled_coef(self) -> Tensor:
        return self.coef if self.spline_scale is None else self.coef * self.spline_scale[:, None]

    def b_splines(self, x: Tensor) -> Tensor:
        """The spline functions at x [..., I]: [..., I, F] in x's dtype."""
        functional.check_input(x, self.in_features)
        rows = x.reshape(-1, self.in_features).double()
        phi = bspline_features(rows, self.knots, self.spline_order, self.outside)
        return phi.to(x.dtype).view(*x.shape, phi.shape[-1])

    def curve2coeff(self, x: Tensor, y: Tensor) -> Tensor:
        """The coefficients [O, I, F] of the splines closest to y [N, I, O] at x [N, I], the smallest of them."""
        functional.check_input(x, self.in_features)
        expected = [*x.shape, self.out_features]
        if x.dim() != 2 or list(y.shape) != expected:
            raise ValueError(f"x, y have shapes {list(x.shape)}, {list(y.shape)}: expected [N, I] and [N, I, O]")
        phi = self.b_splines(x.double()).transpose(0, 1)  # I N F
        coef = torch.linalg.pinv(phi) @ y.double().transpose(0, 1)  # I F O
        return coef.permute(2, 0, 1).to(y.dtype).contiguous()

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors) -> None:
        known = len(errors)
        hint = read_state(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)
        if len(errors) > known:
            errors.append(hint)

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_evenness": None}

    def extra_repr(self) -> str:
        text = (
            f"in_features={self.in_features}, out_features={self.out_features}, grid_size={self.grid_size}, "
            f"spline_order={self.spline_order}, grid_range={self.grid_range}, bias={self.bias is not None}, "
            f"outside={self.outside!r}, uniform={self.uniform}"
        )
        if not isinstance(self.base_activation, nn.Module):
            text += f", base_activation={self.base_name or self.base_activation!r}"
        if self.spline_scale is not None:
            text += ", enable_standalone_scale_spline=True"
        return text if self.backend is None else f"{text}, backend={self.backend!r}"


def _regularization(edges: Tensor, l1: float, entropy: float) -> Tensor:
    edges = edges.double() if edges.dtype == torch.float64 else edges.float()
    floor = 1e-20  # 0 log 0 = 0, with a finite gradient
    total = edges.sum()
    share = edges / torch.where(total > floor, total, 1.0)
    return l1 * total - entropy * (share * share.clamp_min(floor).log()).sum()


def _fill_uniform(out: Tensor, bound: float, generator: torch.Generator | None) -> None:
    """out.uniform_(-bound, bound); large ones on all threads, by generators seeded from the given one."""
    if out.device.type != "cpu" or out.numel() <= CHUNK:
        out.uniform_(-bound, bound, generator=generator)
        return
    chunks = out.detach().view(-1).split(CHUNK)
    seeds = torch.randint(2**62, (len(chunks),), generator=generator, device="cpu").tolist()

    def fill(chunk: Tensor, seed: int) -> None:
        chunk.uniform_(-bound, bound, generator=torch.Generator("cpu").manual_seed(seed))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, chunks, seeds))


def _base(activation) -> tuple[str | None, Callable[[Tensor], Tensor] | None]:
    """The name of a base function that is computed with the splines, or None, and the function itself."""
    modules = {"silu": nn.SiLU, "identity": nn.Identity, "zero": None}
    if isinstance(activation, str) and activation not in modules:
        names = ", ".join(map(repr, modules))
        raise ValueError(f"base_activation={activation!r}: expected one of {names}, or a function")
    if activation is None or isinstance(activation, str):
        activation = modules[activation or "zero"]
    if activation is None:
        return "zero", None
    if isinstance(activation, type):
        activation = activation()
    if not callable(activation):
        raise TypeError(f"base_activation={activation!r}: expected a name, a function, a module or its class, or None")
    if activation is nn.functional.silu:
        return "silu", activation
    return {nn.SiLU: "silu", nn.Identity: "identity"}.get(type(activation)), activation


def _range(value) -> tuple[float, float]:
    try:
        low, high = value
    except (TypeError, ValueError):
        raise TypeError(f"grid_range={value!r}: expected two numbers, ascending") from None
    low, high = number("grid_range[0]", low), number("grid_range[1]", high)
    if not low < high:
        raise ValueError(f"grid_range={value!r}: expected two numbers, ascending")
    return low, high
