"""pykan's tutorials Interp 1 to 6 and 8 to 11: the same tasks, smaller where they take long, through its own names."""

import pytest
import torch

pytestmark = pytest.mark.long


def test_interp_1_hello_multkan(task):
    found = task("Interp 1")
    x, y = found["variables"]
    assert found["formula"] == x * y


@pytest.mark.parametrize(
    ("width", "mult_arity"),
    [
        ([2, [3, 2], 1], 2), ([2, [3, 2], 1], 3), ([2, [3, 2], 1], 4), ([2, [3, 2], 1], [[], [2, 3], []]),
        ([2, [2, 2], [1, 3], [3, 2], [1, 1]], 2),
    ],
)  # fmt: skip
def test_interp_2_advanced_multkan(kan, width, mult_arity):
    model, x = kan.KAN(width=width, mult_arity=mult_arity), torch.randn(100, 2)
    y = model(x)
    n_sum = model.width[1][0]
    products = [model.acts_premult[0][:, group].prod(1) for group in model.subnodes(1)[n_sum:]]
    torch.testing.assert_close(model.acts[1][:, n_sum:], torch.stack(products, 1))
    figure = model.plot()
    assert y.shape == (100, model.width_in[-1]) and kan.plt.gcf() is figure


def test_interp_3_compiler(task):
    found = task("Interp 3")
    assert found["compiled, largest error"] < 1e-12 and found["changed by widening"] < 1e-12
    assert found["test loss"] < found["start"]


def test_interp_4_feature_attribution(task, kan):
    found = task("Interp 4")
    assert set(found["score"].topk(2).indices.tolist()) == {0, 1} and found["score"].argmax() == 0
    assert found["inputs"] == [0, 1]
    full = found["full"]
    full.attribute(1, 0)
    assert len(kan.plt.gca().patches) == 10
    assert all(set(inputs) <= set(range(10)) for inputs in full.feature_interaction(1))
    found["model"].plot()


def test_interp_5_symmetry(kan):
    from kan.hypothesis import (
        detect_separability,
        plot_tree,
        test_general_separability,
        test_separability,
        test_symmetry,
        test_symmetry_var,
    )

    x = torch.rand(100, 6) * 2 - 1
    pairs = [[0, 1], [2, 3], [4, 5]]

    def sums(x):
        return sum(x[:, [i]] * x[:, [i + 1]] for i in (0, 2, 4))

    def products(x):
        return (x[:, [0]] + x[:, [1]]) * (x[:, [2]] + x[:, [3]]) * (x[:, [4]] + x[:, [5]])

    assert sorted(map(sorted, detect_separability(sums, x, "add")["groups"])) == pairs
    assert sorted(map(sorted, detect_separability(products, x, "mul")["groups"])) == pairs
    assert test_separability(products, x, pairs, "mul")
    assert not test_separability(products, x, [[0, 1], [2, 4], [3, 5]], "mul")
    assert not test_separability(lambda x: torch.sin(products(x)), x, pairs, "mul")
    assert test_general_separability(lambda x: torch.sin(products(x)), x, pairs)
    assert [bool(test_symmetry(products, x, group)) for group in ([0, 1], [0, 2], [2, 3])] == [True, False, True]
    a, b, c = kan.sympy.symbols("a b c")
    rows = torch.rand(100, 3) * 2 - 1

    def relative(x):
        return x[:, [0]] * torch.sqrt(1 + (x[:, [1]] / x[:, [2]]) ** 2)

    assert (test_symmetry_var(relative, rows, (a, b, c), b / c) > 0.9).double().mean() > 0.9
    assert (test_symmetry_var(relative, rows, (a, b, c), b * c) > 0.9).double().mean() < 0.9
    for style in ("tree", "box"):
        figure = plot_tree(lambda x: (x[:, [0]] ** 2 + x[:, [1]] ** 2) ** 2 + x[:, [2]] ** 2, rows, style=style)
        assert kan.plt.gcf() is figure


def test_interp_6_symmetry_of_a_trained_network(task, kan):
    """Its tree joins the right pairs."""
    from kan.hypothesis import get_molecule

    found = task("Interp 6")
    level = get_molecule(found["model"], found["dataset"]["test_input"])[1]
    assert sorted(map(sorted, level)) == [[0, 1], [2, 3]]


def test_interp_8_auxiliary_variables(task):
    found = task("Interp 8")
    assert found["columns"] == 5 and found["formula error"] < 1e-6


def test_interp_9_plotting_metrics(task):
    found = task("Interp 9")
    assert len({id(figure) for figure in found["figures"]}) == 3
    with pytest.raises(ValueError, match="metric='loud'"):
        found["model"].plot(metric="loud")


@pytest.mark.parametrize("kind", ["KAN", "MLP"])
def test_interp_10a_swap(task, kind):
    found = task(f"Interp 10A, {kind}")
    assert found["changed"] < 1e-12 and found["wiring"] <= 1
    found["model"].plot(scale=1.0)


def test_interp_10b_swap(task):
    """After auto_swap the wiring is shorter, and the function the same."""
    found = task("Interp 10B")
    assert found["changed"] < 1e-12 and found["wiring"] < 0.9


def test_interp_10_hessian(task, kan):
    """The Hessian of the loss by all parameters: symmetric, and equal to finite differences of the gradient."""
    from kan.utils import get_derivative, model2param

    found = task("Interp 10, Hessian")
    model, hessian = found["model"], found["hessian"]
    x, y = found["dataset"]["train_input"], found["dataset"]["train_label"]
    count = len(model2param(model))
    assert hessian.shape == (count, count)
    torch.testing.assert_close(hessian, hessian.T)
    first = next(model.parameters())
    moved = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            first.view(-1)[0] += step
        moved.append(get_derivative(model, x, y, derivative="jacobian")[0])
        with torch.no_grad():
            first.view(-1)[0] -= step
    torch.testing.assert_close((moved[0] - moved[1]) / 2e-5, hessian[0], rtol=1e-5, atol=1e-7)
    assert (torch.linalg.eigvalsh(hessian) > 1e-6).sum() > 5


def test_interp_11_sparse_init(kan):
    x = torch.rand(100, 5)
    models = [kan.KAN([5, 5, 5, 1], sparse_init=sparse) for sparse in (False, True)]
    for model in models:
        model.get_act(x)
        model.plot()
    assert [model.n_edge for model in models] == [55, 15]
