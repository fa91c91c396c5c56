"""pykan's tutorials Interp 1 to 6 and 8 to 11: the same tasks, smaller where they take long, through its own names."""

import itertools

import pytest
import torch

pytestmark = pytest.mark.slow


def test_interp_1_hello_multkan(kan):
    """x y, found again as a multiplication node of two lines."""
    dataset = kan.create_dataset(lambda x: x[:, 0] * x[:, 1], n_var=2)
    model = kan.KAN(width=[2, [5, 2], 1], base_fun="identity")
    model.get_act(dataset)
    model.fit(dataset, steps=20, lamb=0.01, lamb_coef=1.0)
    model = model.prune()
    assert model.fit(dataset, steps=20)["test_loss"][-1] < 1e-5
    model.plot()
    model.auto_symbolic()
    assert model.fit(dataset, steps=20)["test_loss"][-1] < 1e-10
    formula, (x, y) = model.symbolic_formula()
    rounded = kan.nsimplify(kan.ex_round(kan.expand(formula[0]), 3))
    assert rounded == x * y


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


def test_interp_3_compiler(kan):
    """Formulas as networks, exact to rounding; then a wider, deeper one, trained on what is not quite the formula."""
    from kan.compiler import kanpiler
    from kan.feynman import get_feynman_dataset

    symbols, expr, f, ranges = get_feynman_dataset(36)
    model, dataset = kanpiler(symbols, expr), kan.create_dataset(f, n_var=len(symbols), ranges=ranges)
    model.get_act(dataset)
    model.plot(in_vars=symbols, out_vars=[kan.sympy.Symbol("omega")], beta=10000)
    assert (model(dataset["train_input"]) - dataset["train_label"]).abs().max() < 1e-12

    x, y = kan.sympy.symbols("x y")
    model = kanpiler([x, y], kan.sympy.exp(kan.sympy.sin(kan.sympy.pi * x) + y**2))
    dataset = kan.create_dataset(
        lambda x: torch.exp(torch.sin(torch.pi * x[:, 0]) + x[:, 1] ** 2) + 0.1 * x[:, 0] * x[:, 1], n_var=2
    )
    model.get_act(dataset)
    before = model(dataset["test_input"])
    model.expand_depth()
    model.expand_width(layer_id=1, n_added_nodes=2)
    model.expand_width(layer_id=1, n_added_nodes=1, sum_bool=False, mult_arity=2)
    torch.testing.assert_close(model(dataset["test_input"]), before)
    model.get_act(dataset)
    model.perturb(mode="all", mag=0.1)
    losses = model.fit(dataset, steps=15)["test_loss"]
    assert losses[-1] < 1e-2 < (before - dataset["test_label"]).square().mean().sqrt()


def test_interp_4_feature_attribution(kan):
    """Of ten inputs two matter: they have the scores, and the network without the others is as good."""
    dataset = kan.create_dataset(lambda x: x[:, 0] ** 2 + 0.3 * x[:, 1], n_var=10, train_num=300, test_num=200)
    model = kan.KAN(width=[10, 5, 1])
    model.fit(dataset, steps=15, lamb=0.001)
    scores = model.feature_score
    assert set(scores.topk(2).indices.tolist()) == {0, 1} and scores.argmax() == 0
    model.attribute(1, 0)
    assert len(kan.plt.gca().patches) == 10
    interaction = model.feature_interaction(1)
    assert all(set(inputs) <= set(range(10)) for inputs in interaction)
    model = model.prune_input(threshold=3e-2)
    assert model.input_id.tolist() == [0, 1]
    losses = model.fit(dataset, steps=10)["test_loss"]
    assert losses[-1] < 5e-3
    model.plot()


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


def test_interp_6_symmetry_of_a_trained_network(kan):
    """(x1^2 + x2^2)^2 + (x3^2 + x4^2)^2, trained: its tree joins the right pairs."""
    from kan.hypothesis import get_molecule

    def f(x):
        return (x[:, [0]] ** 2 + x[:, [1]] ** 2) ** 2 + (x[:, [2]] ** 2 + x[:, [3]] ** 2) ** 2

    dataset = kan.create_dataset(f, n_var=4)
    model = kan.KAN(width=[4, 5, 5, 1], seed=0)
    model.fit(dataset, steps=30)
    model.tree()
    level = get_molecule(model, dataset["test_input"])[1]
    assert sorted(map(sorted, level)) == [[0, 1], [2, 3]]


