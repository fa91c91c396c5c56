"""The tutorials Example 1 and 3 to 15."""

import numpy as np
import torch

from . import minimise, objective


def error_of(model, dataset) -> float:
    """The root of the mean square error on the test set."""
    return (model(dataset["test_input"]) - dataset["test_label"]).square().mean().sqrt().item()


def function_fitting(kan, seed: int = 0) -> dict:
    """Example 1: the error falls with every refinement, by the order of the splines."""

    def f(x):
        return torch.exp(torch.sin(torch.pi * x[:, [0]]) + x[:, [1]] ** 2)

    dataset = kan.create_dataset(f, n_var=2)
    model, losses = kan.KAN(width=[2, 1, 1], grid=3, k=3, seed=3 + seed), []
    for grid in (3, 5, 10, 20, 50):
        model = model if grid == 3 else model.refine(grid)
        losses.append(float(model.fit(dataset, opt="LBFGS", steps=30)["test_loss"][-1]))
    return {"test loss": losses[-1], "losses": losses}


def deep_formulas(kan, seed: int = 0) -> dict:
    """Example 3: three layers are better than two for a formula that is composed of three."""

    def f(x):
        inner = [torch.sin(torch.pi * (x[:, [i]] ** 2 + x[:, [i + 1]] ** 2)) for i in (0, 2)]
        return torch.exp(sum(inner) / 2)

    dataset = kan.create_dataset(f, n_var=4, train_num=1000)
    deep = kan.KAN(width=[4, 2, 1, 1], grid=3, k=3, seed=2 + seed)
    deep.fit(dataset, opt="LBFGS", steps=15, lamb=0.002, lamb_entropy=2.0)
    deep = deep.prune(edge_th=1e-2)
    flat = kan.KAN(width=[4, 9, 1], grid=3, k=3, seed=1 + seed)
    found = {}
    flat(dataset["train_input"])  # pykan refines by the last input
    for name, model in (("test loss", deep), ("test loss, two layers", flat)):
        for grid in (5, 10):
            model = model.refine(grid)
            found[name] = model.fit(dataset, opt="LBFGS", steps=10, stop_grid_update_step=10)["test_loss"][-1]
    return found


def two_moons() -> dict:
    from sklearn.datasets import make_moons

    parts = [make_moons(n_samples=500, shuffle=True, noise=0.1, random_state=seed) for seed in (0, 1)]
    (x, y), (x_test, y_test) = (map(torch.from_numpy, part) for part in parts)
    return {"train_input": x, "train_label": y, "test_input": x_test, "test_label": y_test}


def formulas_of(kan, model, x) -> torch.Tensor:
    formulas, variables = model.symbolic_formula()
    columns = [kan.sympy.lambdify(variables, formula)(*x.numpy().T) for formula in formulas]
    return torch.from_numpy(np.stack([np.broadcast_to(column, len(x)) for column in columns], 1))


def classification_by_regression(kan, seed: int = 0) -> dict:
    """Example 4: two moons by the square error."""
    dataset = two_moons()
    dataset |= {name: dataset[name][:, None].double() for name in ("train_label", "test_label")}
    model = kan.KAN(width=[2, 1], grid=3, k=3, seed=1 + seed)

    def train_acc():
        return ((model(dataset["train_input"]) > 0.5) == dataset["train_label"]).double().mean()

    def test_acc():
        return ((model(dataset["test_input"]) > 0.5) == dataset["test_label"]).double().mean()

    results = model.fit(dataset, opt="LBFGS", steps=20, metrics=(train_acc, test_acc))
    model.auto_symbolic(lib=["x", "x^2", "x^3", "x^4", "exp", "log", "sqrt", "tanh", "sin", "tan", "abs"])
    right = (formulas_of(kan, model, dataset["test_input"]) > 0.5) == dataset["test_label"]
    return {"accuracy": results["test_acc"][-1], "formula's accuracy": right.double().mean().item(),
            "train accuracy": results["train_acc"][-1]}  # fmt: skip


def classification(kan, seed: int = 0) -> dict:
    """Example 4: two moons by the cross-entropy."""
    dataset, model = two_moons(), kan.KAN(width=[2, 2], grid=3, k=3, seed=2024 + seed)

    def test_acc():
        return (model(dataset["test_input"]).argmax(1) == dataset["test_label"]).double().mean()

    results = model.fit(dataset, opt="LBFGS", steps=20, metrics=(test_acc,), loss_fn=torch.nn.CrossEntropyLoss())
    model.auto_symbolic(lib=["x", "x^2", "x^3", "x^4", "exp", "log", "sqrt", "tanh", "sin", "abs"])
    right = formulas_of(kan, model, dataset["test_input"]).argmax(1) == dataset["test_label"]
    return {"accuracy": results["test_acc"][-1], "formula's accuracy": right.double().mean().item()}


