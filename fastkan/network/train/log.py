"""Training log, progress bar and early stopping."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...arguments import integer
from ...devices import on_host
from ..checkpoint import State
from .objective import Objective, Value

if TYPE_CHECKING:
    from ..model import KAN


class Log:
    """The result of fit: lists with a number for every step, shown as they grow."""

    def __init__(
        self, objective: Objective, metrics: Sequence[Callable], shown: Sequence[str] | None, log: int, steps: int,
        progress: bool,
    ):  # fmt: skip
        self.objective, self.metrics, self.steps = objective, list(metrics), steps
        self.every = max(1, integer("log", log, -1))
        names = "train_loss", "test_loss", "reg", *(metric.__name__ for metric in self.metrics)
        self.results: dict[str, Any] = {name: [] for name in names}
        self.shown = shown or ("train_loss", "test_loss", "reg")
        for name in self.shown:
            if name not in self.results:
                known = ", ".join(map(repr, self.results))
                raise ValueError(f"display_metrics: {name!r} is not in the result: expected names of {known}")
        self.results.update(grid=[], stopped=None)
        self.bar = _bar(steps) if progress else None

    def tests(self, step: int) -> bool:
        """Whether the test set is evaluated after this step."""
        return step % self.every == 0 or step == self.steps - 1

    def add(self, step: int, value: Value, tested: Tensor | None) -> float | None:
        """Append a step and the mean loss over the test set; returns that as shown, None where it is None."""
        results = self.results
        results["train_loss"].append(self.objective.shown(value.loss))
        results["reg"].append(float(value.penalty))
        results["grid"].append(self.objective.model.grid)
        results["test_loss"].append(results["test_loss"][-1] if tested is None else self.objective.shown(tested))
        numbers = [metric() for metric in self.metrics]
        read = iter(on_host(*(number for number in numbers if isinstance(number, Tensor))))
        for metric, number in zip(self.metrics, numbers, strict=True):
            results[metric.__name__].append(float(next(read).detach() if isinstance(number, Tensor) else number))
        if self.bar is not None:
            self.bar.update()
            if tested is not None:
                self.bar.set_description(" | ".join(f"{name}: {results[name][-1]:.2e}" for name in self.shown))
        return None if tested is None else results["test_loss"][-1]

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


class EarlyStopping:
    """Ends a training whose test loss no longer improves; keep_best: restores the model of the least test loss."""

    def __init__(self, model: "KAN", patience: int | None, keep_best: bool):
        self.patience = None if patience is None else integer("patience", patience, 1)
        self.model, self.keep_best = model, keep_best
        self.best, self.waited, self.state = math.inf, 0, None

    def add(self, test: float | None) -> str | None:
        """Take a test loss, or None; returns the reason to stop, or None."""
        if test is None:
            return None
        if test < self.best:
            self.best, self.waited = test, 0
            self.state = State(self.model) if self.keep_best else None
            return None
        self.waited += 1
        if self.patience is None or self.waited < self.patience:
            return None
        return f"no better test loss than {self.best:.3g} for {self.waited} evaluations,"

    def restore(self) -> None:
        """With keep_best, put the best model back."""
        if self.state is not None:
            self.state.restore()


def _bar(steps: int):
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(total=steps)
