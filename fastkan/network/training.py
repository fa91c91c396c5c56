"""fit: training of a network, with grid updates and penalties, that ends in a usable model whatever happens."""

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .activations import Activations
from .data import Data
from .regularize import METRICS, penalty
from .structure import integer, number


def fit(
    model,
    dataset,
    opt: str | type | Callable = "LBFGS",
    steps: int = 100,
    log: int = 1,
    lamb: float = 0.0,
    lamb_l1: float = 1.0,
    lamb_entropy: float = 2.0,
    lamb_coef: float = 0.0,
    lamb_coefdiff: float = 0.0,
    update_grid: bool = True,
    grid_update_num: int = 10,
    loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
    lr: float = 1.0,
    start_grid_update_step: int = -1,
    stop_grid_update_step: int = 50,
    batch: int = -1,
    metrics: Sequence[Callable] | None = None,
    singularity_avoiding: bool = False,
    y_th: float = 1000.0,
    reg_metric: str = "edge_forward_spline_n",
    display_metrics: Sequence[str] | None = None,
    *,
    callback: Callable | None = None,
    patience: int | None = None,
    keep_best: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> dict:
    """Train the model in place; pykan's arguments and result.

    Args:
        dataset: see data.Data: pykan's dictionary, tensors, or loaders. Moved to the model's device.
        opt: "LBFGS" (strong Wolfe, up to 20 iterations in a step), "Adam", an optimizer class that takes lr, an
            optimizer, or a function that makes one of the parameters.
        steps: one optimizer step each, on one batch.
        log: the test set is evaluated, and the progress shown, every `log` steps.
        lamb: weight of the penalty reg(reg_metric, lamb_l1, lamb_entropy, lamb_coef, lamb_coefdiff).
        update_grid: move the grids to the batch's activations, grid_update_num times, at steps from
            start_grid_update_step to before stop_grid_update_step.
        loss_fn: (prediction, label) -> number; the mean square error by default, which is shown as its root.
        batch: rows in a batch, -1 for all.
        metrics: functions without arguments that give a number; their values go into the result by their names.
        singularity_avoiding, y_th: see forward.
        display_metrics: what the progress shows, names in the result.
        callback: called after every step with its number and the result so far; a true value ends the training.
        patience: end when the test loss has not improved for so many evaluations.
        keep_best: leave the model as it was where the test loss was least.
        seed: of the batches' order. On a CPU the training is the same again, to the bit.
        progress: show it, where tqdm is installed.

    Returns:
        train_loss, test_loss, reg and the metrics: lists with a number for every step; "stopped": why it ended early,
        or None. The inputs are kept as cache_data (a reference), for prune and plots.

    A loss or a step that is not finite ends the training with a warning, and the model is as it was when the loss last
    was finite. So it is when the training is interrupted. Raises TypeError or ValueError for a wrong argument.
    """
    steps, log = integer("steps", steps, 0), max(1, integer("log", log, -1))
    lambdas = {
        "lamb_l1": number("lamb_l1", lamb_l1), "lamb_entropy": number("lamb_entropy", lamb_entropy),
        "lamb_coef": number("lamb_coef", lamb_coef), "lamb_coefdiff": number("lamb_coefdiff", lamb_coefdiff),
    }  # fmt: skip
    if reg_metric not in METRICS:
        raise ValueError(f"reg_metric={reg_metric!r}: expected one of {', '.join(map(repr, METRICS))}")
    data = Data(dataset, integer("batch", batch, -1), integer("seed", seed, 0), model.device)
    options = {"singularity_avoiding": bool(singularity_avoiding), "y_th": y_th}
    objective = Objective(model, loss_fn, number("lamb", lamb, 0.0), reg_metric, lambdas, options)
    every = max(1, stop_grid_update_step // integer("grid_update_num", grid_update_num, 1))
    metrics = list(metrics or ())
    results = {name: [] for name in ("train_loss", "test_loss", "reg", *(m.__name__ for m in metrics))}
    shown = display_metrics or ("train_loss", "test_loss", "reg")
    for name in shown:
        if name not in results:
            raise ValueError(f"display_metrics: {name!r} is not in the result: expected names of {list(results)}")
    results["stopped"] = None
    stepper, state = Stepper(model, opt, number("lr", lr), objective), State(model)
    best, waited, best_state = math.inf, 0, None
    bar = _bar(steps, progress)
    model.forget()
    batches = data.batches()
    try:
        for step in range(steps):
            x, y = next(batches)
            moves = update_grid and step % every == 0 and start_grid_update_step <= step < stop_grid_update_step
            why = _move(model, x) if moves else None
            if why is None and not stepper.step(x, y, state):
                why = f"the loss is {objective.loss.item()} at step {step}"
            if why is not None:
                state.restore()
                results["stopped"] = f"{why}; the model is as it was when the loss last was finite"
                warnings.warn(f"fit stopped: {results['stopped']}", RuntimeWarning, stacklevel=2)
                break
            results["train_loss"].append(objective.shown(objective.loss))
            results["reg"].append(float(objective.penalty))
            tested = step % log == 0 or step == steps - 1
            test = objective.test(data) if tested else results["test_loss"][-1]
            results["test_loss"].append(test)
            for metric in metrics:
                results[metric.__name__].append(float(metric()))
            if bar is not None:
                bar.update()
                if tested:
                    bar.set_description(" | ".join(f"{name}: {results[name][-1]:.2e}" for name in shown))
            if tested and test < best:
                best, waited = test, 0
                best_state = State(model) if keep_best else None
            elif tested:
                waited += 1
            if callback is not None and callback(step, results):
                results["stopped"] = f"by the callback at step {step}"
                break
            if patience is not None and waited >= patience:
                results["stopped"] = f"no better test loss than {best:.3g} for {waited} evaluations, at step {step}"
                break
    except KeyboardInterrupt:
        state.restore()
        raise
    finally:
        if bar is not None:
            bar.close()
        model.cache_data = x if data.x is None and steps else data.x
        model.zero_grad(set_to_none=True)
    if best_state is not None:
        best_state.restore()
    return results


class Objective:
    """The loss and the penalty of a batch; what they last were is kept, for the result."""

    def __init__(self, model, loss_fn, lamb: float, reg_metric: str, lambdas: dict, options: dict):
        self.model, self.lamb, self.reg_metric = model, lamb, reg_metric
        self.loss_fn, self.lambdas, self.options = loss_fn or _mean_square, lambdas, options
        self.loss = self.penalty = torch.zeros(())

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        if not self.lamb:
            loss = self.loss_fn(self.model(x, **self.options), y)
            self.loss = loss.detach()
            return loss
        record = Activations(self.model, x, **self.options)
        loss = self.loss_fn(record.acts[-1].reshape(*x.shape[:-1], -1), y)
        reg = penalty(self.model, record, self.reg_metric, **self.lambdas)
        self.loss, self.penalty = loss.detach(), reg.detach()
        return loss + self.lamb * reg

    @torch.no_grad()
    def test(self, data: Data) -> float:
        """The mean loss over the test set, each batch counting by its rows."""
        total, rows = 0.0, 0
        for x, y in data.test_batches():
            total = total + self.loss_fn(self.model(x, **self.options), y).detach() * len(x)
            rows += len(x)
        return self.shown(torch.as_tensor(total) / max(rows, 1))

    def shown(self, loss: Tensor) -> float:
        """As pykan shows a mean square error: its root. Other losses as they are."""
        return loss.sqrt().item() if self.loss_fn is _mean_square else loss.item()


class Stepper:
    """An optimizer and how it steps."""

    def __init__(self, model, opt, lr: float, objective: Objective):
        self.model, self.opt, self.lr, self.objective = model, opt, lr, objective
        if isinstance(opt, str) and opt not in ("LBFGS", "Adam"):
            raise ValueError(f"opt={opt!r}: expected 'LBFGS', 'Adam', an optimizer, its class or a function making one")
        if not isinstance(opt, str | torch.optim.Optimizer) and not callable(opt):
            raise TypeError(f"opt={opt!r}: expected 'LBFGS', 'Adam', an optimizer, its class or a function making one")
        self.scale = None
        self.optimizer = self._make()

    def _make(self) -> torch.optim.Optimizer:
        for layer in (*self.model.act_fun, *self.model.symbolic_fun):
            layer.active  # noqa: B018  decides which of its parameters take a gradient
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError("the model has no parameter to train: expected one that requires a gradient")
        if isinstance(self.opt, torch.optim.Optimizer):
            return self.opt
        if self.opt == "Adam":
            return torch.optim.Adam(parameters, lr=self.lr)
        if self.opt == "LBFGS":
            return torch.optim.LBFGS(
                parameters, lr=self.lr, history_size=10, line_search_fn="strong_wolfe", tolerance_grad=1e-32,
                tolerance_change=1e-32,
            )  # fmt: skip
        return self.opt(parameters, lr=self.lr) if isinstance(self.opt, type) else self.opt(parameters)

    def step(self, x: Tensor, y: Tensor, state: "State") -> bool:
        """One step; False, with nothing stepped, where the objective is not finite. Keeps the state that it was at."""
        first = True
        finite = True

        def closure() -> Tensor:
            nonlocal first, finite
            self.optimizer.zero_grad()
            value = self.objective(x, y)
            if first:
                first, finite = False, math.isfinite(value.item())
                if not finite:
                    raise _NotFinite
                state.keep()
                if self.scale is None:
                    self.scale = _scale(value) if self.opt == "LBFGS" else 1.0
            value = value * self.scale if self.scale != 1.0 else value
            value.backward()
            return value

        try:
            self.optimizer.step(closure)
        except _NotFinite:
            return False
        return all(bool(p.isfinite().all()) for p in self.model.parameters())


def _scale(value: Tensor) -> float:
    """What makes a first loss large: torch's LBFGS drops curvatures below 1e-10, whatever the loss is.

    Its line search takes fourth powers of the slope, for which float32 has less room.
    """
    return (1e10 if value.dtype == torch.float64 else 1e3) / max(abs(value.item()), 1e-20)


class _NotFinite(Exception):
    pass


class State:
    """The numbers of a model: kept, and put back."""

    def __init__(self, model):
        self.model = model
        self.keep()

    @torch.no_grad()
    def keep(self) -> None:
        self.parameters = [p.detach().clone() for p in self.model.parameters()]
        self.grids = [layer.grid.clone() for layer in self.model.act_fun]

    @torch.no_grad()
    def restore(self) -> None:
        for layer, grid in zip(self.model.act_fun, self.grids, strict=True):
            layer.linear.set_grid(grid, torch.zeros_like(layer.linear.coef))
        for p, kept in zip(self.model.parameters(), self.parameters, strict=True):
            p.copy_(kept)


def _move(model, x: Tensor) -> str | None:
    """Move the grids; why not, where the activations are not finite."""
    try:
        model.update_grid(x)
    except (ValueError, RuntimeError) as error:
        if model.rows(x).isfinite().all():
            return f"a grid could not follow its inputs ({error})"
        raise
    return None


def _mean_square(prediction: Tensor, label: Tensor) -> Tensor:
    if prediction.shape != label.shape:
        raise ValueError(
            f"labels have shape {list(label.shape)}: expected that of the prediction, {list(prediction.shape)}"
        )
    return (prediction - label).square().mean()


def _bar(steps: int, wanted: bool):
    if not wanted:
        return None
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(total=steps)
