"""python -m bench.estimators: KANRegressor and KANClassifier beside others on scikit-learn's tables, with its defaults.

Five folds each, the same for all; the score of a fold is R^2 or the accuracy on its rows. No estimator is tuned to a
table: each has its defaults, and standardised columns. Those of fastkan's were chosen on the folds of `--seed 0`.
`torch MLP` has one hidden layer of ReLU with as many parameters as the KANs of the average together, trained by AdamW
until the loss on a fifth of the rows no longer falls.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from sklearn import datasets
from sklearn.base import BaseEstimator, clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from fastkan.measure.progress import bar
from fastkan.measure.provenance import write_csv
from fastkan.measure.table import table
from fastkan.sklearn import KANClassifier, KANRegressor

FOLDS, ROWS = 5, 500
TABLES: dict[str, tuple[Callable[[int], tuple], bool]] = {  # x and y by a seed, whether y is a class
    "diabetes": (lambda seed: datasets.load_diabetes(return_X_y=True), False),
    "linnerud": (lambda seed: datasets.load_linnerud(return_X_y=True), False),
    "friedman1": (lambda seed: datasets.make_friedman1(ROWS, random_state=seed), False),
    "friedman2": (lambda seed: datasets.make_friedman2(ROWS, random_state=seed), False),
    "friedman3": (lambda seed: datasets.make_friedman3(ROWS, random_state=seed), False),
    "wine": (lambda seed: datasets.load_wine(return_X_y=True), True),
    "iris": (lambda seed: datasets.load_iris(return_X_y=True), True),
    "breast_cancer": (lambda seed: datasets.load_breast_cancer(return_X_y=True), True),
    "digits": (lambda seed: datasets.load_digits(return_X_y=True), True),
}
KANS = "KAN"


class TorchMLP(BaseEstimator):
    """One hidden layer of ReLU, with the number of parameters of fastkan's networks, in plain PyTorch."""

    def __init__(self, is_class: bool = False, members: int = 5, hidden: int = 8, functions: int = 6):
        self.is_class, self.members, self.hidden, self.functions = is_class, members, hidden, functions

    def fit(self, X, y):
        x, self.names = torch.tensor(X, dtype=torch.float64), None
        if self.is_class:
            self.names, index = np.unique(y, return_inverse=True)
            label, outputs, loss = torch.from_numpy(index), len(self.names), F.cross_entropy
            equal = 1 if outputs == 2 else outputs
        else:
            label = torch.tensor(y.reshape(len(y), -1), dtype=torch.float64)
            outputs = equal = label.shape[1]
            loss = F.mse_loss
        size = self.members * (equal + self.hidden) * (x.shape[1] + equal) * (self.functions + 1)
        width = round((size - outputs) / (x.shape[1] + outputs + 1))
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(x.shape[1], width), nn.ReLU(), nn.Linear(width, outputs)).double()
        order = torch.randperm(len(x))
        held, rows = order[: len(x) // 5], order[len(x) // 5 :]
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-2)
        self.model_, least, waited = deepcopy(model), float("inf"), 0
        for _ in range(200):
            for part in rows[torch.randperm(len(rows))].split(64):
                optimizer.zero_grad()
                loss(model(x[part]), label[part]).backward()
                optimizer.step()
            with torch.no_grad():
                now = float(loss(model(x[held]), label[held]))
            self.model_, least, waited = (deepcopy(model), now, 0) if now < least else (self.model_, least, waited + 1)
            if waited == 20:
                break
        return self

    @torch.no_grad()
    def predict(self, X):
        y = self.model_(torch.tensor(X, dtype=torch.float64))
        return self.names[y.argmax(1).numpy()] if self.names is not None else y.numpy()


