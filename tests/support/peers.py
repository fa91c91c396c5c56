"""Formulas of libraries that are on no registry, with their names, attributes and shapes."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from fastkan.measure.peers import efficient_kan_features


class KANLinear(nn.Module):
    """efficient-kan's layer: all splines by the Cox-de Boor recursion, and two matrix products."""

    def __init__(
        self, in_features, out_features, grid_size=5, spline_order=3, scale_noise=0.1, scale_base=1.0,
        scale_spline=1.0, enable_standalone_scale_spline=True, base_activation=nn.SiLU, grid_eps=0.02,
        grid_range=(-1, 1),
    ):  # fmt: skip
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.grid_size, self.spline_order = grid_size, spline_order
        self.scale_noise, self.scale_base, self.scale_spline = scale_noise, scale_base, scale_spline
        self.enable_standalone_scale_spline, self.grid_eps = enable_standalone_scale_spline, grid_eps
        self.base_activation = base_activation()
        h = (grid_range[1] - grid_range[0]) / grid_size
        knots = torch.arange(-spline_order, grid_size + spline_order + 1) * h + grid_range[0]
        self.register_buffer("grid", knots.expand(in_features, -1).contiguous())
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.spline_weight = nn.Parameter(0.3 * torch.randn(out_features, in_features, grid_size + spline_order))
        nn.init.kaiming_uniform_(self.base_weight, a=math.sqrt(5) * scale_base)
        if enable_standalone_scale_spline:
            self.spline_scaler = nn.Parameter(torch.empty(out_features, in_features))
            nn.init.kaiming_uniform_(self.spline_scaler, a=math.sqrt(5) * scale_spline)

    def b_splines(self, x):
        return efficient_kan_features(x, self.grid, self.spline_order)

    @property
    def scaled_spline_weight(self):
        return self.spline_weight * (self.spline_scaler[..., None] if self.enable_standalone_scale_spline else 1.0)

    def forward(self, x):
        assert x.size(-1) == self.in_features
        rows = x.reshape(-1, self.in_features)
        spline = F.linear(self.b_splines(rows).flatten(1), self.scaled_spline_weight.flatten(1))
        return (F.linear(self.base_activation(rows), self.base_weight) + spline).view(*x.shape[:-1], -1)


class KAN(nn.Module):
    """efficient-kan's network."""

    def __init__(self, layers_hidden, **options):
        super().__init__()
        pairs = zip(layers_hidden, layers_hidden[1:], strict=False)
        self.layers = nn.ModuleList(KANLinear(i, o, **options) for i, o in pairs)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class SplineLinear(nn.Linear):
    def __init__(self, in_features, out_features, init_scale=0.1):
        self.init_scale = init_scale
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self):
        nn.init.trunc_normal_(self.weight, mean=0, std=self.init_scale)


class RadialBasisFunction(nn.Module):
    def __init__(self, grid_min=-2.0, grid_max=2.0, num_grids=8, denominator=None):
        super().__init__()
        self.grid_min, self.grid_max, self.num_grids = grid_min, grid_max, num_grids
        self.grid = nn.Parameter(torch.linspace(grid_min, grid_max, num_grids), requires_grad=False)
        self.denominator = denominator or (grid_max - grid_min) / (num_grids - 1)

    def forward(self, x):
        return torch.exp(-(((x[..., None] - self.grid) / self.denominator) ** 2))


class FastKANLayer(nn.Module):
    """fast-kan's layer."""

    def __init__(
        self, input_dim, output_dim, grid_min=-2.0, grid_max=2.0, num_grids=8, use_base_update=True,
        use_layernorm=True, base_activation=F.silu, spline_weight_init_scale=0.1,
    ):  # fmt: skip
        super().__init__()
        self.input_dim, self.output_dim, self.use_base_update = input_dim, output_dim, use_base_update
        self.layernorm = nn.LayerNorm(input_dim) if use_layernorm else None
        self.rbf = RadialBasisFunction(grid_min, grid_max, num_grids)
        self.spline_linear = SplineLinear(input_dim * num_grids, output_dim, spline_weight_init_scale)
        if use_base_update:
            self.base_activation = base_activation
            self.base_linear = nn.Linear(input_dim, output_dim)

    def forward(self, x, use_layernorm=True):
        phi = self.rbf(self.layernorm(x) if self.layernorm is not None and use_layernorm else x)
        y = self.spline_linear(phi.view(*phi.shape[:-2], -1))
        return y + self.base_linear(self.base_activation(x)) if self.use_base_update else y


class FastKAN(nn.Module):
    """fast-kan's network."""

    def __init__(self, layers_hidden, **options):
        super().__init__()
        pairs = zip(layers_hidden, layers_hidden[1:], strict=False)
        self.layers = nn.ModuleList(FastKANLayer(i, o, **options) for i, o in pairs)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Attention(nn.Module):
    """fast-kan's AttentionWithFastKANTransform, with every product in full."""

    def __init__(self, q_dim, k_dim, v_dim, head_dim, num_heads, gating=True):
        super().__init__()
        total = head_dim * num_heads
        self.num_heads, self.norm = num_heads, head_dim**-0.5
        self.linear_q, self.linear_k = FastKANLayer(q_dim, total), FastKANLayer(k_dim, total)
        self.linear_v, self.linear_o = FastKANLayer(v_dim, total), FastKANLayer(total, q_dim)
        self.linear_g = FastKANLayer(q_dim, total) if gating else None

    def forward(self, q, k, v, bias=None):
        wq = self.linear_q(q).view(*q.shape[:-1], 1, self.num_heads, -1) * self.norm
        wk = self.linear_k(k).view(*k.shape[:-2], 1, k.shape[-2], self.num_heads, -1)
        att = (wq * wk).sum(-1).softmax(-2)
        att = att if bias is None else att + bias[..., None]
        wv = self.linear_v(v).view(*v.shape[:-2], 1, v.shape[-2], self.num_heads, -1)
        o = (att[..., None] * wv).sum(-3)
        o = o.view(*o.shape[:-2], -1)
        return self.linear_o(o if self.linear_g is None else torch.sigmoid(self.linear_g(q)) * o)
