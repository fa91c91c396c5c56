"""Random sequences of public operations: after each a model computes what its tensors say. See machine.py."""

import os

import pytest
import torch
import truth
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from machine import INPUTS, TOTAL, Machine, normal, seeds, whole
from torch import nn

from fastkan import KANLinear
from fastkan.nn import KANSequential

# Sequences of each machine: a few in everyday's tests, always the same ones.
SEQUENCES = os.environ.get("FASTKAN_TEST_SEQUENCES")
SETTINGS = settings(
    max_examples=int(SEQUENCES or 10), stateful_step_count=12 if SEQUENCES is None else 25, deadline=None,
    derandomize=SEQUENCES is None, suppress_health_check=list(HealthCheck), print_blob=False,
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore")
degrees = st.sampled_from([1, 2, 3, 3, 5])
continuations = st.sampled_from(["zero", "linear", "clamp"])


class LayerMachine(Machine):
    """A KANLinear, or several as a KANSequential."""

    @initialize(
        sizes=st.sampled_from([[4], [1], [4, 2], [2, 3, 1]]), degree=degrees, grid=st.integers(1, 6),
        scaled=st.booleans(), bias=st.booleans(), outside=continuations, base=st.sampled_from(["silu", nn.Tanh, None]),
        dtype=st.sampled_from([torch.float32, torch.float64]), backend=st.sampled_from([None, "reference"]),
        grid_eps=st.sampled_from([0.0, 0.02, 1.0]), seed=seeds,
    )  # fmt: skip
    def make(self, sizes, degree, grid, scaled, bias, outside, base, dtype, backend, grid_eps, seed):
        widths = [INPUTS, *sizes]
        layers = [
            KANLinear(
                i, o, grid, degree, scale_noise=2.0, enable_standalone_scale_spline=scaled, base_activation=base,
                bias=bias, outside=outside, grid_eps=grid_eps, dtype=dtype, backend=backend,
                generator=torch.Generator().manual_seed(seed),
            )
            for i, o in zip(widths, sizes, strict=False)
        ]  # fmt: skip
        self.begin(layers[0] if len(layers) == 1 else KANSequential(*layers))

    def entering(self, at: int, rows: int = 40):
        """What enters layer `at`."""
        x = self.data(rows)
        with torch.no_grad():
            for layer in self.layers[:at]:
                x = layer(x)
        return x

    @rule(pick=seeds, kind=st.sampled_from(["rows", "constant", "binary", "loader", "one row", "integers"]))
    def update_grid(self, pick, kind):
        at = pick % len(self.layers)
        layer, x = self.layers[at], self.entering(at)
        if kind == "constant":
            x[:, 0] = 0.25
        elif kind == "binary":
            x[:, -1] = (x[:, -1] > 0).to(x)
        elif kind == "one row":
            x = x[:1]
        elif kind == "integers":
            x = x.round()
        source = [(part, 0) for part in x.split(7)] if kind == "loader" else x
        if any(part[0] is layer and part[1] == "coef" for part in self.parts):
            try:
                layer.update_grid(source)
            except RuntimeError:
                return
        layer.update_grid(source)
        assert not layer.outside_share(x).any()
        if self.parts:
            return
        before = truth.linear(layer, x).detach()
        layer.update_grid(source)  # now the new splines are the old ones
        with torch.no_grad():
            eps = torch.finfo(self.dtype).eps
            self.agree([layer(x)], lambda read: [before if read is truth.exact else truth.linear(layer, x, read)], eps)

    @whole
    @rule(pick=seeds, factor=st.integers(1, 3))
    def extend_grid(self, pick, factor):
        layer = self.layers[pick % len(self.layers)]
        if layer.grid_size * factor > 12:
            return
        low, high = layer.grid[:, layer.spline_order], layer.grid[:, -layer.spline_order - 1]
        x = torch.lerp(low, high, torch.rand(30, len(low), dtype=torch.float64)).to(self.dtype)
        before = truth.edges(layer, x).detach()
        layer.extend_grid(layer.grid_size * factor)
        self.agree([truth.edges(layer, x)], lambda read: [before if read is truth.exact else truth.edges(layer, x, read)])

    @whole
    @rule(pick=seeds, size=st.integers(1, 9), seed=seeds)
    def set_grid(self, pick, size, seed):
        layer = self.layers[pick % len(self.layers)]
        functions = size + layer.spline_order
        knots = normal(seed, functions + layer.spline_order + 1).sort().values
        coef = normal(seed, layer.in_features, functions, layer.out_features)
        layer.set_grid(knots, coef)
        assert layer.grid_size == size and torch.equal(layer.coef, coef.to(self.dtype))

    @whole
    @rule(pick=seeds, seed=seeds, how=st.sampled_from(["data", "set", "item", "grad"]))
    def views(self, pick, seed, how):
        layer = self.layers[pick % len(self.layers)]
        names = ["spline_weight", *(["spline_scaler"] if layer.spline_scale is not None else [])]
        for name in names:
            value = normal(seed, *getattr(layer, name).shape, dtype=self.dtype)
            if how == "data":
                getattr(layer, name).data = value
            elif how == "set":
                setattr(layer, name, nn.Parameter(value))
            elif how == "item":
                getattr(layer, name).data[0] = value[0]
            else:
                getattr(layer, name).grad = value
                assert torch.equal(getattr(layer, name).grad, value)
            if how in ("data", "set"):
                assert torch.equal(getattr(layer, name), value)


TestLayers = LayerMachine.TestCase
TestLayers.settings = SETTINGS


def test_counted():
    print(TOTAL)
