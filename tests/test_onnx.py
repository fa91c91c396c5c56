"""Models exported by torch's ONNX exporter and run by ONNX Runtime."""

import logging

import pytest
import torch

from fastkan import KAN, KANLinear
from fastkan.compat.fast_kan import FastKAN
from support.tiers import long

pytest.importorskip("onnxscript", reason="torch's exporter needs onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


def layers() -> torch.nn.Module:
    return torch.nn.Sequential(KANLinear(3, 8, base_activation=torch.tanh), KANLinear(8, 2, outside="linear"))


def uneven() -> torch.nn.Module:
    layer = KANLinear(3, 4, grid_size=7, spline_order=2, outside="clamp")
    layer.update_grid(torch.randn(200, 3))
    return layer


def network() -> torch.nn.Module:
    model = KAN([3, [3, 1], 1], grid=4, seed=0)
    model.remove_edge(0, 1, 2)
    model.fix_symbolic(0, 0, 0, "sin", fit_params_bool=False, verbose=False)
    return model


def gaussians() -> torch.nn.Module:
    return FastKAN([3, 6, 1])


@pytest.mark.parametrize("build", [network, *long(layers, uneven, gaussians)], ids=lambda build: build.__name__)
def test_onnx(build, caplog):
    caplog.set_level(logging.ERROR)
    torch.manual_seed(0)
    model = build().eval()
    rows = ({0: torch.export.Dim("rows")},)
    program = torch.onnx.export(model, (torch.rand(5, 3),), dynamo=True, dynamic_shapes=rows, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for size in (4, 33):
        x = torch.rand(size, 3) * 3 - 1.5  # beyond the grid too
        x[0] = 1.0  # its end
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), model(x).detach(), rtol=2e-6, atol=2e-6)
