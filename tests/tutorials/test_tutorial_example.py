"""pykan's tutorials Example 1 and 3 to 15: the same tasks, smaller where they take long, through its own names."""

import numpy as np
import pytest
import torch

from bench.tasks import example

pytestmark = pytest.mark.slow


def test_example_1_function_fitting(kan):
    losses = example.function_fitting(kan)["losses"]
    assert losses == sorted(losses, reverse=True)


def test_example_3_deep_formulas(kan):
    found = example.deep_formulas(kan)
    assert found["test loss"] < found["test loss, two layers"] / 10


def test_example_4_classification_by_regression(kan):
    assert example.classification_by_regression(kan)["train accuracy"] > 0.995


def test_example_4_classification(kan):
    example.classification(kan)


def test_example_5_special_functions(kan):
    pytest.importorskip("sklearn")
    found = example.special_functions(kan)
    name, fun, r2, c = found["suggested"]
    assert found["before"][2] < 0.9 and (name, c) == ("J0", 1) and fun[0] is torch.special.bessel_j0 and r2 > 0.99


def test_example_6_pde_interpretation(kan):
    model = example.pde_interpretation(kan)["model"]
    assert all(layer.mask.all() for layer in model.symbolic_fun)


def test_example_7_pde_accuracy(kan):
    found = example.pde_accuracy(kan)
    assert sum(after < before for before, after in zip(found["coarse"], found["fine"], strict=True)) >= 4


def test_example_8_continual_learning(kan):
    assert example.continual_learning(kan)["largest error"] < 1e-2  # of peaks of height 1


def test_example_9_singularity(kan):
    assert min(example.singularity(kan)["r2"]) > 0.9


def test_example_9_singularity_at_the_origin(kan):
    found = example.singularity_at_the_origin(kan)
    assert min(found["r2"]) > 0.99 and np.isfinite(found["losses"]).all() and found["train loss"] < found["start"]


def test_example_10_relativity(kan):
    found = example.relativity(kan)
    assert found["suggested"] == ["arctanh", "tanh"] and min(found["r2"]) > 0.999
    x, y = found["variables"]
    assert str(found["formula"]) == f"tanh(atanh({x}) + atanh({y}))"


def test_example_11_encouraging_linearity(kan):
    bent = example.encouraging_linearity(kan)["bent"]
    assert sum(b < 0.1 for b in bent) >= 2 and max(bent) > 0.2


def test_example_12_unsupervised_learning(kan):
    score = example.unsupervised_learning(kan)["score"]
    found = set((score > 0.05 * score.max()).nonzero().flatten().tolist())
    assert found in ({3, 4}, {0, 1, 2})


def test_example_13_phase_transition(kan):
    example.phase_transition(kan)


def test_example_14_knots_supervised(kan):
    assert set(example.knots_supervised(kan)["score"].topk(3).indices.tolist()) == {0, 1, 2}


def test_example_15_knots_unsupervised(kan):
    assert set(example.knots_unsupervised(kan)["score"].topk(3).indices.tolist()) == {0, 1, 2}