def special_functions(kan, seed: int = 0) -> dict:
    """Example 5: exp(J0(20 x) + y^2); J0 is found once it is in the library."""

    def f(x):
        return torch.exp(torch.special.bessel_j0(20 * x[:, [0]]) + x[:, [1]] ** 2)

    dataset = kan.create_dataset(f, n_var=2)
    model = kan.KAN(width=[2, 1, 1], grid=3, k=3, seed=seed)
    model.fit(dataset, opt="LBFGS", steps=20)
    model = model.refine(20)
    model.fit(dataset, opt="LBFGS", steps=20)
    before = model.suggest_symbolic(0, 0, 0, verbose=False)
    kan.add_symbolic("J0", torch.special.bessel_j0, c=1)
    try:
        suggested = model.suggest_symbolic(0, 0, 0, a_range=(-40, 40), verbose=False)
    finally:
        kan.SYMBOLIC_LIB.pop("J0", None)
    return {"test loss": error_of(model, dataset), "1 - r2": 1 - float(suggested[2]), "before": before,
            "suggested": suggested}  # fmt: skip


class Poisson:
    """laplace u = -2 pi^2 sin(pi x) sin(pi y) on [-1, 1]^2 with u = 0 on its boundary, as a loss of a model."""

    def __init__(self, points: int):
        axis = torch.linspace(-1, 1, points)
        self.inner = torch.cartesian_prod(axis, axis)
        self.border = self.inner[(self.inner.abs() == 1).any(1)]

    @staticmethod
    def solution(x):
        return torch.sin(torch.pi * x[:, [0]]) * torch.sin(torch.pi * x[:, [1]])

    def loss(self, kan, model) -> torch.Tensor:
        hessian = kan.batch_hessian(model, self.inner, create_graph=True)
        residual = hessian.diagonal(dim1=1, dim2=2).sum(1, keepdim=True) + 2 * torch.pi**2 * self.solution(self.inner)
        return 0.01 * residual.square().mean() + model(self.border).square().mean()

    def train(self, kan, model, steps: int) -> float:
        def before(step: int) -> None:
            if step % 5 == 0 and step < 20 and any(layer.mask.any() for layer in model.act_fun):
                model.update_grid_from_samples(self.inner)

        minimise(kan, model, lambda: self.loss(kan, model), steps, before)
        return (model(self.inner) - self.solution(self.inner)).square().mean().item()


def pde_interpretation(kan, seed: int = 0) -> dict:
    """Example 6: sin(pi x) sin(pi y) = (cos(pi (x - y)) - cos(pi (x + y))) / 2, by training the formula's numbers."""
    problem = Poisson(11)
    model = kan.KAN(width=[2, 2, 1], grid=5, k=3, seed=1 + seed)
    problem.train(kan, model, 10)
    for i in range(2):
        for j in range(2):
            model.fix_symbolic(0, i, j, "x", verbose=False)
        model.fix_symbolic(1, i, 0, "sin", verbose=False)
    with torch.no_grad():  # which sums the nodes are is a matter of luck, in pykan too
        model.symbolic_fun[0].affine.copy_(
            torch.tensor([[[1, 0, 3, 0.8], [1, 0, 3, 0.7]], [[1, 0, 3, 0.8], [1, 0, -3, 0.7]]])
        )
        model.symbolic_fun[1].affine.copy_(torch.tensor([[[1, 0, -0.4, 0], [1, 0, 0.4, 0]]]))
    loss = problem.train(kan, model, 15)
    x, y = kan.sympy.symbols("x y")
    formula = model.symbolic_formula(var=[x, y])[0][0]
    error = abs(float(formula.subs({x: 0.3, y: 0.4})) - np.sin(0.3 * np.pi) * np.sin(0.4 * np.pi))
    return {"mean square error": loss, "formula error": error, "model": model}


def pde_accuracy(kan, seed: int = 0, starts: int = 5) -> dict:
    """Example 7: a finer grid solves it better; over five starts, since from one alone that is luck."""
    problem, coarse, fine = Poisson(11), [], []
    for start in range(starts):
        model = kan.KAN(width=[2, 2, 1], grid=5, k=3, seed=starts * seed + start)
        model = model.speed() or model  # which pykan does in place
        coarse.append(problem.train(kan, model, 15))
        model.save_act = True  # which speed() switches off in pykan, and refine needs there
        model.get_act(problem.inner)
        model = model.refine(10)
        model = model.speed() or model
        fine.append(problem.train(kan, model, 24))
    return {"least mean square error": min(fine), "coarse": coarse, "fine": fine}