def estimators(is_class: bool, several: bool) -> dict[str, Any]:
    """The estimators by name; several: whether there are several outputs."""

    def scaled(estimator: Any) -> Any:
        if not is_class:
            estimator = TransformedTargetRegressor(estimator, transformer=StandardScaler())
        return make_pipeline(StandardScaler(), estimator)

    if is_class:
        return {
            KANS: KANClassifier(random_state=0), "linear": scaled(LogisticRegression(max_iter=1000)),
            "boosted trees": HistGradientBoostingClassifier(random_state=0),
            "MLP": scaled(MLPClassifier(random_state=0, max_iter=500)), "torch MLP": scaled(TorchMLP(True)),
        }  # fmt: skip
    trees = HistGradientBoostingRegressor(random_state=0)
    return {
        KANS: KANRegressor(random_state=0), "linear": scaled(Ridge()),
        "boosted trees": MultiOutputRegressor(trees) if several else trees,
        "MLP": scaled(MLPRegressor(random_state=0, max_iter=500)), "torch MLP": scaled(TorchMLP()),
    }  # fmt: skip


def rows_of(name: str, folds: int, seed: int) -> list[dict[str, object]]:
    """A row for every estimator on a table."""
    load, is_class = TABLES[name]
    x, y = load(seed)
    kind = StratifiedKFold if is_class else KFold
    splits = list(kind(FOLDS, shuffle=True, random_state=seed).split(x, y if is_class else None))[:folds]
    rows: list[dict[str, object]] = []
    for label, estimator in estimators(is_class, y.ndim > 1).items():
        scores, start = [], time.perf_counter()
        for train, test in splits:
            found = clone(estimator).fit(x[train], y[train]).predict(x[test])
            scores.append(float((found == y[test]).mean()) if is_class else float(r2_score(y[test], found)))
        rows.append({
            "table": name, "score": "accuracy" if is_class else "R^2", "estimator": label,
            "mean": round(mean(scores), 4),
            "error": round(stdev(scores) / len(scores) ** 0.5, 4) if len(scores) > 1 else 0.0,
            "folds": " ".join(f"{s:.4f}" for s in scores),
            "seconds": round((time.perf_counter() - start) / len(splits), 2),
        })  # fmt: skip
    return rows


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """Means and standard errors, the best in bold, then the seconds of a fit of the KAN."""
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    lines = []
    for name in dict.fromkeys(row["table"] for row in rows):
        part = [row for row in rows if row["table"] == name]
        best = max(float(row["mean"]) for row in part)
        cells = [f"{float(row['mean']):.3f} ± {float(row['error']):.3f}" for row in part]
        bold = [f"**{c}**" if float(row["mean"]) == best else c for c, row in zip(cells, part, strict=True)]
        lines.append([f"{name}, {part[0]['score']}", *bold, f"{float(part[0]['seconds']):.1f}"])
    return table(["table", *names, "KAN, s"], lines)


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """On how many tables the KAN is best or within a standard error of the best; where it is below the linear model."""
    near, below, names = [], [], list(dict.fromkeys(row["table"] for row in rows))
    for name in names:
        part = {row["estimator"]: row for row in rows if row["table"] == name}
        best, own = max(part.values(), key=lambda row: float(row["mean"])), part[KANS]
        if float(own["mean"]) >= float(best["mean"]) - float(best["error"]):
            near.append(name)
        if float(own["mean"]) < float(part["linear"]["mean"]) - float(part["linear"]["error"]):
            below.append(name)
    return (
        f"The KAN is best or within a standard error of the best on {len(near)} of {len(names)}: {', '.join(near)}. "
        f"It is below the linear model by more than one on {len(below)}{': ' if below else ''}{', '.join(below)}."
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.estimators", description=__doc__)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=tuple(TABLES), help="(all)")
    parser.add_argument("--folds", type=int, default=FOLDS, choices=range(1, FOLDS + 1), help="(5)")
    parser.add_argument("--seed", type=int, default=1, help="of the folds and of the functions' rows (1)")
    default = Path(__file__).parent / "results" / "cpu" / "estimators.csv"
    parser.add_argument("--out", type=Path, default=default, help="(bench/results/cpu/estimators.csv)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLPs that end before they converge
        rows = [row for name in bar(args.tables, "estimators") for row in rows_of(name, args.folds, args.seed)]
    write_csv(args.out, rows)
    print(as_table(rows), summary(rows), args.out, sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
