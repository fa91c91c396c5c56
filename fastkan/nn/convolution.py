"""KANConv1d to 3d and KANConvTranspose1d to 3d: convolutions whose kernels are KAN layers."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..arguments import integer
from ..convolution import Window, kan_conv
from ..functional import check_tensor
from .edges import OnEdges
from .linear import KANLinear

Sizes = int | Sequence[int]
# Channels from which to add what the padding's zeros give is faster than to compute functions of them.
BORDER_FROM = 16
PADDING_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


class KANConvolution(OnEdges):
    """What all convolutions share; see KANConv2d and KANConvTranspose2d."""

    dims: int
    transposed = False
    bias: nn.Parameter | None

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes, padding: Sizes | str,
        output_padding: Sizes, dilation: Sizes, groups: int, bias: bool, padding_mode: str, options: dict[str, Any],
    ):  # fmt: skip
        super().__init__()
        self.in_channels = integer("in_channels", in_channels, 1)
        self.out_channels = integer("out_channels", out_channels, 1)
        self.groups = integer("groups", groups, 1)
        for name, count in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if count % self.groups:
                raise ValueError(f"{name}={count}: expected a multiple of groups={self.groups}")
        self.kernel_size = self._sizes("kernel_size", kernel_size, 1)
        self.stride = self._sizes("stride", stride, 1)
        self.dilation = self._sizes("dilation", dilation, 1)
        self.output_padding = self._sizes("output_padding", output_padding, 0)
        if padding_mode not in PADDING_MODES or (self.transposed and padding_mode != "zeros"):
            names = "'zeros'" if self.transposed else f"one of {', '.join(map(repr, PADDING_MODES))}"
            raise ValueError(f"padding_mode={padding_mode!r}: expected {names}")
        self.padding_mode = padding_mode
        self.padding = padding if isinstance(padding, str) else self._sizes("padding", padding, 0)
        self._pads = self._padding_of_x()
        for size, stride_, dilation_ in zip(self.output_padding, self.stride, self.dilation, strict=True):
            if size and size >= max(stride_, dilation_):
                raise ValueError(f"output_padding={output_padding!r}: expected less than stride or dilation")
        edges = math.prod(self.kernel_size) * self.out_channels // self.groups
        generator = options.pop("generator", None)
        self.edges = KANLinear(self.in_channels, edges, **options)
        coef = self.edges.coef
        self.bias = nn.Parameter(torch.empty(self.out_channels, device=coef.device, dtype=coef.dtype)) if bias else None
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new initial parameters as those of a KANLinear of all that the kernel spans, and reset the grid."""
        self.edges.reset_parameters(generator)
        self._scale_base(self.in_channels // self.groups * math.prod(self.kernel_size))
        if self.bias is not None:
            self.bias.zero_()

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...

    def forward(self, x: Tensor) -> Tensor:
        """x [N, in_channels, ...] or [in_channels, ...] -> [N, out_channels, ...], in the parameters' dtype."""
        images, edges = self._padded(x), self.edges
        window = self._window
        if min(window.out_sizes(images.shape[2:])) < 1:
            raise ValueError(
                f"x has shape {list(x.shape)}: expected images at least as large as the kernel, less its padding"
            )
        coef, scale, weight, _ = edges.weights()
        coef = coef if scale is None else coef * scale[:, None]
        knots, base = edges.knots, edges.base_activation
        fused = weight if edges.fused else None
        y = kan_conv(images, coef, fused, self.bias, knots, edges.spec, window, edges.backend)
        if not edges.fused and weight is not None and base is not None:
            y = y + self._of_base(base(images).to(weight.dtype), weight).to(y.dtype)
        return y.squeeze(0) if x.dim() == self.dims + 1 else y

    def _of_base(self, b: Tensor, weight: Tensor) -> Tensor:
        """The ordinary convolution of a base function that is not fused."""
        groups = self.groups
        weight = weight.view(groups, self.in_channels // groups, *self.kernel_size, self.out_channels // groups)
        if self.transposed:
            weight = weight.movedim(-1, 2).flatten(0, 1)
        else:
            weight = weight.movedim(-1, 1).flatten(0, 1)
        return torch.convolution(b, weight, None, *self._window[1:])

    @property
    def _window(self) -> Window:
        padding = (0,) * self.dims if self._pads or isinstance(self.padding, str) else self.padding
        return Window(
            self.kernel_size, self.stride, padding, self.dilation, self.transposed, self.output_padding, self.groups
        )

    def _padded(self, x: Tensor) -> Tensor:
        """x with its batch dimension, and with its padding unless the window has that; checked."""
        check_tensor("x", x)
        shape, channels = list(x.shape), self.in_channels
        if x.dim() not in (self.dims + 1, self.dims + 2) or x.shape[-self.dims - 1] != channels:
            sizes = ", ".join("DHW"[-self.dims :] if self.dims > 1 else "L")
            raise ValueError(f"x has shape {shape}: expected [N, {channels}, {sizes}] or [{channels}, {sizes}]")
        x = x if x.dim() == self.dims + 2 else x.unsqueeze(0)
        if not any(self._pads):
            return x
        return nn.functional.pad(x, self._pads, PADDING_MODES[self.padding_mode])

    def _padding_of_x(self) -> list[int]:
        """Sizes as torch's pad takes them, from the last dimension to the first; none if the window has the padding."""
        if self.transposed:
            if isinstance(self.padding, str):
                raise ValueError(f"padding={self.padding!r}: expected integers")
            return []
        if not isinstance(self.padding, str):
            if self.padding_mode == "zeros" and self.in_channels >= BORDER_FROM:
                return []
            return [size for size in reversed(self.padding) for _ in range(2)]
        if self.padding not in ("same", "valid"):
            raise ValueError(f"padding={self.padding!r}: expected integers, 'same' or 'valid'")
        if self.padding == "valid":
            return []
        if any(size != 1 for size in self.stride):
            raise ValueError(f"padding='same' with stride={self.stride!r}: expected stride 1")
        totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        return [size for total in reversed(totals) for size in (total // 2, total - total // 2)]

    def _sizes(self, name: str, value: Any, low: int) -> tuple[int, ...]:
        if not isinstance(value, Sequence):
            return (integer(name, value, low),) * self.dims
        if len(value) != self.dims:
            raise ValueError(f"{name}={value!r}: expected an integer or {self.dims} of them")
        return tuple(integer(f"{name}[{n}]", size, low) for n, size in enumerate(value))

    def rows(self, x: Tensor) -> Tensor:
        """Every pixel of x [N, in_channels, ...] as a row."""
        return self._padded(x).movedim(1, -1)

    def edge_mean(self, x: Tensor) -> Tensor:
        """The mean of |phi| over the pixels of x, for every edge: [in_channels, *kernel_size, out_channels/groups]."""
        return super().edge_mean(x).view(self.in_channels, *self.kernel_size, self.out_channels // self.groups)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for name, default in (("padding", 0), ("output_padding", 0), ("dilation", 1)):
            if getattr(self, name) != (default,) * self.dims:
                text += f", {name}={getattr(self, name)!r}"
        text += f", groups={self.groups}" if self.groups != 1 else ""
        text += f", padding_mode={self.padding_mode!r}" if self.padding_mode != "zeros" else ""
        return f"{text}, bias={self.bias is not None}"


class KANConv2d(KANConvolution):
    """y[n,o,p] = sum_{i,t} phi[i,t,o](x[n,i,p s + t d]) + bias[o]: a KANLinear of all pixels that the kernel spans.

    Its functions are those of KANLinear, an edge for every channel i, place t of the kernel and output o of i's group.
    A channel has one grid for all places. The functions of a pixel are computed once and go through one ordinary
    convolution; the result and all derivatives are those of unfold and KANLinear up to rounding, without the unfolded
    x. Autograd saves x and the parameters.

    Padding with zeros means that x is 0 there, as unfold's does: splines and bases need not be 0 at 0.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            torch.nn.Conv2d; padding may be "same" or "valid".
        options: grid_size, spline_order, grid_range, base_activation, outside, device and all others of KANLinear.

    Parameters: those of `edges`, a KANLinear of in_channels inputs and T out_channels / groups outputs, T places of the
    kernel in row-major order before outputs; bias [O] or None.

    Raises TypeError or ValueError that name the argument, its value and what was expected.
    """

    dims = 2

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes | str = 0,
        dilation: Sizes = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros", **options: Any,
    ):  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, 0, dilation, groups, bias, padding_mode, options
        )


class KANConv1d(KANConv2d):
    """KANConv2d of series [N, in_channels, L]; arguments as in torch.nn.Conv1d, and those of KANLinear."""

    dims = 1


class KANConv3d(KANConv2d):
    """KANConv2d of volumes [N, in_channels, D, H, W]; arguments as in torch.nn.Conv3d, and those of KANLinear."""

    dims = 3


class KANConvTranspose2d(KANConvolution):
    """y[n,o,p s + t d - padding] = sum_{i,t} phi[i,t,o](x[n,i,p]) + bias[o]: every pixel spreads a KANLinear of it.

    The transposed convolution of torch.nn.ConvTranspose2d with functions in place of weights. Only pixels of x
    contribute: the places between them that a stride leaves are no pixels of value 0.

    Args: those of torch.nn.ConvTranspose2d, and those of KANLinear; padding_mode "zeros" only. As KANConv2d otherwise.
    """

    dims = 2
    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1, padding: Sizes = 0,
        output_padding: Sizes = 0, groups: int = 1, bias: bool = True, dilation: Sizes = 1,
        padding_mode: str = "zeros", **options: Any,
    ):  # fmt: skip
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, output_padding, dilation, groups, bias,
            padding_mode, options,
        )  # fmt: skip


class KANConvTranspose1d(KANConvTranspose2d):
    """KANConvTranspose2d of series [N, in_channels, L]; arguments as in torch.nn.ConvTranspose1d."""

    dims = 1


class KANConvTranspose3d(KANConvTranspose2d):
    """KANConvTranspose2d of volumes [N, in_channels, D, H, W]; arguments as in torch.nn.ConvTranspose3d."""

    dims = 3
