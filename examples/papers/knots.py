"""Knots: the signature of hyperbolic knots from geometric invariants, and relations among these."""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import kan as pykan
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from fastkan import KAN, science

from .experiment import Experiment, Rows
from .knot_data import CUSP, FOLDS, GEOMETRY, NAMES, Fold, cusp_expressions, knots


def accuracy(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """Share of signatures that the output, rounded to an even number, has right."""
    with torch.no_grad():
        return (2 * (model(x) / 2).round() == y).double().mean().item()


def train_kan(width: Sequence, fold: Fold, quick: bool) -> KAN:
    model = KAN(width, grid=2, k=2, base_fun="zero", seed=0, sp_trainable=False, dtype=torch.float64)
    model.fit(fold.data, opt="LM", steps=3 if quick else 40, patience=10, keep_best=True, progress=False)
    return model


def train_mlp(width: Sequence[int], fold: Fold, quick: bool) -> nn.Module:
    """Adam with a cosine schedule, and the best of the validation rows."""
    torch.manual_seed(0)
    layers = [m for i, o in pairwise(width[:-1]) for m in (nn.Linear(i, o), nn.Tanh())]
    model = nn.Sequential(*layers, nn.Linear(width[-2], 1)).double()
    (x, y, *valid), steps = fold.data, 100 if quick else 3000
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, state = 0.0, model.state_dict()
    for step in range(steps):
        rows = torch.randint(len(x), (256,))
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x[rows]), y[rows]).backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 49 and (found := accuracy(model, *valid)) > best:
            best, state = found, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    return model


def train_pykan(width: Sequence[int], fold: Fold, quick: bool) -> nn.Module:
    model = pykan.KAN(width=list(width), grid=2, k=2, seed=0, auto_save=False).speed().double()
    names = ("train_input", "train_label", "test_input", "test_label")
    model.fit(dict(zip(names, fold.data, strict=True)), steps=1 if quick else 10, log=1000)
    return model


def compared(name: str, train: Callable, width: Sequence, quick: bool, inputs: Sequence[str] = NAMES) -> dict[str, Any]:
    """A row: trained and tested in every fold."""
    folds, start = 1 if quick else FOLDS, time.perf_counter()
    parts = [Fold(number, inputs) for number in range(folds)]
    models = [train(width, fold, quick) for fold in parts]
    right = sum(accuracy(model, *fold.test) for model, fold in zip(models, parts, strict=True)) / folds
    count = sum(p.numel() for p in models[0].parameters() if p.requires_grad)
    return _row(f"{name} {width}", len(inputs), right, count, round((time.perf_counter() - start) / folds, 1))


def slope(quick: bool) -> str:
    """The expression of mu and lambda that the signature depends on, by the slopes of a network of these inputs."""
    fold = Fold(0, CUSP)
    model = train_kan([3, [1, 1], 1], fold, quick)
    symbols, names = cusp_expressions()
    scaled = lambda x: model((x - fold.mean) / fold.std)  # noqa: E731
    return names[science.suggest_auxiliary(scaled, fold.x, symbols, list(names), sym_th=1.0)[0][0]]


def relation(quick: bool) -> str:
    """A relation among the invariants: as in the paper, a network tells knots from rows whose columns are shuffled. Its
    three inputs with the highest scores, and the formula of the last of them with its relative error."""
    x, y = knots()
    x, names = torch.cat([x[:, : len(GEOMETRY) + 1], y], 1), [*NAMES[: len(GEOMETRY) + 1], "signature"]
    generator, rows = torch.Generator().manual_seed(0), 1000 if quick else 2000
    real = ((x - x.mean(0)) / x.std(0))[torch.randperm(len(x), generator=generator)]
    false = torch.stack([column[torch.randperm(len(x), generator=generator)] for column in real.T], 1)
    z, label = torch.cat([real[:rows], false[:rows]]), torch.arange(2 * rows)[:, None] < rows
    model = KAN([len(names), 1, 1], seed=0, sp_trainable=False, dtype=torch.float64)
    model.fix_symbolic(1, 0, 0, "gaussian", fit_params_bool=False)
    model.fit((z, label.double()), steps=20, lamb=1e-3, progress=False)
    model.get_act(z)
    model.attribute()
    *others, last = sorted(model.feature_score.topk(3).indices.tolist())
    data, var = (x[:200, others], x[:200, [last]]), [names[i] for i in others]
    found = KAN.discover(data, [[2, [0, 1], 1]], 1 if quick else 3, var=var, verbose=False)
    return f"{names[last]} = {found.formulas[0]}, relative error {found.error:.0e}"


def run(quick: bool) -> Rows:
    rows: Rows = [
        _row("paper's KAN [17, 1, 14]", 17, 0.816, 200),
        _row("paper's KAN", 3, 0.782),
        _row("DeepMind's MLP, 4 layers of 300", 17, 0.78, 300000),
        compared("fastkan", train_kan, [15, 3, 1], quick),
        compared("MLP", train_mlp, [15, 12, 1], quick),
        compared("pykan", train_pykan, [15, 3, 1], quick),
        compared("fastkan", train_kan, [15, 6, 1], quick),
        compared("MLP", train_mlp, [15, 24, 20, 1], quick),
        compared("fastkan", train_kan, [3, [1, 1], 1], quick, CUSP),
        compared("MLP", train_mlp, [3, 12, 10, 1], quick, CUSP),
    ]
    rows.append({**_row("fastkan [3, [1, 1], 1], gradients", 3), "found": slope(quick)})
    return [*rows, {**_row("fastkan without supervision", 10), "found": relation(quick)}]


def _row(name: str, inputs: int, right: float | None = None, count: int | None = None, seconds: float | None = None):
    values = {"network": name, "inputs": inputs, "accuracy": right, "parameters": count}
    return {**values, "seconds": seconds, "found": None}


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Accuracy against parameters, and the signature against the slope."""
    left, right = (figure := Figure(figsize=(10, 4.2), layout="constrained")).subplots(1, 2)
    for row in rows:
        if row["accuracy"] and row["parameters"]:
            at = float(row["parameters"]), float(row["accuracy"])
            left.semilogx(*at, "o" if "fastkan" in row["network"] else "s", label=row["network"])
    left.set(xlabel="parameters", ylabel="accuracy of the signature")
    left.legend(fontsize=8, loc="center right")
    x, y = knots()
    real, imag, length = (x[:, NAMES.index(name)] for name in CUSP)
    right.plot(length * real / (real**2 + imag**2), y[:, 0], ".", markersize=2)
    right.set(xlabel="slope of the cusp, Re(lambda / mu)", ylabel="signature")
    return figure


EXPERIMENT = Experiment(
    "Knots",
    "Liu et al., KAN (arXiv 2404.19756), section 4.3; data: [KnotInfo](https://knotinfo.org) and SnapPy, see "
    "`examples/papers/data/README.md`",
    "Signatures are even numbers: the networks give a number, which is rounded. The inputs are the paper's, without "
    "two that are multiples of others; these knots have at most 13 crossings, the paper's more, so that its "
    "accuracies are for other data. A knot also serves as its mirror image, and is tested on once, in five folds; the"
    " end of training is chosen on other rows, and the shapes are given. fastkan's have quadratic splines and no base"
    " function, and are trained by Levenberg-Marquardt, MLPs by Adam, pykan's by L-BFGS. The three inputs are those "
    "of the cusp: the translations mu and lambda. Gradients: of Re and Im of lambda^m mu^n the one whose gradient is "
    "nearest to the network's. Without supervision: which columns are related, as in the paper, and how, by "
    "`KAN.discover`.",
    run,
    draw,
)
