"""The second half of `fastkan demo`: formulas and diagrams of trained networks."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..measure.progress import bar
from ..network import KAN
from ..network.formulas.edges import replace_edges

STEPS, LAMB, KEPT = 10, 1e-2, 4
SIMPLE = ("x", "x^2", "x^3", "tanh", "exp", "log", "sqrt", "sin", "gaussian")


class Table(NamedTuple):
    """x [N, I], y [N, 1], standardised by the training rows; test rows; names of the columns of x."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    names: list[str]


def show(folder: Path, seed: int) -> None:
    """Print the formula of a known function and of a real table, and save the diagrams in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for stage in bar((known, patients), "formulas"):
        stage(folder, seed)


def known(folder: Path, seed: int) -> None:
    """Recover exp(sin(pi x) + y^2) from 500 of its values."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(500, 2, generator=generator, dtype=torch.float64) * 2 - 1
    y = torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:] ** 2)
    found = KAN.discover((x, y), shapes=[[2, 1, 1]], var=["x", "y"], seed=seed, verbose=False)
    print("500 values of exp(sin(pi x) + y^2): a [2, 1, 1] network trained, made symbolic, refined")
    print(f"  formula found: {found.formulas[0]}")
    print(f"  error on held-out values, relative to their standard deviation: {found.error:.1e}")
    found.model.plot(in_vars=["$x$", "$y$"], out_vars=["$f$"], path=folder / "formula.svg")
    print(f"  diagram: {folder / 'formula.svg'}")


def patients(folder: Path, seed: int) -> None:
    """Predict the progress of diabetes in 442 patients from ten columns."""
    table = load_diabetes(seed)
    shape = [table.x.shape[1], 1, 1]
    model = KAN(shape, grid=3, grid_range=(-3, 3), seed=seed, dtype=torch.float64, outside="linear")
    options = {"steps": STEPS, "progress": False, "update_grid": False, "log": STEPS}
    data = table.x, table.y
    model.fit(data, lamb=LAMB, **options)
    numeric = r2(model, table)
    model = model.prune_input(count=KEPT)
    model.fit(data, lamb=LAMB, **options)
    pruned = r2(model, table)
    replace_edges(model, lib=SIMPLE)
    model.fit(data, **options)
    formulas, _ = model.symbolic_formula(var=table.names, floating_digit=2)
    print(
        f"\nDiabetes of scikit-learn, {len(table.y)} patients for training, {len(table.test_y)} held out; R^2 on these"
    )
    print(f"  least squares, {len(table.names)} columns: {linear_r2(table):.2f}")
    print(f"  KAN, {len(table.names)} columns: {numeric:.2f}; its {KEPT} most important ones: {pruned:.2f}")
    print(f"  their formula: {r2(model, table):.2f}\n  progress = {formulas[0]}")
    print("  (all variables standardised)")
    model.plot(in_vars=table.names, out_vars=["progress"], path=folder / "diabetes.svg")
    print(f"  diagram: {folder / 'diabetes.svg'}")


def r2(model, table: Table) -> float:
    """1 - the mean square error over the variance, on the test rows."""
    with torch.no_grad():
        return _r2(model(table.test_x), table.test_y)


def linear_r2(table: Table) -> float:
    """The same of a linear regression on all columns."""
    return _r2(table.test_x @ torch.linalg.lstsq(table.x, table.y).solution, table.test_y)


def _r2(prediction: Tensor, label: Tensor) -> float:
    return 1 - float((prediction - label).square().mean() / label.var(correction=0))


def load_diabetes(seed: int) -> Table:
    """442 patients, a fifth held out."""
    from sklearn import datasets, model_selection

    loaded: Any = datasets.load_diabetes(scaled=False)
    parts = model_selection.train_test_split(loaded.data, loaded.target[:, None], test_size=0.2, random_state=seed)
    x, test_x, y, test_y = (torch.as_tensor(part, dtype=torch.float64) for part in parts)
    test_x, test_y = (test_x - x.mean(0)) / x.std(0), (test_y - y.mean(0)) / y.std(0)
    return Table((x - x.mean(0)) / x.std(0), (y - y.mean(0)) / y.std(0), test_x, test_y, list(loaded.feature_names))
