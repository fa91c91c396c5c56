"""The tutorials Interp 1 to 11 that train."""

import itertools

import torch

from . import objective


def hello_multkan(kan, seed: int = 0) -> dict:
    """Interp 1: x y, found again as a multiplication node of two lines."""
    dataset = kan.create_dataset(lambda x: x[:, 0] * x[:, 1], n_var=2)
    model = kan.KAN(width=[2, [5, 2], 1], base_fun="identity", seed=1 + seed)
    model.get_act(dataset)
    model.fit(dataset, steps=20, lamb=0.01, lamb_coef=1.0)
    model = model.prune()
    splines = model.fit(dataset, steps=20)["test_loss"][-1]
    model.plot()
    model.auto_symbolic()
    loss = model.fit(dataset, steps=20)["test_loss"][-1]
    formulas, variables = model.symbolic_formula()
    return {"test loss": loss, "splines' test loss": splines, "variables": variables,
            "formula": kan.nsimplify(kan.ex_round(kan.expand(formulas[0]), 3))}  # fmt: skip


def compiler(kan, seed: int = 0) -> dict:
    """Interp 3: formulas as networks, exact to rounding; then a wider, deeper one, trained on what is not quite it."""
    from kan.compiler import kanpiler
    from kan.feynman import get_feynman_dataset

    symbols, expr, f, ranges = get_feynman_dataset(36)
    model, dataset = kanpiler(symbols, expr), kan.create_dataset(f, n_var=len(symbols), ranges=ranges)
    model.get_act(dataset)
    model.plot(in_vars=symbols, out_vars=[kan.sympy.Symbol("omega")], beta=10000)
    exact = (model(dataset["train_input"]) - dataset["train_label"]).abs().max().item()

    x, y = kan.sympy.symbols("x y")
    model = kanpiler([x, y], kan.sympy.exp(kan.sympy.sin(kan.sympy.pi * x) + y**2))
    dataset = kan.create_dataset(
        lambda x: torch.exp(torch.sin(torch.pi * x[:, 0]) + x[:, 1] ** 2) + 0.1 * x[:, 0] * x[:, 1], n_var=2
    )
    model.get_act(dataset)
    torch.manual_seed(seed)
    before = model(dataset["test_input"])
    model.expand_depth()
    model.expand_width(layer_id=1, n_added_nodes=2)
    model.expand_width(layer_id=1, n_added_nodes=1, sum_bool=False, mult_arity=2)
    changed = (model(dataset["test_input"]) - before).abs().max().item()
    model.get_act(dataset)
    model.perturb(mode="all", mag=0.1)
    loss = model.fit(dataset, steps=15)["test_loss"][-1]
    start = (before - dataset["test_label"]).square().mean().sqrt().item()
    return {"test loss": loss, "compiled, largest error": exact, "changed by widening": changed, "start": start}


def feature_attribution(kan, seed: int = 0) -> dict:
    """Interp 4: of ten inputs two matter: they have the scores, and the network without the others is as good."""
    dataset = kan.create_dataset(lambda x: x[:, 0] ** 2 + 0.3 * x[:, 1], n_var=10, train_num=300, test_num=200)
    model = kan.KAN(width=[10, 5, 1], seed=1 + seed)
    model.fit(dataset, steps=15, lamb=0.001)
    full, score = model, model.feature_score
    model = model.prune_input(threshold=3e-2)
    loss = model.fit(dataset, steps=10)["test_loss"][-1]
    return {"test loss": loss, "score": score, "inputs": [int(i) for i in model.input_id], "full": full, "model": model}


def symmetry_of_a_trained_network(kan, seed: int = 0) -> dict:
    """Interp 6: (x1^2 + x2^2)^2 + (x3^2 + x4^2)^2, trained; and its tree."""

    def f(x):
        return (x[:, [0]] ** 2 + x[:, [1]] ** 2) ** 2 + (x[:, [2]] ** 2 + x[:, [3]] ** 2) ** 2

    dataset = kan.create_dataset(f, n_var=4)
    model = kan.KAN(width=[4, 5, 5, 1], seed=seed)
    loss = model.fit(dataset, steps=30)["test_loss"][-1]
    model.tree()
    return {"test loss": loss, "model": model, "dataset": dataset}