def continual_learning(kan, seed: int = 0) -> dict:
    """Example 8: five peaks one after the other: what was learnt stays, since splines are local."""
    centers = 0.4 * (torch.arange(5) - 2)
    x = torch.cat([torch.linspace(-0.2, 0.2, 100) + center for center in centers])[:, None]
    y = torch.exp(-((x - centers) ** 2) * 300).sum(1, keepdim=True)
    model = kan.KAN(
        width=[1, 1], grid=200, k=3, noise_scale=0.1, sp_trainable=False, sb_trainable=False, base_fun="zero",
        seed=1 + seed,
    )  # fmt: skip
    worst = []
    for part in range(5):
        rows = slice(100 * part, 100 * part + 100)
        data = {"train_input": x[rows], "train_label": y[rows], "test_input": x[rows], "test_label": y[rows]}
        model.fit(data, opt="LBFGS", steps=50, update_grid=False)
        seen = slice(0, 100 * part + 100)
        worst.append((model(x[seen]) - y[seen]).abs().max().item())
    return {"largest error": max(worst)}


def singularity(kan, seed: int = 0) -> dict:
    """Example 9: sin(2 (log x + log y)), by functions that are not finite everywhere."""

    def f(x):
        return torch.sin(2 * (torch.log(x[:, [0]]) + torch.log(x[:, [1]])))

    dataset = kan.create_dataset(f, n_var=2, ranges=[0.2, 5])
    model = kan.KAN(width=[2, 1, 1], grid=5, k=3, seed=seed)
    model.fit(dataset, opt="LBFGS", steps=20)
    edges = ((0, 0, 0), "log"), ((0, 1, 0), "log"), ((1, 0, 0), "sin")
    r2 = [model.fix_symbolic(*edge, name, verbose=False) for edge, name in edges]
    return {"test loss": model.fit(dataset, opt="LBFGS", steps=30)["test_loss"][-1], "r2": r2}


def singularity_at_the_origin(kan, seed: int = 0) -> dict:
    """Example 9: sqrt(x^2 + y^2)."""
    dataset = kan.create_dataset(lambda x: torch.sqrt(x[:, [0]] ** 2 + x[:, [1]] ** 2), n_var=2)
    model = kan.KAN(width=[2, 1, 1], grid=5, k=3, seed=seed)
    model.fit(dataset, opt="LBFGS", steps=20)
    edges = ((0, 0, 0), "x^2"), ((0, 1, 0), "x^2"), ((1, 0, 0), "sqrt")
    r2 = [model.fix_symbolic(*edge, name, verbose=False) for edge, name in edges]
    model = model.rewind(f"{model.round}.{model.state_id}")
    model.get_act(dataset)
    start = error_of(model, dataset)
    options = {"opt": "Adam", "steps": 200, "lr": 1e-3, "update_grid": False}
    losses = model.fit(dataset, singularity_avoiding=True, **options)["train_loss"]
    return {"train loss": losses[-1], "losses": losses, "r2": r2, "start": start}


def relativity(kan, seed: int = 0) -> dict:
    """Example 10: (u + v) / (1 + u v) is tanh(atanh u + atanh v)."""
    dataset = kan.create_dataset(
        lambda x: (x[:, [0]] + x[:, [1]]) / (1 + x[:, [0]] * x[:, [1]]), n_var=2, ranges=[-0.9, 0.9]
    )
    model = kan.KAN(width=[2, 1, 1], grid=10, k=3, seed=1 + seed)
    model.fit(dataset, opt="LBFGS", steps=20)
    suggested = [model.suggest_symbolic(0, 1, 0, weight_simple=0.0, verbose=False)[0]]
    r2 = [model.fix_symbolic(0, i, 0, "arctanh", verbose=False) for i in range(2)]
    model.fit(dataset, opt="LBFGS", steps=20, update_grid=False)
    suggested.append(model.suggest_symbolic(1, 0, 0, weight_simple=0.0, verbose=False)[0])
    r2.append(model.fix_symbolic(1, 0, 0, "tanh", verbose=False))
    loss = model.fit(dataset, opt="LBFGS", steps=30, update_grid=False, singularity_avoiding=True)["test_loss"][-1]
    formulas, variables = model.symbolic_formula()
    return {"test loss": loss, "suggested": suggested, "r2": r2, "variables": variables,
            "formula": kan.nsimplify(kan.ex_round(formulas[0], 4))}  # fmt: skip


def encouraging_linearity(kan, seed: int = 0) -> dict:
    """Example 11: sin(pi x) with three layers: a penalty on coefficients and a linear base make two straight lines."""
    dataset = kan.create_dataset(lambda x: torch.sin(torch.pi * x[:, [0]]), n_var=1)
    model = kan.KAN(width=[1, 1, 1, 1], grid=5, k=3, seed=2 + seed, base_fun="identity", noise_scale=0.1)
    model.fit(dataset, opt="LBFGS", steps=20, lamb=1e-4, lamb_coef=10.0)
    bent = []
    for layer in range(3):
        x, y = (torch.as_tensor(values) for values in model.get_fun(layer, 0, 0))
        line = torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], 1), y[:, None])
        left = torch.stack([x, torch.ones_like(x)], 1) @ line.solution - y[:, None]
        bent.append((left.std() / y.std()).item())
    return {"test loss": error_of(model, dataset), "the second straightest curve": sorted(bent)[1], "bent": bent}


