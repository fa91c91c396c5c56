"""torch.jit.trace and its users (TensorBoard, older ONNX): traces in plain operators, with gradients."""

import copy
import inspect
import pickle
import warnings

import pytest
import torch

from fastkan import KAN, KANLinear, use_backend
from fastkan.compat.fast_kan import FastKAN
from fastkan.compat.pykan import MultKAN
from fastkan.nn import KANSequential
from fastkan.science import MLP


def symbolic() -> KAN:
    model = KAN([3, [2, 1], 2], seed=0)
    model.remove_edge(0, 1, 1)
    model.fix_symbolic(0, 0, 0, "sin", fit_params_bool=False, verbose=False)
    return model


def seen() -> KAN:
    model = KAN([3, 2, 1])
    model.get_act(torch.rand(20, 3))
    return model


BUILD = {
    "layer": lambda: KANLinear(3, 2),
    "options": lambda: KANLinear(
        3, 2, enable_standalone_scale_spline=True, base_activation=torch.tanh, outside="linear", bias=True
    ),
    "sequence": lambda: KANSequential(KANLinear(3, 4), KANLinear(4, 2)),
    "gaussians": lambda: FastKAN([3, 4, 2]),
    "network": lambda: KAN([3, 2, 1]),
    "network that has seen data": seen,
    "symbolic": symbolic,
    "pykan": lambda: MultKAN([3, 2, 1], auto_save=False),
}


def traced(model: torch.nn.Module, x: torch.Tensor, path) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.trace(model, x).save(path)
        return torch.jit.load(path)


@pytest.mark.parametrize("build", BUILD.values(), ids=BUILD.keys())
@pytest.mark.parametrize("lead", [(5,), (2, 4)], ids=str)
def test_a_saved_trace_is_the_model(build, lead, tmp_path):
    torch.manual_seed(0)
    model = build().double()
    loaded = traced(model, torch.rand(*lead, 3, dtype=torch.float64), tmp_path / "trace.pt")
    x = (3 * torch.rand(*lead[:-1], 33, 3, dtype=torch.float64) - 1.5).requires_grad_()  # beyond the grid too
    results = []
    for run in loaded, model:
        y = run(x)
        y.square().sum().backward()
        results.append([y.detach(), x.grad.clone(), *(p.grad.clone() for p in run.parameters() if p.grad is not None)])
        x.grad = None
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # FastKAN keeps centres of float32
    assert "fastkan::" not in str(loaded.inlined_graph)


def test_a_trace_reads_its_tensors(tmp_path):
    """Other parameters, another grid, which is no longer uniform, and another mask, loaded into it."""
    x = torch.rand(50, 3)
    model, other = KAN([3, 2, 1]), KAN([3, 2, 1], seed=7)
    loaded = traced(model, x, tmp_path / "trace.pt")
    other.update_grid(x)
    other.act_fun[0].mask[0, 1] = 0.0
    loaded.load_state_dict({name: other.state_dict()[name] for name in loaded.state_dict()})
    torch.testing.assert_close(loaded(x), other(x))


def test_a_trace_of_the_kernels_by_name(tmp_path):
    model, x = KANLinear(3, 2), torch.rand(5, 3)
    with use_backend("native"):
        loaded = traced(model, x, tmp_path / "trace.pt")
    assert "fastkan::kan_out" in str(loaded.inlined_graph)
    torch.testing.assert_close(loaded(x), model(x))


def test_a_trace_without_gradients(tmp_path):
    model, x = symbolic(), torch.rand(5, 3)
    with torch.no_grad():
        loaded = traced(model, x, tmp_path / "trace.pt")
    torch.testing.assert_close(loaded(x), model(x))


@pytest.mark.parametrize("build", BUILD.values(), ids=BUILD.keys())
def test_the_older_onnx_exporter(build, tmp_path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model, path = build().eval(), tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = {"x": {0: "rows"}}
        torch.onnx.export(model, (torch.rand(5, 3),), path, dynamo=False, input_names=["x"], dynamic_axes=rows)
    x = torch.rand(33, 3)
    (y,) = onnxruntime.InferenceSession(path).run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), model(x).detach(), rtol=2e-6, atol=2e-6)


LACKING = {
    "KAN": (lambda: KAN([2, 1]), ("connection_cost", "feature_score"), "x=None: expected data"),
    "MLP": (lambda: MLP([2, 3, 1]), ("feature_score",), "x=None: expected data"),
    "MultKAN": (
        lambda: MultKAN([2, 1], auto_save=False),
        ("symbolic_acts", "symbolic_acts_premult"),
        "have a numeric branch",
    ),
}


@pytest.mark.parametrize(("build", "names", "why"), LACKING.values(), ids=LACKING.keys())
def test_uncomputable_property_is_absent(build, names, why):
    for model in (build(), copy.deepcopy(build()), pickle.loads(pickle.dumps(build()))):
        assert not {name for name, _ in inspect.getmembers(model)} & set(names)
        for name in names:
            assert not hasattr(model, name)
            for kind in (AttributeError, ValueError):
                with pytest.raises(kind, match=why):
                    getattr(model, name)
        with pytest.raises(AttributeError, match="object has no attribute 'nothing'"):
            model.nothing  # noqa: B018
