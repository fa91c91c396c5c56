"""The tasks of pykan's tutorials, as functions of the module kan, which is fastkan's or pykan's own.

tests/tutorials and bench.tutorials run the same lines: own code, smaller where the tutorial takes long. The default
dtype is float64 then.

Each returns what it reached by name: first the number that counts, of which less is better unless its name ends in
"accuracy", then other numbers, and whatever else a test looks at.
"""


def objective(results: dict, lamb: float) -> float:
    """What fit with a penalty has brought down: the mean square error and lamb times the penalty, at the last step."""
    return float(results["train_loss"][-1]) ** 2 + lamb * float(results["reg"][-1])