def contrastive(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of a table, and such whose columns have been shuffled each for itself, with labels 1 and 0."""
    shuffled = torch.stack([column[torch.randperm(len(rows))] for column in rows.T], 1)
    labels = torch.cat([torch.ones(len(rows), 1), torch.zeros(len(rows), 1)])
    return torch.cat([rows, shuffled]), labels


def depends(kan, rows: torch.Tensor, test: torch.Tensor, seed: int, lamb: float, **options) -> dict:
    """The scores of the columns of a table of which some depend on one another, from a [n, 1, 1] network."""
    (x, y), (x_test, y_test) = contrastive(rows), contrastive(test)
    data = {"train_input": x, "train_label": y, "test_input": x_test, "test_label": y_test}
    model = kan.KAN(width=[x.shape[1], 1, 1], grid=3, k=3, seed=seed)
    model.fix_symbolic(1, 0, 0, "gaussian", fit_params_bool=False)
    results = model.fit(data, opt="LBFGS", lamb=lamb, **options)
    return {"loss and penalty": objective(results, lamb), "train loss": results["train_loss"][-1],
            "score": model.feature_score}  # fmt: skip


def unsupervised_learning(kan, seed: int = 0) -> dict:
    """Example 12: x_3 = exp(sin(pi x_1) + x_2^2) and x_4 = x_5^3, x_6 is noise: one of the two relations is found."""

    def table(count):
        x = torch.rand(count, 6) * 2 - 1
        x[:, 2] = torch.exp(torch.sin(torch.pi * x[:, 0]) + x[:, 1] ** 2)
        x[:, 3] = x[:, 4] ** 3
        return x

    torch.manual_seed(0)
    return depends(kan, table(300), table(100), 4 + seed, steps=20, lamb=0.002, lamb_entropy=10.0, lamb_coef=1.0)


def phase_transition(kan, seed: int = 0) -> dict:
    """Example 13: the sign of a sum of functions."""

    def f(x):
        g = torch.sin(torch.pi * x[:, [0]]) + torch.cos(torch.pi * x[:, [1]]) + torch.tan(torch.pi / 2 * x[:, [2]])
        return (g > 0).double()

    dataset = kan.create_dataset(f, n_var=3)
    model = kan.KAN(width=[3, 1, 1], grid=3, k=3, seed=1 + seed)
    model.fix_symbolic(1, 0, 0, "tanh", fit_params_bool=False)
    loss = model.fit(dataset, opt="LBFGS", steps=40)["test_loss"][-1]
    right = (model(dataset["test_input"]) > 0.5) == dataset["test_label"].bool()
    return {"test loss": loss, "accuracy": right.double().mean().item()}


def knots(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """In place of the table of knots, which can't be had: 17 columns like its invariants, of which the signature is a
    step function of three, as there of the meridional and longitudinal translations; and one column that is a
    combination of two others."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 17, generator=generator)
    x[:, 5] = 0.6 * x[:, 3] ** 2 - 0.8 * x[:, 4]
    slope = x[:, 0] * x[:, 1].abs().clamp_min(0.3) + 0.5 * torch.sin(2 * x[:, 2])
    return x, (slope * 1.5).round().clamp(-3, 3).long() + 3


def knots_supervised(kan, seed: int = 0) -> dict:
    """Example 14: the classes from 17 columns, and which columns matter."""
    (x, y), (x_test, y_test) = knots(2000, 0), knots(1024, 1)
    dataset = {"train_input": x, "train_label": y, "test_input": x_test, "test_label": y_test}
    model = kan.KAN(width=[17, 2, 7], grid=5, k=3, seed=42 + seed)

    def test_acc():
        return (model(dataset["test_input"]).argmax(1) == dataset["test_label"]).double().mean()

    results = model.fit(
        dataset, lamb=0.005, batch=1024, steps=20, loss_fn=kan.nn.CrossEntropyLoss(), metrics=[test_acc],
        display_metrics=["train_loss", "reg", "test_acc"],
    )  # fmt: skip
    return {"accuracy": results["test_acc"][-1], "score": model.feature_score}


def knots_unsupervised(kan, seed: int = 0) -> dict:
    """Example 15: which columns of the table depend on one another: the three of the one relation among the 17."""
    (x, _), (x_test, _) = knots(600, 0), knots(300, 1)
    torch.manual_seed(1)
    return depends(kan, x[:, 3:], x_test[:, 3:], seed, steps=15, lamb=0.001)