def test_interp_8_auxiliary_variables(kan):
    """m0 / sqrt(1 - v^2 / c^2) with beta and gamma as further inputs: the product of gamma and m0."""
    m0, v, c = symbols = kan.sympy.symbols("m0 v c")
    beta = v / c
    gamma = 1 / kan.sympy.sqrt(1 - beta**2)
    dataset = kan.create_dataset(
        lambda x: x[:, [0]] / torch.sqrt(1 - x[:, [1]] ** 2 / x[:, [2]] ** 2), n_var=3,
        ranges=[[0, 1], [0, 0.9], [1.1, 2]],
    )  # fmt: skip
    dataset = kan.augment_input(symbols, (beta, gamma), dataset)
    variables = [beta, gamma, *symbols]
    assert dataset["train_input"].shape == (1000, 5)
    model = kan.KAN(width=[5, [0, 1]], mult_arity=2, grid=3, k=3, seed=1)
    model(dataset["train_input"])
    model.plot(in_vars=variables, out_vars=[m0 * gamma], varscale=0.7)
    model.fit(dataset, steps=30, lamb=1e-5, lamb_coef=1.0)
    model = model.prune(edge_th=5e-2)
    model.fit(dataset, steps=30)
    model.auto_symbolic()
    model.fit(dataset, steps=20)
    formula = model.symbolic_formula(var=variables)[0][0]
    assert float(formula.subs({m0: 0.7, v: 0.5, c: 1.5})) == pytest.approx(0.7 / (1 - 1 / 9) ** 0.5, abs=1e-6)


def test_interp_9_plotting_metrics(kan):
    dataset = kan.create_dataset(lambda x: torch.exp(torch.sin(torch.pi * x[:, [0]]) + x[:, [1]] ** 2), n_var=2)
    model = kan.KAN(width=[2, 5, 1])
    model.fit(dataset, steps=5, lamb=1e-3)
    figures = [model.plot(metric=metric) for metric in ("forward_u", "forward_n", "backward")]
    assert len({id(figure) for figure in figures}) == 3
    with pytest.raises(ValueError, match="metric='loud'"):
        model.plot(metric="loud")


def majority(bits: torch.Tensor) -> torch.Tensor:
    return (bits.sum(1) > bits.shape[1] / 2).double()


@pytest.mark.parametrize("kind", ["KAN", "MLP"])
def test_interp_10a_swap(kan, kind):
    """The majority of three majorities of bits: nodes are put in the order of what they read."""
    from kan.MLP import MLP

    bits = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9)))
    labels = majority(torch.stack([majority(bits[:, i : i + 3]) for i in (0, 3, 6)], 1))[:, None]
    kan.np.random.seed(5)
    dataset = kan.create_dataset_from_data(bits, labels)
    if kind == "KAN":
        model, steps = kan.KAN(width=[9, 5, 5, 1], seed=5, noise_scale=1.0), 15
    else:
        model, steps = MLP(width=[9, 20, 20, 1], seed=5), 60

    def test_acc():
        return ((model(dataset["test_input"]) > 0.5) == dataset["test_label"]).double().mean()

    options = {"reg_metric": "w"} if kind == "MLP" else {"stop_grid_update_step": 1000}
    results = model.fit(
        dataset,
        lamb=1e-4,
        steps=steps,
        metrics=[test_acc],
        display_metrics=["train_loss", "test_acc", "reg"],
        **options,
    )
    assert results["test_acc"][-1] > 0.95
    model(dataset["test_input"])
    model.get_act()
    model.attribute()
    y, cost = model(dataset["test_input"]), model.connection_cost
    model.auto_swap()
    torch.testing.assert_close(model(dataset["test_input"]), y)
    model.get_act()
    model.attribute()
    assert model.connection_cost <= cost
    model.plot(scale=1.0)


def test_interp_10b_swap(kan):
    """Five sums of two inputs each: after auto_swap the wiring is shorter, and the function the same."""
    dataset = kan.create_dataset(lambda x: x[:, 0::2] + x[:, 1::2], n_var=10, train_num=300, test_num=100)
    model = kan.KAN(width=[10, 10, 5], seed=1)
    model.fit(dataset, steps=10, lamb=1e-2)
    y = model(dataset["test_input"])
    model.attribute()
    cost = model.connection_cost
    model.auto_swap()
    torch.testing.assert_close(model(dataset["test_input"]), y)
    model.attribute()
    assert model.connection_cost < 0.9 * cost


def test_interp_10_hessian(kan):
    """The Hessian of the loss by all parameters: symmetric, and what finite differences of the gradient are."""
    from kan.utils import get_derivative, model2param

    dataset = kan.create_dataset(lambda x: x[:, [0]] ** 2, n_var=1, train_num=100)
    model = kan.KAN(width=[1, 3, 1])
    model.fit(dataset, opt="Adam", lr=1e-2, steps=50)
    x, y = dataset["train_input"], dataset["train_label"]
    hessian = get_derivative(model, x, y, derivative="hessian")[0]
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
