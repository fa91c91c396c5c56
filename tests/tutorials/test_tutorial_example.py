"""pykan's tutorials Example 1 and 3 to 15: the same tasks, smaller where they take long, through its own names."""

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.long


def test_example_1_function_fitting(task):
    losses = task("Example 1")["losses"]
    assert losses == sorted(losses, reverse=True)


def test_example_3_deep_formulas(task):
    found = task("Example 3")
    assert found["test loss"] < found["test loss, two layers"] / 10


def test_example_4_classification_by_regression(task):
    assert task("Example 4, regression")["train accuracy"] > 0.995


def test_example_4_classification(task):
    task("Example 4")


def test_example_5_special_functions(task):
    pytest.importorskip("sklearn")
    found = task("Example 5")
    name, fun, r2, c = found["suggested"]
    assert found["before"][2] < 0.9 and (name, c) == ("J0", 1) and fun[0] is torch.special.bessel_j0 and r2 > 0.95


def test_example_6_pde_interpretation(task):
    model = task("Example 6")["model"]
    assert all(layer.mask.all() for layer in model.symbolic_fun)


def test_example_7_pde_accuracy(task):
    found = task("Example 7")
    assert sum(after < before for before, after in zip(found["coarse"], found["fine"], strict=True)) >= 4


def test_example_8_continual_learning(task):
    assert task("Example 8")["largest error"] < 1e-2  # of peaks of height 1


def test_example_9_singularity(task):
    assert min(task("Example 9")["r2"]) > 0.9


def test_example_9_singularity_at_the_origin(task):
    found = task("Example 9, origin")
    assert min(found["r2"]) > 0.99 and np.isfinite(found["losses"]).all() and min(found["losses"]) < found["start"]


def test_example_10_relativity(task):
    found = task("Example 10")
    assert found["suggested"] == ["arctanh", "tanh"] and min(found["r2"]) > 0.999
    x, y = found["variables"]
    assert str(found["formula"]) == f"tanh(atanh({x}) + atanh({y}))"


def test_example_11_encouraging_linearity(task):
    bent = task("Example 11")["bent"]
    assert sum(b < 0.1 for b in bent) >= 2 and max(bent) > 0.2


def test_example_12_unsupervised_learning(task):
    score = task("Example 12")["score"]
    found = set((score > 0.05 * score.max()).nonzero().flatten().tolist())
    assert found in ({3, 4}, {0, 1, 2})


def test_example_13_phase_transition(task):
    task("Example 13")


def test_example_14_knots_supervised(task):
    assert set(task("Example 14")["score"].topk(3).indices.tolist()) == {0, 1, 2}


def test_example_15_knots_unsupervised(task):
    assert set(task("Example 15")["score"].topk(3).indices.tolist()) == {0, 1, 2}
