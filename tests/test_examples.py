"""examples/digits.py, models.py, graph.py and lightning_module.py: each runs, and computes what it says."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fastkan.nn import KANConv2d, KANFeedForward, KANLinear

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # PyTorch Geometric looks it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def random_state():
    with torch.random.fork_rng():
        yield


# Digits


def test_digits_in_one_epoch(capsys):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    assert example("digits").main(["--quick"]) > 0.2  # twice the share of guesses
    assert "of 450 pictures right" in capsys.readouterr().out


@pytest.mark.long
def test_digits():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    assert example("digits").main([]) > 0.985


def test_shifted_pictures():
    x = torch.rand(200, 1, 8, 8)
    y = example("digits").shifted(x, torch.Generator().manual_seed(0))
    wide = nn.functional.pad(x, (1, 1, 1, 1), value=-1.0)
    each = torch.stack([wide[..., a : a + 8, b : b + 8] for a in range(3) for b in range(3)])
    matches = (each == y).flatten(2).all(2)  # 9 N
    assert matches.any(0).all() and matches.any(1).all()


# Models


@pytest.mark.parametrize("name", ["resnet", "vit", "encoder"])
def test_models(name, capsys):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    package = "transformers" if name == "encoder" else "timm"
    pytest.importorskip(package, reason=f"{package} is not installed")
    models = example("models")
    original, kan = (sum(p.numel() for p in models.MODELS[name](kan).parameters()) for kan in (False, True))
    assert abs(kan / original - 1) < 0.1
    kinds = {"resnet": (KANConv2d, 4), "vit": (KANFeedForward, 2), "encoder": (KANLinear, 4)}
    kind, count = kinds[name]
    assert sum(isinstance(m, kind) for m in models.MODELS[name](True).modules()) == count
    models.main(["--quick", "--models", name])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [f"{name}, original", f"{name}, KAN"]


def test_a_missing_package_is_named(monkeypatch, capsys):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    models = example("models")

    def missing(kan: bool):
        raise ImportError("No module named 'timm'")

    monkeypatch.setitem(models.MODELS, "vit", missing)
    models.main(["--quick", "--models", "vit"])
    assert "vit: No module named 'timm'" in capsys.readouterr().out


# Graphs


def test_a_graph_layer(capsys):
    pytest.importorskip("torch_geometric", reason="PyTorch Geometric is not installed")
    graph = example("graph")
    *inputs, _ = graph.graph(0)
    x, (source, target), distance = inputs
    layer = graph.graph_layer(graph.kan(3, 1))
    messages = layer.function(torch.cat([x[target], x[source], distance], 1))
    sums = torch.zeros_like(x).index_add_(0, target, messages)
    count = torch.zeros_like(x).index_add_(0, target, torch.ones_like(messages))
    torch.testing.assert_close(layer(*inputs), sums / count.clamp_min(1))
    assert set(graph.main(["--quick"])) == {"MLP", "KAN"}


# Lightning


@pytest.mark.long
def test_a_lightning_module(tmp_path, monkeypatch, capsys):
    pytest.importorskip("lightning", reason="lightning is not installed")
    monkeypatch.chdir(tmp_path)
    module = example("lightning_module")
    errors = module.main(["--quick"])
    assert list(errors) == [3, 6] and errors[6] < errors[3]
    assert "6 intervals: mean squared error" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_a_checkpoint_of_lightning_has_the_refined_model(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    module = example("lightning_module")
    model, x = module.Regression(), torch.rand(20, 2)
    model.refine(6)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **options)
    trainer.fit(model, module.batches(100, 0))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = module.Regression.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert again.kan.grid == 6 and again.hparams["grid"] == 3
    assert torch.equal(again(x), model(x))