def auxiliary_variables(kan, seed: int = 0) -> dict:
    """Interp 8: m0 / sqrt(1 - v^2 / c^2) with beta and gamma as further inputs: the product of gamma and m0."""
    m0, v, c = symbols = kan.sympy.symbols("m0 v c")
    beta = v / c
    gamma = 1 / kan.sympy.sqrt(1 - beta**2)
    dataset = kan.create_dataset(
        lambda x: x[:, [0]] / torch.sqrt(1 - x[:, [1]] ** 2 / x[:, [2]] ** 2), n_var=3,
        ranges=[[0, 1], [0, 0.9], [1.1, 2]],
    )  # fmt: skip
    dataset = kan.augment_input(symbols, (beta, gamma), dataset)
    variables = [beta, gamma, *symbols]
    model = kan.KAN(width=[5, [0, 1]], mult_arity=2, grid=3, k=3, seed=1 + seed)
    model(dataset["train_input"])
    model.plot(in_vars=variables, out_vars=[m0 * gamma], varscale=0.7)
    model.fit(dataset, steps=30, lamb=1e-5, lamb_coef=1.0)
    model = model.prune(edge_th=5e-2)
    model.fit(dataset, steps=30)
    model.auto_symbolic()
    loss = model.fit(dataset, steps=20)["test_loss"][-1]
    formula = model.symbolic_formula(var=variables)[0][0]
    error = abs(float(formula.subs({m0: 0.7, v: 0.5, c: 1.5})) - 0.7 / (1 - 1 / 9) ** 0.5)
    return {"formula error": error, "test loss": loss, "columns": dataset["train_input"].shape[1]}


def plotting_metrics(kan, seed: int = 0) -> dict:
    """Interp 9: one network by three scores of its edges."""
    dataset = kan.create_dataset(lambda x: torch.exp(torch.sin(torch.pi * x[:, [0]]) + x[:, [1]] ** 2), n_var=2)
    model = kan.KAN(width=[2, 5, 1], seed=1 + seed)
    results = model.fit(dataset, steps=5, lamb=1e-3)
    figures = [model.plot(metric=metric) for metric in ("forward_u", "forward_n", "backward")]
    return {"loss and penalty": objective(results, 1e-3), "test loss": results["test_loss"][-1],
            "figures": figures, "model": model}  # fmt: skip


def majority(bits: torch.Tensor) -> torch.Tensor:
    return (bits.sum(1) > bits.shape[1] / 2).double()


def swap(kan, seed: int = 0, *, kind: str) -> dict:
    """Interp 10A: the majority of three majorities of bits: nodes are put in the order of what they read."""
    from kan.MLP import MLP

    bits = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9)))
    labels = majority(torch.stack([majority(bits[:, i : i + 3]) for i in (0, 3, 6)], 1))[:, None]
    kan.np.random.seed(5)
    dataset = kan.create_dataset_from_data(bits, labels)
    if kind == "KAN":
        model, steps = kan.KAN(width=[9, 5, 5, 1], seed=5 + seed, noise_scale=1.0), 15
    else:
        model, steps = MLP(width=[9, 20, 20, 1], seed=5 + seed), 60

    def test_acc():
        return ((model(dataset["test_input"]) > 0.5) == dataset["test_label"]).double().mean()

    options = {"reg_metric": "w"} if kind == "MLP" else {"stop_grid_update_step": 1000}
    results = model.fit(
        dataset, lamb=1e-4, steps=steps, metrics=[test_acc], display_metrics=["train_loss", "test_acc", "reg"],
        **options,
    )  # fmt: skip
    return {"accuracy": results["test_acc"][-1]} | _swapped(model, dataset)


def swap_of_sums(kan, seed: int = 0) -> dict:
    """Interp 10B: five sums of two inputs each."""
    dataset = kan.create_dataset(lambda x: x[:, 0::2] + x[:, 1::2], n_var=10, train_num=300, test_num=100)
    model = kan.KAN(width=[10, 10, 5], seed=1 + seed)
    results = model.fit(dataset, steps=10, lamb=1e-2)
    return {"loss and penalty": objective(results, 1e-2)} | _swapped(model, dataset)


def _swapped(model, dataset) -> dict:
    """The wiring's length after auto_swap over that before, of which less is better; and how far the function moved."""
    y = model(dataset["test_input"])
    model.get_act()
    model.attribute()
    before = float(model.connection_cost)
    model.auto_swap()
    changed = (model(dataset["test_input"]) - y).abs().max().item()
    model.get_act()
    model.attribute()
    after = float(model.connection_cost)
    return {"wiring": after / before, "changed": changed, "model": model}


def hessian(kan, seed: int = 0) -> dict:
    """Interp 10: the Hessian of the loss by all parameters."""
    from kan.utils import get_derivative

    dataset = kan.create_dataset(lambda x: x[:, [0]] ** 2, n_var=1, train_num=100)
    model = kan.KAN(width=[1, 3, 1], seed=1 + seed)
    loss = model.fit(dataset, opt="Adam", lr=1e-2, steps=50)["test_loss"][-1]
    x, y = dataset["train_input"], dataset["train_label"]
    return {"test loss": loss, "hessian": get_derivative(model, x, y, derivative="hessian")[0], "model": model,
            "dataset": dataset}  # fmt: skip
