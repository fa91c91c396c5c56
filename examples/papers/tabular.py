"""KANs and MLPs of equal numbers of parameters on the tables of scikit-learn, with the same training."""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from statistics import mean, stdev
from typing import Any

import torch
from matplotlib.figure import Figure
from sklearn import datasets
from torch import Tensor, nn
from torch.nn import functional as F

from fastkan import KANLinear

from .baselines import trainable
from .experiment import Experiment, Rows

FOLDS = 5
TABLES = {  # loader, whether it is a classification, hidden nodes of the KAN
    "breast_cancer": (datasets.load_breast_cancer, True, 2),
    "digits": (datasets.load_digits, True, 8),
    "wine": (datasets.load_wine, True, 2),
    "diabetes": (datasets.load_diabetes, False, 2),
}


def table(name: str) -> tuple[Tensor, Tensor]:
    """Standardised inputs, and labels: classes, or standardised numbers."""
    load, is_class, _ = TABLES[name]
    x, y = (torch.as_tensor(part) for part in load(return_X_y=True))
    x = x.float()
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-6)
    return x, y if is_class else ((y - y.mean()) / y.std()).float()[:, None]


def kan(inputs: int, hidden: int, outputs: int, **options: Any) -> nn.Sequential:
    shape = ((inputs, hidden), (hidden, outputs))
    return nn.Sequential(*(KANLinear(i, o, grid_range=(-3, 3), **options) for i, o in shape))


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def trained(model: nn.Module, data: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], loss: Callable, epochs: int):
    """AdamW until the loss on held-out rows has not fallen for 20 epochs; the model at its least."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-2)
    best, least, waited = deepcopy(model), float("inf"), 0
    for _ in range(epochs):
        for rows in torch.randperm(len(data[0])).split(64):
            optimizer.zero_grad()
            loss(model(data[0][rows]), data[1][rows]).backward()
            optimizer.step()
        with torch.no_grad():
            now = float(loss(model(held[0]), held[1]))
        best, least, waited = (deepcopy(model), now, 0) if now < least else (best, least, waited + 1)
        if waited == 20:
            break
    return best


def score(model: nn.Module, x: Tensor, y: Tensor, is_class: bool) -> float:
    """Accuracy, or R^2."""
    with torch.no_grad():
        out = model(x)
    if is_class:
        return float((out.argmax(1) == y).double().mean())
    return 1 - float((out - y).square().mean() / (y - y.mean()).square().mean())


def run(quick: bool) -> Rows:
    rows: Rows = []
    for name, (_, is_class, hidden) in TABLES.items():
        x, y = table(name)
        outputs = int(y.max()) + 1 if is_class else 1
        size = trainable(kan(x.shape[1], hidden, outputs))
        equal = round((size - outputs) / (x.shape[1] + outputs + 1))
        loss = F.cross_entropy if is_class else F.mse_loss
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        folds = order.chunk(FOLDS)
        models: dict[str, Callable[[], nn.Module]] = {
            "fastkan": lambda x=x, h=hidden, o=outputs: kan(x.shape[1], h, o),
            "fastkan, grid_size=1, spline_order=2": lambda x=x, h=2 * hidden, o=outputs: kan(
                x.shape[1], h, o, grid_size=1, spline_order=2
            ),
            "MLP": lambda x=x, h=equal, o=outputs: mlp(x.shape[1], h, o),
            "linear": lambda x=x, o=outputs: nn.Linear(x.shape[1], o),
        }
        for kind, make in models.items():
            scores, start = [], time.perf_counter()
            for fold in range(1 if quick else FOLDS):
                torch.manual_seed(fold)
                model, test, held = make(), folds[fold], folds[(fold + 1) % FOLDS]
                rest = torch.cat([folds[n % FOLDS] for n in range(fold + 2, fold + FOLDS)])
                model = trained(model, (x[rest], y[rest]), (x[held], y[held]), loss, 2 if quick else 200)
                scores.append(score(model, x[test], y[test], is_class))
            rows.append({
                "table": name, "score": "accuracy" if is_class else "R^2", "network": kind,
                "mean of folds": mean(scores), "deviation": stdev(scores) if len(scores) > 1 else None,
                "parameters": trainable(make()), "seconds": round(time.perf_counter() - start, 1),
            })  # fmt: skip
    return rows


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Means and standard deviations of the folds."""
    tables = list(dict.fromkeys(row["table"] for row in rows))
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(tables)), tables, strict=True):
        part = [row for row in rows if row["table"] == name]
        for n, row in enumerate(part):
            error = float(row["deviation"] or 0)
            axis.errorbar(n, float(row["mean of folds"]), error, fmt="o", capsize=4, label=row["network"])
        axis.set(title=name, ylabel=part[0]["score"], xticks=[], xlim=(-0.5, len(part) - 0.5))
    figure.legend(*axis.get_legend_handles_labels(), ncols=4, loc="outside lower center")
    return figure


EXPERIMENT = Experiment(
    "Tables of scikit-learn",
    "scikit-learn's data sets, which come with it; no paper",
    "Tables with many inputs and few rows, and labels that are nearly linear in them: no place where KANs have an "
    "advantage. All networks have the same training, AdamW with early stopping on a fifth of the rows, and are tested"
    " on another, in five folds. The MLP has one hidden layer and as many parameters as the first KAN. Splines of "
    "five intervals have nine numbers an edge, those of one interval and degree 2 four, so that twice as many nodes "
    "fit. On three tables all networks, and the linear model, are within the deviation of the folds. On digits the "
    "MLP is ahead: it spends its parameters on nine times as many hidden nodes, and 64 pixels need many sums more "
    "than they need functions of one pixel.",
    run,
    draw,
)
