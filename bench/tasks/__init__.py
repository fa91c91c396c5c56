"""The tasks of pykan's tutorials, as functions of the module kan, which is fastkan's or pykan's own.

tests/tutorials and bench.tutorials run the same lines: own code, smaller where the tutorial takes long. The default
dtype is float64 then.

`seed` counts starts: 0 is the one that the task is written for, as pykan's tutorials are for theirs. The data stay, but
where they are all that is random. Each returns what it reached by name: first the number that counts, of which less is
better unless its name ends in "accuracy", then other numbers, and whatever else a test looks at.
"""

from collections.abc import Callable


def objective(results: dict, lamb: float) -> float:
    """What fit with a penalty has brought down: the mean square error and lamb times the penalty, at the last step."""
    return float(results["train_loss"][-1]) ** 2 + lamb * float(results["reg"][-1])


def minimise(kan, model, loss_of: Callable, steps: int, before: Callable[[int], None] = lambda step: None) -> float:
    """LBFGS as the tutorials call it, `before` each step what is to be done; the last loss."""
    optimizer = kan.LBFGS(
        model.parameters(), lr=1, history_size=10, line_search_fn="strong_wolfe", tolerance_grad=1e-32,
        tolerance_change=1e-32, tolerance_ys=1e-32,
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        return loss

    for step in range(steps):
        before(step)
        optimizer.step(closure)
    return loss_of().item()
