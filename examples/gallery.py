"""The pictures of the documentation: networks, edges, training curves and an interactive page.

    python examples/gallery.py docs/images

Needs matplotlib and SymPy. On one machine the same files come out each time, but for the dates in them.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure

from fastkan import KAN, KANLinear
from fastkan.network import plot_training

NAMES = {"in_vars": ["$x$", "$y$"], "out_vars": ["$f(x, y)$"]}


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """1000 rows of exp(sin(pi x) + y^2), in float64."""
    x = torch.rand(1000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return x, torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:] ** 2)


def network(folder: Path) -> None:
    """A network after training with a penalty, after pruning, and with functions on its edges."""
    x, y = data()
    rows = {"train_input": x[:800], "train_label": y[:800], "test_input": x[800:], "test_label": y[800:]}
    model = KAN([2, 5, 1], grid=5, seed=0, dtype=torch.float64)
    model.fit(rows, steps=30, lamb=3e-3, progress=False)
    model.plot(path=folder / "network.png", **NAMES)
    model.to_html(folder / "page.html", in_vars=["x", "y"], out_vars=["f(x, y)"])
    model = model.prune()
    result = model.fit(rows, opt="LM", steps=60, grid_sizes=[5, 10, 20], progress=False)
    plot_training(result, folder / "training.png")
    model.plot(path=folder / "pruned.png", tick=True, sample=True, **NAMES)
    model.plot_edge(0, 0, 0, folder / "edge.png")
    model.auto_symbolic(verbose=0)
    model.fit(rows, opt="LM", steps=30, progress=False)
    model.plot(path=folder / "symbolic.png", **NAMES)


def multiplication(folder: Path) -> None:
    """A network with multiplication nodes, of xy + z."""
    x = torch.rand(1000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = KAN([3, [1, 1], 1], grid=3, seed=1, dtype=torch.float64)
    model.fit((x, x[:, :1] * x[:, 1:2] + x[:, 2:]), opt="LM", steps=40, progress=False)
    model.plot(path=folder / "multiplication.png", in_vars=["$x$", "$y$", "$z$"], out_vars=["$x y + z$"])


def large(folder: Path) -> None:
    """A network of 184 edges, of which the 70 strongest of the first layer are drawn."""
    x = torch.rand(1000, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = torch.stack([torch.sin(3 * x[:, n]) + x[:, n + 5] ** 2 + x[:, n + 10] for n in range(3)], 1)
    model = KAN([20, 8, 3], grid=3, seed=0, dtype=torch.float64)
    model.fit((x, y), steps=20, lamb=1e-3, progress=False)
    names = [f"$v_{{{n}}}$" for n in range(20)]
    model.plot(path=folder / "large.png", in_vars=names, out_vars=["a", "b", "c"], beta=10)


def spline(folder: Path) -> None:
    """How one edge computes: basis functions, each times its coefficient, and their sum."""
    layer = KANLinear(1, 1, grid_size=5, spline_order=3, dtype=torch.float64)
    x = torch.linspace(-1, 1, 401, dtype=torch.float64)
    basis = layer.b_splines(x[:, None])[:, 0]
    coef = torch.tensor([-0.6, -0.9, -0.3, 0.8, 0.9, 0.1, -0.3, 0.4], dtype=torch.float64)
    figure = Figure(figsize=(8.4, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    for function, weight in zip(basis.T, coef, strict=True):
        left.plot(x, function)
        right.plot(x, weight * function, lw=1)
    right.plot(x, basis @ coef, "k", lw=2.2)
    left.set_title("G + K = 8 basis functions: G = 5 intervals, degree K = 3", fontsize=8)
    right.set_title("times their coefficients, and the sum: the function of an edge", fontsize=8)
    for axes in (left, right):
        axes.set(xlabel="$x$", xlim=(-1, 1), xticks=layer.grid[0, 3:-3].tolist())
        axes.grid(alpha=0.3)
    figure.savefig(folder / "spline.png", dpi=150)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where to write them; made if it is not there")
    folder = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    for draw in (spline, network, multiplication, large):
        draw(folder)


if __name__ == "__main__":
    main()
