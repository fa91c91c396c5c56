"""The dense backend as a tracer records it: the same contractions, evaluated without a look at the knots."""

from types import ModuleType

import pytest
import torch

from fastkan import KANLinear
from fastkan.backends import dense
from fastkan.backends.dense import window
from support.contraction_tests import (  # noqa: F401
    test_native_at_infinity_matches_the_reference,
    test_native_edge_backward_with_absent_arguments,
    test_native_matches_the_reference,
    test_native_nans_match_the_reference,
    test_native_on_empty_tensors,
    test_native_on_repeated_knots,
    test_native_on_the_knots,
    test_native_silu_far_below_zero,
)


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for module in (dense, window):
        monkeypatch.setattr(module, "is_traced", lambda: True)
    monkeypatch.setattr(window, "readable", lambda grid: False)
    return dense


@pytest.mark.parametrize("grid_size", [5, 40])
def test_nothing_large_is_kept_for_the_backward_under_torch_compile(grid_size):
    torch._dynamo.reset()
    layer, x = KANLinear(8, 8, grid_size, backend="dense"), torch.rand(2000, 8, requires_grad=True)
    compiled = torch.compile(layer, backend="aot_eager_decomp_partition")
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = compiled(x)
    sizes = sorted(t.numel() for t in kept if t.data_ptr() != x.data_ptr())
    assert kept and sizes[-1] <= layer.coef.numel()
    y.sum().backward()
    found, x.grad = x.grad, None
    layer(x).sum().backward()
    torch.testing.assert_close(found, x.grad)
