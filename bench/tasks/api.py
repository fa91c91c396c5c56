"""hellokan, and the tutorials API 6 to 12 that train."""

import torch

from . import objective

LIBRARY = ["x", "x^2", "x^3", "x^4", "exp", "log", "sqrt", "tanh", "sin", "abs"]


def f(x):
    return torch.exp(torch.sin(torch.pi * x[:, [0]]) + x[:, [1]] ** 2)


def hellokan(kan, seed: int = 0) -> dict:
    """From data to exp(sin(pi x) + y^2), by training, pruning, refining and fitting functions; as long as there."""
    model, dataset = kan.KAN(width=[2, 5, 1], grid=3, k=3, seed=42 + seed), kan.create_dataset(f, n_var=2)
    model(dataset["train_input"])
    model.plot()
    model.fit(dataset, opt="LBFGS", steps=50, lamb=0.001)
    model = model.prune()
    model.plot()
    model.fit(dataset, opt="LBFGS", steps=50)
    model = model.refine(10)
    splines = model.fit(dataset, opt="LBFGS", steps=50)["test_loss"][-1]
    model.auto_symbolic(lib=LIBRARY)
    loss = model.fit(dataset, opt="LBFGS", steps=50)["test_loss"][-1]
    formula, (x, y) = model.symbolic_formula()[0][0], model.symbolic_formula()[1]
    truth = kan.sympy.exp(kan.sympy.sin(kan.sympy.pi * x) + y**2)
    points = ({x: 0.3, y: -0.7}, {x: -0.9, y: 0.2})
    error = max(abs(float((formula - truth).subs(point))) for point in points)
    return {"formula error": error, "test loss": loss, "splines' test loss": splines, "model": model,
            "formula": kan.ex_round(formula, 4)}  # fmt: skip


def training_hyperparameters(kan, seed: int = 0) -> dict:
    """API 6: penalties against accuracy."""
    dataset, found = kan.create_dataset(f, n_var=2), {}
    for lamb, lamb_entropy in ((0.0, 2.0), (0.01, 0.0), (0.01, 2.0), (1.0, 2.0)):
        model = kan.KAN(width=[2, 5, 1], grid=5, k=3, seed=1 + seed)
        results = model.fit(dataset, opt="LBFGS", steps=10, lamb=lamb, lamb_entropy=lamb_entropy)
        model.attribute()
        edges = sum((s > 0.03).sum().item() for s in model.edge_scores)
        found[lamb, lamb_entropy] = results["test_loss"][-1], edges
    return {"test loss, lamb=0": found[0.0, 2.0][0], "found": found}


def pruning(kan, seed: int = 0) -> dict:
    """API 7."""
    dataset = kan.create_dataset(f, n_var=2)
    model = kan.KAN(width=[2, 5, 1], grid=5, k=3, seed=1 + seed)
    results = model.fit(dataset, opt="LBFGS", steps=20, lamb=0.01)
    return {"loss and penalty": objective(results, 0.01), "test loss": results["test_loss"][-1],
            "hidden nodes left": model.prune().width[1][0], "model": model, "dataset": dataset}  # fmt: skip


def regularization(kan, seed: int = 0, *, metric: str) -> dict:
    """API 8, with one of the sizes that a penalty may weigh."""
    dataset = kan.create_dataset(f, n_var=2)
    model = kan.KAN(width=[2, 5, 1], grid=3, k=3, seed=1 + seed)
    results = model.fit(dataset, opt="LBFGS", steps=5, lamb=0.01, reg_metric=metric)
    return {"loss and penalty": objective(results, 0.01), "results": results}


METRICS = ("edge_forward_spline_n", "edge_forward_sum", "edge_forward_spline_u", "edge_backward", "node_backward")


def videos(kan, seed: int = 0) -> dict:
    """API 9: pictures while training."""

    def g(x):
        inner = [torch.sin(torch.pi * (x[:, [i]] ** 2 + x[:, [i + 1]] ** 2)) for i in (0, 2)]
        return torch.exp(sum(inner) / 2)

    model = kan.KAN(width=[4, 2, 1, 1], grid=3, k=3, seed=1 + seed)
    data = kan.create_dataset(g, n_var=4, train_num=300)
    results = model.fit(
        data, opt="LBFGS", steps=4, lamb=1e-3, save_fig=True, save_fig_freq=2, beta=10, img_folder="frames",
        in_vars=["$x_1$", "$x_2$", "$x_3$", "$x_4$"], out_vars=["y"],
    )  # fmt: skip
    return {"loss and penalty": objective(results, 1e-3), "test loss": results["test_loss"][-1]}


def device(kan, seed: int = 0) -> dict:
    """API 10: a wide network by Adam, on a GPU where there is one."""
    place = "cuda" if torch.cuda.is_available() else "cpu"
    model = kan.KAN(width=[4, 30, 30, 1], grid=3, k=3, seed=seed).to(place)
    data = kan.create_dataset(lambda x: x.prod(1, keepdim=True), n_var=4, train_num=300, device=place)
    results = model.fit(data, opt="Adam", lr=1e-3, steps=20, lamb=1e-3, update_grid=False)
    return {
        "loss and penalty": objective(results, 1e-3),
        "losses": results["train_loss"],
        "place": model(data["test_input"]).device.type == place,
    }


def checkpoints(kan, seed: int = 0) -> dict:
    """API 12: every step is a state to go back to."""
    dataset = kan.create_dataset(f, n_var=2)
    model = kan.KAN(width=[2, 5, 1], grid=5, k=3, seed=1 + seed, auto_save=True)
    model.get_act(dataset)
    model.fit(dataset, opt="LBFGS", steps=5, lamb=0.01)
    after_fit = model(dataset["test_input"])
    numbers = [(model.round, model.state_id)]
    model = model.prune()
    numbers.append((model.round, model.state_id))
    model = model.rewind("0.1")
    numbers.append((model.round, model.state_id))
    same = torch.equal(model(dataset["test_input"]), after_fit)
    loss = model.fit(dataset, opt="LBFGS", steps=2)["test_loss"][-1]
    loaded = kan.KAN.loadckpt("./model/0.1")(dataset["test_input"])
    return {"test loss": loss, "numbers": numbers, "the same": same and torch.equal(loaded, after_fit), "model": model}
