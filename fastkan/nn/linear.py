"""KANLinear: a KAN layer as a module, with efficient-kan's names."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from .. import functional, select
from ..arguments import ascending, integer, number
from ..basis.base import BASES
from ..basis.bspline import OUTSIDE, uniform_knots
from ..devices import exact, has_float64, home, host, place, widest
from ..reference import basis_features
from ..snapshot import Snapshot, readable
from ..spec import FAMILIES, MAX_DEGREE, OUTSIDE_OF, Spec, index_of, with_uniform
from ..stack import Layer
from .base_function import Activation, Function, resolve
from .data_sample import Sample
from .grid import adaptive_knots, is_uniform, resized_knots, snapped
from .initialization import fill_uniform
from .module import Module
from .parametrized import set_computed
from .processes import by_fsdp, checked_group, from_first, placed_as, whole
from .refit import refit
from .refit_family import refit_family
from .state_dict import read_state
from .view import view_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Elements of [rows, F, O] in memory at a time, in edge_mean with a base function that is not fused.
BLOCK = 1 << 22


class KANLinear(Module):
    """y[n,o] = sum_i (base_weight[i,o] b(x[n,i]) + sum_f coef[i,f,o] B_{i,f}(x[n,i])) + bias[o].

    A drop-in replacement of efficient-kan's KANLinear: same arguments, methods and attributes, and its state dicts
    load. One difference is deliberate: the scale of each edge's spline (w_s in the paper, efficient-kan's
    spline_scaler) is a parameter only with enable_standalone_scale_spline=True. It is redundant, since scale * coef are
    coefficients too, and costs a product over all coefficients in every step.

    Args:
        in_features, out_features: I and O, at least 1.
        grid_size: G, number of intervals of the grid range, at least 1; of another family the number of functions.
        spline_order: K, the degree of the splines, 0 to 5, by default 3. Other families have none; None or 0.
        scale_noise: initial coefficients are uniform within +-scale_noise * scale_spline / (2 * grid_size).
        scale_base: initial base weights are torch.nn.init.kaiming_uniform_ with a = sqrt(5) * scale_base.
        scale_spline: see scale_noise; with enable_standalone_scale_spline the initial spline_scale instead.
        enable_standalone_scale_spline: add a trainable scale per edge.
        base_activation: base function b of the residual connection: a module, its class or any elementwise function;
            "silu", "identity" or "zero"; None for no base term. SiLU and Identity are fused with the splines.
        grid_eps: share of the uniform grid in update_grid, from 0 to 1.
        grid_range: ends of the grid, ascending.
        bias: add a trainable bias, initially zero.
        outside: extrapolation outside the grid range, by default "zero", or "linear" or "clamp", see
            functional.kan_linear; other families have one of their own.
        family: of the basis functions, "bspline" or another such as "fourier" or "legendre", see docs/families.md.
        backend: name of the backend to use; None for the automatic choice, see fastkan.backends().
        generator: random generator of the initial values, on the layer's device; None for torch's default.
        device, dtype: of the parameters.

    Parameters: coef [I, G + K, O]; base_weight [I, O] or None; spline_scale [I, O] or None; bias [O] or None.
    Buffer: grid [I, G + 2K + 1], always in float64, whatever the layer is cast to, so that a layer is exact after
    .double(); in float32 only on a device without float64, such as MPS. Back on another device uniform knots are
    exactly uniform again, and others keep the rounding. set_grid, update_grid and extend_grid change the grid together
    with coef. Any other code may write to it too: the layer always computes with the present values of its tensors.

    Raises TypeError or ValueError that name the argument, its value and what was expected.

    Source: Liu et al., KAN (arXiv 2404.19756), section 2.2.
    """

    exact = ("grid",)
    coef: nn.Parameter
    base_weight: nn.Parameter | None
    spline_scale: nn.Parameter | None
    bias: nn.Parameter | None
    grid: Tensor
    base_activation: Function | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid_size: int = 5,
        spline_order: int | None = None,
        scale_noise: float = 0.1,
        scale_base: float = 1.0,
        scale_spline: float = 1.0,
        enable_standalone_scale_spline: bool = False,
        base_activation: Activation = nn.SiLU,
        grid_eps: float = 0.02,
        grid_range: tuple[float, float] = (-1, 1),
        *,
        bias: bool = False,
        outside: str | None = None,
        family: str = "bspline",
        backend: str | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_features = integer("in_features", in_features, 1)
        self.out_features = integer("out_features", out_features, 1)
        grid_size = integer("grid_size", grid_size, 1)
        degree = degree_of("spline_order", spline_order, family)
        self.scale_noise = number("scale_noise", scale_noise)
        self.scale_base = number("scale_base", scale_base)
        self.scale_spline = number("scale_spline", scale_spline)
        self.grid_eps = number("grid_eps", grid_eps, 0.0, 1.0)
        self.grid_range = ascending("grid_range", grid_range)
        if backend is not None and not select.is_name(backend):
            raise ValueError(f"backend={backend!r}: expected None or one of {', '.join(map(repr, select.BACKENDS))}")
        self.backend = backend
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if dtype not in _DTYPES:
            raise TypeError(f"dtype={dtype}: expected float32, float64, bfloat16 or float16")
        self._spec = Spec.of(degree, "zero", outside, family != "bspline", family)
        self._evenness: tuple[Snapshot, bool] | None = None
        self.base_activation = base_activation  # pyright: ignore[reportAttributeAccessIssue] __setattr__ converts it
        with_base = not self._fused or BASES[self._spec.base] != "zero"

        def parameter(name: str, present: bool, *shape: int) -> None:
            value = nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) if present else None
            self.register_parameter(name, value)

        edges = self.in_features, self.out_features
        parameter("coef", True, edges[0], grid_size + degree, edges[1])
        parameter("base_weight", with_base, *edges)
        parameter("spline_scale", bool(enable_standalone_scale_spline), *edges)
        parameter("bias", bool(bias), edges[1])
        knots = grid_size + 2 * degree + 1
        self.register_buffer("grid", torch.empty(edges[0], knots, device=device, dtype=widest(self.coef.device)))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new initial parameters, and reset to a uniform grid of the present size on grid_range."""
        knots = uniform_knots(*self.grid_range, self.grid_size, self.spline_order, device=home(self.grid.device))
        self.grid.copy_(knots.expand_as(self.grid))
        noise = self.scale_noise / (2 * self.grid_size)
        if self.spline_scale is not None:
            self.spline_scale.fill_(self.scale_spline)
        else:
            noise *= self.scale_spline
        fill_uniform(self.coef, abs(noise), generator)
        if self.base_weight is not None:
            gain = nn.init.calculate_gain("leaky_relu", math.sqrt(5) * self.scale_base)
            bound = gain * math.sqrt(3 / self.in_features)
            self.base_weight.uniform_(-bound, bound, generator=generator)
        if self.bias is not None:
            self.bias.zero_()

    if TYPE_CHECKING:

        def __call__(self, x: Tensor, mask: Tensor | None = None) -> Tensor: ...

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
        """forward with these tensors in place of the layer's own."""
        if self.fused:
            return functional.apply(x, coef, knots, weight, bias, scale, self.spec, self.backend)
        y = functional.apply(x, coef, knots, None, bias, scale, self.spec, self.backend)
        if weight is None or (base := self.base_activation) is None:
            return y
        return y + torch.matmul(base(x).to(weight.dtype), weight).to(y.dtype)

    def as_layer(self) -> Layer | None:
        """This layer as a member of a fused stack; None if its base function is not fused."""
        if not self.fused:
            return None
        return Layer(*self.weights(), self.knots, self.spec)

    def weights(self) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """coef, spline_scale, base_weight and bias."""
        own = self._parameters  # looking up an attribute of a Module takes as long as a small layer
        try:
            return own["coef"], own["spline_scale"], own["base_weight"], own["bias"]
        except KeyError:  # parametrized, or owned by a wrapper
            return self.coef, self.spline_scale, self.base_weight, self.bias

    @property
    def fused(self) -> bool:
        """Whether the base function is fused with the splines: SiLU, identity or none, without hooks."""
        base = self._modules.get("base_activation")
        return self._fused and (base is None or not (base._forward_hooks or base._forward_pre_hooks))

    @property
    def base_name(self) -> str | None:
        """The name of the base function if it is one of basis.base.BASES, else None."""
        return BASES[self._spec.base] if self._fused else None

    @property
    def knots(self) -> Tensor:
        """The grid in float64, even where other code replaced it by another dtype; float32 on a device without it."""
        grid = self._buffers["grid"]
        return grid if grid.dtype == torch.float64 else grid.to(widest(grid.device))

    @property
    def exact_knots(self) -> Tensor:
        """The knots in float64, on the host where the layer's device has none; all of them where they are a DTensor."""
        return whole(self.knots if has_float64(self._buffers["grid"].device) else self._unrounded("grid"))

    def _unrounded(self, name: str) -> Tensor:
        """The grid in float64, on the host where its device has none; uniform if it is but for rounding to float32."""
        return snapped(exact(self._buffers[name]), *self.grid_range, self.spline_order)

    @property
    def spec(self) -> Spec:
        """The basis of the layer, for every backend."""
        grid = self._buffers["grid"]
        if self._spec.family or grid.is_cpu or not readable(grid) or grid.is_inference():
            return self._spec  # for any knots: CPU kernels check them themselves
        return self._promised(grid)

    def _promised(self, grid: Tensor) -> Spec:
        """`spec` on a device whose kernels do not check the knots themselves: uniform where these are."""
        if self._evenness is None or not self._evenness[0].holds(grid):
            if grid.is_cuda and torch.cuda.is_current_stream_capturing():
                return self._spec
            self._evenness = Snapshot(grid), is_uniform(self.exact_knots)
        return with_uniform(self._spec, self._evenness[1])

    @property
    def uniform(self) -> bool:
        """Whether the knots are equidistant, which makes evaluation faster; False where their values cannot be read."""
        return readable(self.grid) and is_uniform(self.exact_knots)

    @property
    def grid_size(self) -> int:
        """G, the number of grid intervals, of another family that of its functions; extend_grid changes it."""
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
    def family(self) -> str:
        """The family of the basis functions."""
        return FAMILIES[self._spec.family]

    @property
    def outside(self) -> str | None:
        """Extrapolation outside the grid range, None for a family whose formula holds everywhere; may be set."""
        return OUTSIDE_OF.get(self.family, OUTSIDE[self._spec.outside])

    @outside.setter
    def outside(self, outside: str | None) -> None:
        self._spec = Spec.of(self.spline_order, BASES[self._spec.base], outside, self._spec.uniform, self.family)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "base_activation":
            value = self._set_base(value)
        elif name == "grid" and "grid" in self._buffers:
            value = self._checked_grid(value)
        super().__setattr__(name, value)

    def _set_base(self, activation: Any) -> Function | None:
        base, activation = resolve(activation)
        has_weight = "coef" not in self._parameters or self.base_weight is not None
        if base != "zero" and not has_weight:
            raise ValueError(f"base_activation={activation!r}: the layer was made without a base function")
        self._fused, self._spec = base is not None, self._spec._replace(base=BASES.index(base or "zero"))
        self._modules.pop("base_activation", None)
        self.__dict__.pop("base_activation", None)
        return activation

    def _checked_grid(self, grid: Any) -> Tensor:
        shape = [self.in_features, self.coef.shape[1] + self.spline_order + 1]
        if not isinstance(grid, Tensor) or list(grid.shape) != shape:
            kind = list(grid.shape) if isinstance(grid, Tensor) else type(grid).__name__
            raise ValueError(f"grid is {kind}: expected a tensor of shape {shape}, to go with coef; see set_grid")
        return place(grid.detach(), grid.device)

    @torch.no_grad()
    def set_grid(self, grid: Tensor, coef: Tensor | None = None) -> None:
        """Set the knots, and the coefficients for them: grid [M] or [I, M], coef [I, M - K - 1, O].

        Without coef the present coefficients remain, which changes the function; then M must remain too. With another
        number of intervals `coef` becomes a new Parameter: rebuild the optimizer. After an error nothing has changed.
        With sharded parameters all processes call this, with the same whole tensors; see extend_grid.
        """
        self._refuse_if_gathered()
        values: Any = grid
        if isinstance(values, Tensor):
            values = exact(whole(values))
        knots = torch.as_tensor(values, dtype=torch.float64, device=home(self.grid.device))
        if knots.dim() not in (1, 2) or knots.shape[:-1] not in ((), (self.in_features,)):
            raise ValueError(f"grid has shape {list(knots.shape)}: expected [knots] or [{self.in_features}, knots]")
        grid_size = knots.shape[-1] - 2 * self.spline_order - 1
        if grid_size < 1:
            raise ValueError(f"grid has {knots.shape[-1]} knots: expected at least {2 * self.spline_order + 2}")
        if not knots.is_meta and not (knots.isfinite().all() and (knots.diff(dim=-1) > 0).all()):
            raise ValueError("grid is not strictly increasing: expected finite, ascending knots")
        if self._spec.family and not knots.is_meta and not is_uniform(torch.atleast_2d(knots)):
            raise ValueError(f"grid is not uniform: expected equidistant knots with family={self.family!r}")
        coef = self.coef if coef is None else coef
        shape = [self.in_features, grid_size + self.spline_order, self.out_features]
        if list(coef.shape) != shape:
            raise ValueError(f"coef has shape {list(coef.shape)}: expected {shape}, to go with grid")
        self._set(knots.expand(self.in_features, -1).contiguous(), whole(coef))

    def update_grid(
        self,
        x: Tensor | Iterable[Any],
        margin: float = 0.01,
        inwards: float = 1.0,
        *,
        process_group: "ProcessGroup | None" = None,
    ) -> None:
        """Adapt the knots to data: grid_eps * uniform + (1 - grid_eps) * quantiles, on the range of x +- margin.

        coef changes in place, to the least-squares fit of the present function on the data (see refit.py). Inputs may
        be constant, binary or take few values. Of another family only the range changes, and the function is kept as
        far as the functions on the new range represent it.

        x: [..., I], or batches of it: an iterable of tensors, or of tuples that begin with one, like a DataLoader. One
        pass; ranges are exact, quantiles and fit use a sample of up to data_sample.SAMPLE_ROWS rows, the same for every
        division into batches.

        inwards: fraction of the full step that an end of the range moves when the range shrinks, 0 to 1. For hidden
        activations, which change during training, a range that shrinks in full would confine them to it.

        process_group: processes that have one layer, such as torch.distributed.group.WORLD under
        DistributedDataParallel: the knots are by the rows of all of them, and equal in all. Every process of the group
        must call this, with rows of its own, as many as it has; the call ends with an error in all if x is refused in
        one. Exact for up to SAMPLE_ROWS rows together. By default x of this process alone counts, and nothing is sent:
        then x must be the same in every process, since DistributedDataParallel broadcasts grids in every step but
        coefficients only at the start.

        Sharded parameters (fully_shard, parallelize_module): all processes must call this. Under fully_shard the rows
        of all processes count by default. Under tensor parallelism x is whole and the same everywhere; if it is not,
        the first process decides.

        Coefficients belong to their grid: average parameters only of layers on the same grid, as torch's AveragedModel
        does.

        Raises ValueError for an x that is empty, not finite or of another width. After an error nothing has changed.
        """
        self._refuse_if_gathered()
        margin, inwards = number("margin", margin, 0.0), number("inwards", inwards, 0.0, 1.0)
        x = whole(x) if isinstance(x, Tensor) else x
        sample = Sample.of(x, self.in_features, home(self.grid.device), self.rows_group(process_group))
        quantiles = sample.quantiles(self.grid_size + 1)
        low, high = sample.low - margin, sample.high + margin
        if inwards < 1:
            knots = self.exact_knots
            first, last = knots[:, self.spline_order], knots[:, -self.spline_order - 1]
            low, high = torch.minimum(low, first.lerp(low, inwards)), torch.maximum(high, last.lerp(high, inwards))
        share = 1.0 if self._spec.family else self.grid_eps
        self.move_grid(adaptive_knots(quantiles, low, high, self.spline_order, share), sample.ordered)

    def extend_grid(self, new_size: int) -> None:
        """Change the number of grid intervals on the same range, from coarse to fine during training.

        With a multiple of the present size the function inside the range is unchanged up to rounding; otherwise it is
        fitted by least squares. `coef` becomes a new Parameter: rebuild the optimizer. After an error nothing has
        changed.

        Of parameters that parallelize_module sharded, all processes call this. Under fully_shard, which does not allow
        another shape, it is an error, unless the number stays.
        """
        self._refuse_if_gathered()
        new_size = integer("new_size", new_size, 1)
        self.move_grid(resized_knots(self.exact_knots, self.spline_order, new_size))

    def _refuse_if_gathered(self) -> None:
        """RuntimeError while FSDP has the parameters gathered, since writes to them are lost then."""
        if by_fsdp(self) and not hasattr(self.coef, "full_tensor"):
            raise RuntimeError(
                "coef is gathered by FSDP for a forward pass, and changes to it would be lost: expected a backward "
                "pass before, or reshard() of the module that was given to fully_shard"
            )

    def rows_group(self, given: "ProcessGroup | None") -> "ProcessGroup | None":
        """The processes whose rows count in update_grid: the given ones; by default those of FSDP, or this alone."""
        given = checked_group(given)
        if given is None and by_fsdp(self):
            coef: Any = self.coef
            mesh = coef.device_mesh
            if mesh.ndim > 1:
                raise ValueError(
                    "process_group=None: expected the group of the processes with different rows, since the parameters "
                    f"are on a mesh of {mesh.ndim} dimensions"
                )
            return mesh.get_group()
        return given

    @torch.no_grad()
    def move_grid(self, grid: Tensor, samples: Tensor | None = None) -> None:
        """Set the knots [I, M], as exact_knots are, and refit the coefficients by least squares, see refit."""
        coef, knots, spec = host(whole(self.coef)), self.exact_knots, self._spec
        if spec.family:
            self._set(grid, refit_family(coef, knots, spec, grid, spec, samples))
        else:
            self._set(grid, refit(coef, knots, grid, spec.degree, OUTSIDE[spec.outside], samples))

    def _set(self, grid: Tensor, coef: Tensor) -> None:
        before, grid = self.coef, place(grid, self.grid.device)
        coef = coef.to(before.device, before.dtype)
        if by_fsdp(self) and coef.shape != before.shape:
            raise RuntimeError(
                f"coef would have shape {list(coef.shape)} in place of {list(before.shape)}, which fully_shard does "
                "not allow: expected the same number of grid intervals; load the full state dict into a layer without "
                "fully_shard, change the grid there, and call fully_shard and make the optimizer again"
            )
        if not coef.is_meta and not coef.isfinite().all():
            raise RuntimeError(f"coef on the new grid is not finite in {coef.dtype}: the layer is unchanged")
        coef, grid = placed_as(coef, before), placed_as(from_first(grid, before), self.grid)
        if "coef" not in self._parameters:
            set_computed(self, "coef", coef)
        elif coef.shape == before.shape:
            before.copy_(coef)
        else:
            coef = coef.clone(memory_format=torch.contiguous_format)  # some optimizers flatten gradients
            self.coef = nn.Parameter(coef, requires_grad=before.requires_grad)
        if (grid.shape, grid.dtype) == (self.grid.shape, self.grid.dtype):
            self.grid.copy_(grid)
        else:
            self.grid = grid.clone()

    def outside_share(self, x: Tensor) -> Tensor:
        """The share of the rows of x [..., I] outside the grid range, for each input: [I]; NaN is outside.

        Outside the grid the splines do not learn: the most common silent failure of a KAN. The share of no rows is NaN.
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
        step = max(1, BLOCK // coef[:, 0].numel())
        parts: list[Tensor] = [checkpoint(self._edge_sum, part, coef, use_reentrant=False) for part in rows.split(step)]
        return sum(parts[1:], parts[0]) / len(rows)

    def _edge_sum(self, x: Tensor, coef: Tensor) -> Tensor:
        values = torch.einsum("nif,ifo->nio", self.b_splines(x).to(coef.dtype), coef)
        base, weight = self.base_activation, self.base_weight
        if base is not None and weight is not None:
            values = values + base(x).to(coef.dtype)[..., None] * weight
        return values.abs().sum(0)

    def regularization(self, x: Tensor, l1: float = 1.0, entropy: float = 1.0) -> Tensor:
        """l1 * sum E - entropy * sum p log p with E = edge_mean(x), p = E / sum E: the paper's penalty, on activations.

        Without a tensor of size [N, I, O]. Source: Liu et al., KAN (arXiv 2404.19756), eqs. 2.17 to 2.20.
        """
        return _regularization(self.edge_mean(x), l1, entropy)

    def regularization_loss(self, regularize_activation: float = 1.0, regularize_entropy: float = 1.0) -> Tensor:
        """The same penalty on the mean |coef| of every edge, without data, as in efficient-kan."""
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
        view_of(self.spline_scale, 1, 0).data = scale

    def _scaled_coef(self) -> Tensor:
        return self.coef if self.spline_scale is None else self.coef * self.spline_scale[:, None]

    def b_splines(self, x: Tensor) -> Tensor:
        """The basis functions at x [..., I]: [..., I, F] in x's dtype."""
        functional.check_input(x, self.in_features)
        knots = self.knots
        rows = x.reshape(-1, self.in_features).to(knots.dtype)
        phi = basis_features(rows, knots, self._spec, 0)
        return phi.to(x.dtype).view(*x.shape, phi.shape[-1])

    def curve2coeff(self, x: Tensor, y: Tensor) -> Tensor:
        """The coefficients [O, I, F] of the least-squares splines to y [N, I, O] at x [N, I], of minimal norm."""
        functional.check_input(x, self.in_features)
        expected = [*x.shape, self.out_features]
        if x.dim() != 2 or list(y.shape) != expected:
            raise ValueError(f"x, y have shapes {list(x.shape)}, {list(y.shape)}: expected [N, I] and [N, I, O]")
        phi = basis_features(exact(x), self.exact_knots, self._spec, 0).transpose(0, 1)  # I N F
        coef = torch.linalg.pinv(phi) @ exact(y).transpose(0, 1)  # I F O
        return coef.permute(2, 0, 1).to(y).contiguous()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        before = len(error_msgs)
        hint = read_state(self, state_dict, prefix, local_metadata.get("assign_to_params_buffers", False))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if len(error_msgs) > before:
            error_msgs.append(hint)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return state | {"_evenness": None}

    def extra_repr(self) -> str:
        text = (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            + (f"family={self.family!r}, " if self._spec.family else "")
            + f"grid_size={self.grid_size}, "
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


def degree_of(argument: str, degree: int | None, family: str) -> int:
    """The degree of the basis functions: by default 3, and 0 of another family, which takes no other."""
    if not index_of("family", family, FAMILIES):
        return 3 if degree is None else integer(argument, degree, 0, MAX_DEGREE)
    if degree not in (None, 0):
        raise ValueError(f"{argument}={degree!r}: expected None or 0 with family={family!r}, which has no degree")
    return 0
