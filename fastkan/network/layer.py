"""KANLayer: the numeric branch of a layer, in pykan's names and shapes, on the fused one."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .. import functional
from ..basis.base import BASES
from ..basis.bspline import bspline_features, uniform_knots
from ..nn import KANLinear
from ..spec import MAX_DEGREE, Spec
from ..tracing import by_jit
from .structure import integer, number

# Inputs whose functions are evaluated in one call.
BLOCK = 8
# Features that autograd may keep for the way back.
KEPT = 1 << 18


class KANLayer(nn.Module):
    """y[n,o] = sum_i mask[i,o] (scale_base[i,o] b(x[n,i]) + scale_sp[i,o] sum_f coef[i,o,f] B_{i,f}(x[n,i])).

    One fused call, with the mask in the weights: autograd sees it, and nothing of size [N, I, O] is held. Inputs and
    outputs that have no edge with a mask other than 0 are left out of the call.

    The parameters are those of `linear`, a KANLinear. pykan's views of them share their memory: `coef` [I, O, G + k],
    `scale_base`, `scale_sp` [I, O]; `grid` [I, G + 2k + 1]. `mask` [I, O] may be changed in place. After a change
    through a reference that was kept across a forward pass by `.data`, which PyTorch can't see, call `refresh`.

    Args:
        in_dim, out_dim: I and O.
        num, k: number of grid intervals, degree of the splines (0 to 5).
        noise_scale: splines start as ones through uniform noise of +-noise_scale / (2 num) at the knots.
        scale_base_mu, scale_base_sigma: scale_base starts at (mu + sigma * uniform(-1, 1)) / sqrt(I).
        scale_sp: scale_sp starts at scale_sp / sqrt(I) where the mask is not 0.
        base_fun: "silu", "identity", "zero", or any elementwise function of a tensor.
        sparse_init: start with edges between nearest neighbours only.
        generator: source of the random start, on the CPU; the start is the same on every device.
        others: as in KANLinear.

    Source: Liu et al., KAN (arXiv 2404.19756), section 2.2.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        num: int = 5,
        k: int = 3,
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
        outside: str = "zero",
        backend: str | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        in_dim, out_dim = integer("in_dim", in_dim, 1), integer("out_dim", out_dim, 1)
        num, k = integer("num", num, 1), integer("k", k, 0, MAX_DEGREE)
        noise_scale, scale_sp = number("noise_scale", noise_scale), number("scale_sp", scale_sp)
        mu, sigma = number("scale_base_mu", scale_base_mu), number("scale_base_sigma", scale_base_sigma)
        if not (base_fun in BASES if isinstance(base_fun, str) else base_fun is None or callable(base_fun)):
            kind = ValueError if isinstance(base_fun, str) else TypeError
            raise kind(f"base_fun={base_fun!r}: expected one of {', '.join(map(repr, BASES))}, or a function")
        self.base_fun = base_fun
        device = torch.get_default_device() if device is None else torch.device(device)
        unused = None if device.type == "meta" else torch.Generator(device)  # instead of torch's own
        self.linear = KANLinear(
            in_dim, out_dim, num, k, enable_standalone_scale_spline=True, base_activation=base_fun, grid_eps=grid_eps,
            grid_range=grid_range, outside=outside, backend=backend, generator=unused, device=device, dtype=dtype,
        )  # fmt: skip
        mask = nearest(in_dim, out_dim) if sparse_init else torch.ones(in_dim, out_dim)
        self.register_buffer("edge_mask", mask.to(self.linear.coef))
        self._plan, self._version = None, -1
        self._start(noise_scale, mu, sigma, scale_sp, generator)
        self._asleep = None
        self.linear.spline_scale.requires_grad_(bool(sp_trainable))
        if self.linear.base_weight is not None:
            self.linear.base_weight.requires_grad_(bool(sb_trainable))

    @torch.no_grad()
    def _start(self, noise_scale: float, mu: float, sigma: float, scale_sp: float, generator) -> None:
        # Random numbers in the order and the precision in which pykan draws them: its seed gives its network.
        inputs, outputs, linear = self.in_dim, self.out_dim, self.linear
        noise = (torch.rand(self.num + 1, inputs, outputs, generator=generator, device="cpu") - 0.5) * noise_scale
        grid = uniform_knots(*linear.grid_range, self.num, self.k, device="cpu")[None]
        phi = bspline_features(grid[:, self.k : self.k + self.num + 1].T, grid, self.k, "zero")[:, 0]  # P F
        linear.coef.copy_(torch.einsum("fp,pio->ifo", torch.linalg.pinv(phi), noise.double() / self.num))
        draw = torch.rand(inputs, outputs, generator=generator, device="cpu") * 2 - 1
        if linear.base_weight is not None:
            linear.base_weight.copy_((mu + sigma * draw) / math.sqrt(inputs))
        linear.spline_scale.copy_(scale_sp / math.sqrt(inputs) * self.edge_mask)

    # What it computes

    def forward(self, x: Tensor) -> Tensor:
        """x [N, I] -> [N, O] in the parameters' dtype."""
        functional.check_input(x, self.in_dim)
        plan = self._current_plan()
        if plan is None:  # while a compiler traces: right for every mask
            return self._call(x, self.linear.coef, self.linear.grid, *self._masked())
        if plan.full:
            return self._call(x, self.linear.coef, self.linear.grid, self.linear.base_weight, self.linear.spline_scale)
        base, scale = self._masked()
        if plan.inputs is None and plan.outputs is None:
            return self._call(x, self.linear.coef, self.linear.grid, base, scale)
        if not plan.active:
            return x.new_zeros(x.shape[0], self.out_dim, dtype=self.linear.coef.dtype)
        coef, grid = self.linear.coef, self.linear.grid
        if plan.inputs is not None:
            x, coef, grid = x[:, plan.inputs], coef[plan.inputs], grid[plan.inputs]
            base, scale = None if base is None else base[plan.inputs], scale[plan.inputs]
        if plan.outputs is None:
            return self._call(x, coef, grid, base, scale)
        coef, base = coef[:, :, plan.outputs], None if base is None else base[:, plan.outputs]
        y = self._call(x, coef, grid, base, scale[:, plan.outputs])
        return y.new_zeros(y.shape[0], self.out_dim).index_copy(1, plan.outputs, y)

    def _call(self, x: Tensor, coef: Tensor, grid: Tensor, base: Tensor | None, scale: Tensor) -> Tensor:
        linear = self.linear
        fused = base if linear._fused else None
        y = functional.apply(x, coef, grid, fused, None, scale, linear._spec, linear.backend)
        if linear._fused or base is None:
            return y
        return y + torch.matmul(linear.base_activation(x).to(base.dtype), base).to(y.dtype)

    def _masked(self) -> tuple[Tensor | None, Tensor]:
        base, mask = self.linear.base_weight, self.edge_mask
        return None if base is None else base * mask, self.linear.spline_scale * mask

    def weights(self, masked: bool = True) -> Tensor:
        """What an edge multiplies its features with, [I, F + 1, O]: splines, then the base function. See features."""
        base, scale = self._masked() if masked else (self.linear.base_weight, self.linear.spline_scale)
        base = torch.zeros_like(scale) if base is None else base
        return torch.cat([self.linear.coef * scale[:, None], base[:, None]], 1)

    def features(self, x: Tensor) -> Tensor:
        """The splines of every input, then the base function: x [N, I] -> [N, I, F + 1] in float64; differentiable."""
        parts = zip(x.split(BLOCK, 1), self.linear.grid.split(BLOCK), strict=True)
        found = [self._features(part, grid) for part, grid in parts]
        return found[0] if len(found) == 1 else torch.cat(found, 1)

    def _features(self, x: Tensor, grid: Tensor) -> Tensor:
        # By the fused operator, with coefficients that keep the functions of a few inputs apart.
        if torch.is_autocast_enabled(x.device.type):  # functions rounded to 16 bits are of no use to a covariance
            with torch.autocast(x.device.type, enabled=False):
                return self._features(x, grid)
        linear, functions = self.linear, self.num + self.k
        spec = Spec.of(self.k, "zero", linear.outside, linear.uniform)
        dtype = torch.promote_types(linear.coef.dtype, torch.float32)
        apart = torch.eye(len(grid) * functions, device=x.device, dtype=dtype).view(len(grid), functions, -1)
        y = functional.apply(x, apart, grid, None, None, None, spec, linear.backend)
        activation = linear.base_activation
        base = torch.zeros_like(x) if activation is None else activation(x)
        return torch.cat([y.view(len(x), len(grid), functions), base[..., None]], -1).double()

    def postacts(self, x: Tensor) -> Tensor:
        """Every edge on its own, [N, O, I]: for looking at, not for training."""
        return torch.einsum("nif,ifo->noi", self.features(x), self.weights().double()).to(self.linear.coef.dtype)

    def postspline(self, x: Tensor) -> Tensor:
        """Every edge's spline without its scale and mask, [N, O, I]: for looking at."""
        phi = self.features(x)[..., :-1]
        return torch.einsum("nif,ifo->noi", phi, self.linear.coef.double()).to(self.linear.coef.dtype)

    def edge_values(self, x: Tensor, inputs: Tensor, outputs: Tensor, masked: bool = True) -> Tensor:
        """Some edges on their own: edge e from inputs[e] to outputs[e], x [N, I] -> [N, E]."""
        phi = self.features(x)[:, inputs]  # N E F
        weights = self.weights(masked)[inputs, :, outputs].double()  # E F
        return torch.einsum("nef,ef->ne", phi, weights).to(self.linear.coef.dtype)

    def edge_std(self, x: Tensor) -> Tensor:
        """The standard deviation of every edge over the rows of x [N, I]: [O, I], differentiable, no [N, I, O].

        By the fused operator. With a base function that it does not know: with C[i] the covariance of input i's
        features, the variance of an edge is w C w; in float64, whose rounding then appears as its square root, so that
        an edge that is constant has 1e-8 of its weights. A few inputs at a time, whose features are computed again on
        the way back where they are many.
        """
        if self.linear._fused:
            variance = self._moments(x)[2].T * (len(x) / max(1, len(x) - 1))
            return safe_sqrt(variance).to(self.linear.coef.dtype)
        parts = list(zip(x.split(BLOCK, 1), self.linear.grid.split(BLOCK), self.weights().split(BLOCK), strict=True))
        if x.numel() * (self.num + self.k) < KEPT or torch._C._are_functorch_transforms_active():
            found = [self._edge_std(*part) for part in parts]
        else:
            found = [checkpoint(self._edge_std, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
        return found[0] if len(found) == 1 else torch.cat(found, 1)

    def _edge_std(self, x: Tensor, grid: Tensor, weights: Tensor) -> Tensor:
        phi = self._features(x, grid)
        phi = (phi - phi.mean(0)).transpose(0, 1)  # I N F
        weights = weights.double()  # I F O
        variance = (weights * (phi.mT @ phi @ weights)).sum(1).T / max(1, len(x) - 1)
        return safe_sqrt(variance).to(self.linear.coef.dtype)

    def edge_mean(self, x: Tensor) -> Tensor:
        """The mean over the rows of x [N, I] of |phi| of every edge: [O, I], differentiable, by the fused operator."""
        if self.linear._fused:
            return self._moments(x)[0].T.to(self.linear.coef.dtype)
        values = torch.einsum("nif,ifo->noi", self.features(x), self.weights().double())
        return values.abs().mean(0).to(self.linear.coef.dtype)

    def _moments(self, x: Tensor) -> Tensor:
        linear, (base, scale) = self.linear, self._masked()
        coef = linear.coef * scale[:, None]
        return functional.apply_edge_moments(x, coef, linear.grid, base, linear._spec, linear.backend)

    def rearranged(self, inputs: list[int | None], outputs: list[int | None]) -> "KANLayer":
        """A layer of these inputs and outputs of the present one, in this order; None makes a new one.

        Edges of a new input or output are switched off, with parameters as at a start.
        """
        linear = self.linear
        new = KANLayer(
            len(inputs), len(outputs), self.num, self.k, noise_scale=0.3, base_fun=self.base_fun,
            grid_eps=linear.grid_eps, grid_range=linear.grid_range, outside=linear.outside, backend=linear.backend,
            generator=torch.Generator("cpu").manual_seed(0), device=linear.coef.device, dtype=linear.coef.dtype,
        )  # fmt: skip
        to, here = zip(*(_matches(places, linear.coef.device) for places in (inputs, outputs)), strict=True)
        to_edges, edges = (to[0][:, None], to[1]), (here[0][:, None], here[1])
        with torch.no_grad():
            grid = new.linear.grid.clone()
            grid[to[0]] = linear.grid[here[0]]
            new.linear.set_grid(grid)
            new.edge_mask.zero_()
            new.edge_mask[to_edges] = self.edge_mask[edges]
            for name in ("coef", "base_weight", "spline_scale"):
                if getattr(linear, name) is not None:
                    mine, theirs = (getattr(of, name).movedim(-1, 1) for of in (new.linear, linear))
                    mine[to_edges] = theirs[edges]
        self._current_plan()
        for p, trainable in zip(new._parameters_of_edges(), self._trainable(), strict=True):
            p.requires_grad_(trainable)
        return new

    def _parameters_of_edges(self) -> list[nn.Parameter]:
        linear = self.linear
        return [p for p in (linear.coef, linear.base_weight, linear.spline_scale) if p is not None]

    def _trainable(self) -> list[bool]:
        return [p.requires_grad for p in self._parameters_of_edges()] if self._asleep is None else self._asleep

    # The mask

    @property
    def mask(self) -> Tensor:
        """[I, O], 0 where an edge is switched off; may be changed in place or set."""
        self.refresh()
        return self.edge_mask

    @mask.setter
    def mask(self, mask: Tensor) -> None:
        with torch.no_grad():
            self.edge_mask.copy_(torch.as_tensor(mask))
        self.refresh()

    def refresh(self) -> None:
        """Look at the mask again before the next forward pass."""
        self._plan = None

    def _current_plan(self) -> "_Plan | None":
        mask = self._buffers["edge_mask"]  # an attribute takes as long as a small layer
        if by_jit():
            return None
        if torch.compiler.is_compiling() or mask.is_meta:
            return self._plan
        if self._plan is None or self._version != mask._version:
            self._plan, self._version = _Plan(mask), mask._version
            self._train_if(self._plan.active)
        return self._plan

    @property
    def active(self) -> bool:
        """Whether any edge has a mask other than 0."""
        plan = self._current_plan()
        return True if plan is None else plan.active

    def _train_if(self, active: bool) -> None:
        """Parameters that no edge uses get no gradient: DistributedDataParallel would wait for it."""
        parameters = self._parameters_of_edges()
        if not active and self._asleep is None:
            self._asleep = [p.requires_grad for p in parameters]
            for p in parameters:
                p.requires_grad_(False)
        elif active and self._asleep is not None:
            for p, trainable in zip(parameters, self._asleep, strict=True):
                p.requires_grad_(trainable)
            self._asleep = None

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_plan": None}  # a copy counts the versions of its mask anew

    def _apply(self, fn, recurse: bool = True):
        self.refresh()  # its indices are on a device
        return super()._apply(fn, recurse)

    # pykan's names

    def __setattr__(self, name: str, value) -> None:
        if name in ("mask", "coef", "scale_base", "scale_sp") and isinstance(value, nn.Parameter):
            value = value.detach()  # which nn.Module would register in the property's place
        super().__setattr__(name, value)

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
    def grid_eps(self) -> float:
        return self.linear.grid_eps

    @property
    def device(self) -> torch.device:
        return self.linear.coef.device

    @property
    def grid(self) -> Tensor:
        """[I, G + 2k + 1], in float64; change it by linear.set_grid."""
        return self.linear.grid

    @property
    def coef(self) -> Tensor:
        """[I, O, G + k], sharing the memory of linear.coef [I, G + k, O]."""
        return self.linear.coef.transpose(1, 2)

    @coef.setter
    def coef(self, coef: Tensor) -> None:
        with torch.no_grad():
            self.linear.coef.copy_(coef.transpose(1, 2))

    @property
    def scale_base(self) -> Tensor:
        """[I, O]; zeros where there is no base function."""
        return (
            torch.zeros_like(self.linear.spline_scale) if self.linear.base_weight is None else self.linear.base_weight
        )

    @scale_base.setter
    def scale_base(self, scale: Tensor) -> None:
        if self.linear.base_weight is not None:
            with torch.no_grad():
                self.linear.base_weight.copy_(scale)

    @property
    def scale_sp(self) -> Tensor:
        """[I, O]."""
        return self.linear.spline_scale

    @scale_sp.setter
    def scale_sp(self, scale: Tensor) -> None:
        with torch.no_grad():
            self.linear.spline_scale.copy_(scale)


class _Plan:
    """What a forward pass may leave out, by the mask."""

    def __init__(self, mask: Tensor):
        self.full = bool((mask == 1).all())
        used = mask != 0
        self.active = bool(used.any())
        self.inputs, self.outputs = (
            None if bool(u.all()) else u.nonzero().flatten() for u in (used.any(1), used.any(0))
        )


def _matches(places: list[int | None], device: torch.device) -> tuple[Tensor, Tensor]:
    """Where in `places` the old ones stand, and which they are."""
    pairs = [(new, old) for new, old in enumerate(places) if old is not None]
    return torch.tensor(pairs, dtype=torch.long, device=device).reshape(-1, 2).unbind(1)


def _places(used: Tensor) -> Tensor | None:
    return None if bool(used.all()) else used.nonzero().flatten()


def safe_sqrt(x: Tensor) -> Tensor:
    """sqrt with the gradient 0 where x is 0, or below by rounding; of NaN it is NaN."""
    nothing = x <= 0
    return x.masked_fill(nothing, 1.0).sqrt().masked_fill(nothing, 0.0)


def nearest(inputs: int, outputs: int) -> Tensor:
    """A mask [I, O] that joins every input to the output that lies nearest on [0, 1], and the other way round."""
    at = [(torch.arange(n) + 0.5) / n for n in (inputs, outputs)]
    distance = (at[0][:, None] - at[1]).abs()
    mask = torch.zeros(inputs, outputs)
    mask[torch.arange(inputs), distance.argmin(1)] = 1.0
    mask[distance.argmin(0), torch.arange(outputs)] = 1.0
    return mask
