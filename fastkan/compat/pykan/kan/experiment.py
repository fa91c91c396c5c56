"""kan.experiment: pruning and refinement of a network in rounds, and the Pareto frontier of the results."""

from collections.abc import Callable, Sequence

from .MultKAN import *


def runner1(
    width, dataset: dict, grids: Sequence[int] = (5, 10, 20), steps: int = 20, lamb: float = 0.001,
    prune_round: int = 3, refine_round: int = 3, edge_th: float = 1e-2, node_th: float = 1e-2,
    metrics: Sequence[Callable] | None = None, seed: int = 1,
) -> dict:  # fmt: skip
    """Train with a penalty and prune, prune_round times; after each, refine to the grids and train without penalty.

    metrics: functions of a model and the dataset that return a tensor with one element.

    Returns arrays with an entry for every pruned and every refined network: "test_loss", "c" the number of edges,
    "G" the grid size, "id" its number in the history, and the metrics under their names.
    """
    import numpy as np

    metrics = metrics or ()
    result = {name: [] for name in ("test_loss", "c", "G", "id", *(metric.__name__ for metric in metrics))}

    def collect(model) -> None:
        scores = model.evaluate(dataset)
        row = [scores["test_loss"], scores["n_edge"], scores["n_grid"], f"{model.round}.{model.state_id}"]
        row += [metric(model, dataset).item() for metric in metrics]
        for values, value in zip(result.values(), row, strict=True):
            values.append(value)

    pruned = MultKAN(width=width, grid=grids[0], seed=seed)
    for i in range(prune_round):
        if i:
            pruned = pruned.rewind(f"{pruned.round}.{pruned.state_id}")
        pruned.fit(dataset, steps=steps, lamb=lamb)
        pruned = pruned.prune(edge_th=edge_th, node_th=node_th)
        collect(pruned)
        model = pruned.copy()
        for j in range(refine_round):
            model = model.refine(grids[j])
            model.fit(dataset, steps=steps)
            collect(model)
    return {name: np.array(values) for name, values in result.items()}


def pareto_frontier(x, y):
    """The points (x, y), two arrays, that no other point equals or undercuts in both: x, y and their indices."""
    import numpy as np

    dominates = (x[:, None] <= x) & (y[:, None] <= y)
    indices = np.flatnonzero(dominates.sum(0) == 1)
    return x[indices], y[indices], indices
