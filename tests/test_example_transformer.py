"""examples/vision_transformer.py: a transformer from its config with KAN layers trains as the original does."""

import importlib.util
from pathlib import Path

import pytest
import torch

from fastkan import KANLinear
from support.tiers import long

pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

PATH = Path(__file__).parents[1] / "examples" / "vision_transformer.py"
spec = importlib.util.spec_from_file_location("vision_transformer", PATH)
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)


@pytest.fixture(scope="module")
def data():
    return example.digits()


def test_replaced_layers():
    model = example.kan_transformer(16)
    replaced = [name for name, module in model.named_modules() if isinstance(module, KANLinear)]
    assert len(replaced) == 4 and all(".mlp." in name for name in replaced)
    with torch.no_grad():
        states = model(torch.randn(3, 1, 8, 8), output_hidden_states=True).hidden_states
    assert all(0.01 < state.std() < 5 for state in states)  # the residual stream stays in range at the start


@pytest.mark.parametrize("dtype", [torch.float32, *long(torch.bfloat16)])
def test_training(data, dtype):
    """At equal parameters, within 8 %; no loss is much above that of guessing, log 10 = 2.3, and all fall."""
    steps = 50
    original = example.train(example.transformer(example.WIDTH), *data, steps, dtype)
    kan = example.train(example.kan_transformer(example.KAN_WIDTH), *data, steps, dtype)
    assert abs(kan.parameters / original.parameters - 1) < 0.08
    assert max(kan.losses) < 3.0
    last = [sum(result.losses[-10:]) / 10 for result in (kan, original)]
    assert last[0] < 2.0 and last[0] < last[1] + 0.1


def test_the_table(capsys):
    example.main(["--steps", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0].strip() for line in lines[1:]] == ["linear", "KAN", "linear", "KAN"]
