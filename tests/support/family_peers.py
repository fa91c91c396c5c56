"""Formulas of ChebyKAN, torch-conv-kan, faster-kan and inkan, with their classes' names, attributes and shapes."""

import torch
from torch import nn
from torch.nn import functional as F

from fastkan.basis.jacobi import step
from fastkan.measure.peers import efficient_kan_features


class ChebyKANLayer(nn.Module):
    def __init__(self, input_dim, output_dim, degree):
        super().__init__()
        self.inputdim, self.outdim, self.degree = input_dim, output_dim, degree
        self.cheby_coeffs = nn.Parameter(torch.randn(input_dim, output_dim, degree + 1) / (input_dim * (degree + 1)))
        self.register_buffer("arange", torch.arange(degree + 1))

    def forward(self, x):
        angle = torch.tanh(x).view(-1, self.inputdim, 1).acos()
        return torch.einsum("nif,iof->no", (angle * self.arange).cos(), self.cheby_coeffs)


class JacobiKANLayer(nn.Module):
    def __init__(self, input_dim, output_dim, degree, a=1.0, b=1.0, act=nn.SiLU):
        super().__init__()
        self.inputdim, self.outdim, self.degree, self.a, self.b = input_dim, output_dim, degree, a, b
        self.act, self.norm = act(), nn.LayerNorm(output_dim)
        self.base_weights = nn.Parameter(torch.randn(output_dim, input_dim))
        self.jacobi_coeffs = nn.Parameter(torch.randn(input_dim, output_dim, degree + 1))

    def forward(self, x):
        x = x.reshape(-1, self.inputdim)
        z, values = torch.tanh(x), [torch.ones(x.shape), torch.zeros(x.shape)]  # of the default type, as there
        for n in range(self.degree):
            slope, constant, below = step(n, self.a, self.b)
            values.insert(n + 1, (slope * z + constant) * values[n] - below * values[n - 1])
        y = torch.einsum("nif,iof->no", torch.stack(values[:-1], -1), self.jacobi_coeffs)
        return self.act(self.norm(y + F.linear(self.act(x), self.base_weights)))


class ConvKANLayer(nn.Module):
    """torch-conv-kan's KANLayer."""

    def __init__(
        self, input_features, output_features, grid_size=5, spline_order=3, base_activation=nn.GELU, grid_range=(-1, 1)
    ):
        super().__init__()
        self.input_features, self.output_features = input_features, output_features
        self.grid_size, self.spline_order = grid_size, spline_order
        self.base_activation, self.grid_range = base_activation(), grid_range
        self.base_weight = nn.Parameter(torch.randn(output_features, input_features))
        self.spline_weight = nn.Parameter(torch.randn(output_features, input_features, grid_size + spline_order))
        self.layer_norm, self.prelu = nn.LayerNorm(output_features), nn.PReLU()
        h = (grid_range[1] - grid_range[0]) / grid_size
        knots = torch.linspace(
            grid_range[0] - h * spline_order, grid_range[1] + h * spline_order, grid_size + 2 * spline_order + 1,
            dtype=torch.float32,
        )  # fmt: skip
        self.grid = knots.expand(input_features, -1).contiguous()

    def forward(self, x):
        phi = efficient_kan_features(x, self.grid.to(x), self.spline_order).flatten(1)
        y = F.linear(self.base_activation(x), self.base_weight) + F.linear(phi, self.spline_weight.flatten(1))
        return self.prelu(self.layer_norm(y))


ConvKANLayer.__name__ = "KANLayer"


class Switch(torch.autograd.Function):
    """1 - tanh(x - c)^2, whose gradient by x faster-kan multiplies by inv_denominator."""

    @staticmethod
    def forward(ctx, x, grid, inv_denominator):
        t = torch.tanh(x[..., None] - grid)
        ctx.save_for_backward(t, inv_denominator)
        return 1 - t * t

    @staticmethod
    def backward(ctx, grad):
        t, inv_denominator = ctx.saved_tensors
        return (-2 * t * (1 - t * t) * grad).sum(-1) * inv_denominator, None, None


class ReflectionalSwitchFunction(nn.Module):
    def __init__(self, grid_min=-1.2, grid_max=0.2, num_grids=8, inv_denominator=0.5, train_grid=False):
        super().__init__()
        self.grid = nn.Parameter(torch.linspace(grid_min, grid_max, num_grids), requires_grad=train_grid)
        self.inv_denominator = nn.Parameter(torch.tensor(inv_denominator), requires_grad=False)

    def forward(self, x):
        return Switch.apply(x, self.grid, self.inv_denominator)


class FasterKANLayer(nn.Module):
    def __init__(self, input_dim, output_dim, num_grids=8, **options):
        super().__init__()
        self.layernorm = nn.LayerNorm(input_dim)
        self.rbf = ReflectionalSwitchFunction(num_grids=num_grids, **options)
        self.spline_linear = nn.Linear(input_dim * num_grids, output_dim, bias=False)

    def forward(self, x):
        return self.spline_linear(self.rbf(self.layernorm(x)).view(x.shape[0], -1))


class InkanLayer(nn.Module):
    """inkan's KANLayer."""

    def __init__(self, in_features, out_features, grid_size=5, dim=1, base_activation=nn.SiLU, grid_range=(-1, 1)):
        super().__init__()
        self.in_features, self.out_features, self.grid_size = in_features, out_features, grid_size
        self.spline_order, self.dim, self.n_bases = 3, dim, grid_size + 3
        h = (grid_range[1] - grid_range[0]) / grid_size
        self.inv_h = 1 / h
        self.register_buffer("grid_starts", torch.arange(self.n_bases) * h + grid_range[0] - 3 * h)
        self.weight = nn.Parameter(torch.randn(out_features, in_features * (self.n_bases + 1)))
        self.base_activation = base_activation()

    def forward(self, x):
        u = (x[..., None] - self.grid_starts[0]) * self.inv_h - torch.arange(self.n_bases)
        s = torch.where(u <= 2, u, 4 - u).clamp_min(0)
        v = (s - 1).clamp_min(0)
        phi = torch.where(s <= 1, s**3, 1 + v * (3 + v * (3 - 3 * v))) / 6
        return F.linear(torch.cat([phi.flatten(1), self.base_activation(x)], 1), self.weight)


InkanLayer.__name__ = "KANLayer"


class GRAMLayer(nn.Linear):
    """torch-conv-kan's by name alone."""
