"""fit: training of a network, with grid updates and penalties, that ends in a usable model whatever happens.

Of a model it asks for forward, flow (a forward pass that keeps activations), reg_metrics, reg_sizes, forget and device;
for act_fun and symbolic_fun, the layers with grids and masks, which may be none; and for grid, to tell it.
"""

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...arguments import integer, number
from ..checkpoint import State, trained
from ..layers.shape import per_layer
from . import gradient
from .data import Data
from .domain import hold, release
from .gradient import mean_square
from .lbfgs import LBFGS
from .levenberg_marquardt import LevenbergMarquardt
from .lm_residuals import Batch, NotFinite, check_squares, without_scales
from .log import Early, Log
from .penalties import penalty
from .ridge import Ridge


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
    lamb_base: float = 1e-6,
    inwards: float = 0.5,
    grid_sizes: Sequence[int] | None = None,
    callback: Callable | None = None,
    patience: int | None = None,
    keep_best: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> dict:
    """Train the model in place; pykan's arguments and result.

    Args:
        dataset: see data.Data: pykan's dictionary, tensors, or loaders. Moved to the model's device.
        opt: "LBFGS" (strong Wolfe, up to 20 iterations in a step), "Adam", "LM" (Levenberg-Marquardt, for the mean
            square error; it uses no lr, and holds scale_sp, which the coefficients make up for), an optimizer class
            that takes lr, an optimizer, or a function that makes one of the parameters. "LM" goes far below the others
            once it is in a good basin, which coarse grids lead to (grid_sizes). With lamb it mostly ends lower than
            LBFGS with as many evaluations, but takes longer for each, and not from every start.
        steps: one optimizer step each, on one batch.
        log: the test set is evaluated, and the progress shown, every `log` steps.
        lamb: weight of the penalty reg(reg_metric, lamb_l1, lamb_entropy, lamb_coef, lamb_coefdiff).
        update_grid: move the grids to the activations of the step's batch, as in pykan, grid_update_num times, at steps
            from start_grid_update_step to before stop_grid_update_step.
        loss_fn: (prediction, label) -> number; the mean square error by default, which is shown as its root.
        batch: rows in a batch, -1 for all.
        metrics: functions without arguments that give a number; their values go into the result by their names.
        singularity_avoiding, y_th: see forward.
        display_metrics: what the progress shows, names in the result.
        lamb_base: weight, in proportion to the loss, of the square of base weights over the labels' size: it keeps
            splines from cancelling huge ones, see ridge.Ridge. 0 is pykan's.
        inwards: the part of its way that the end of a hidden grid's range moves in an update in which the range
            shrinks. At once, as in pykan's 1, the start's activations, which mean nothing yet, would decide the
            range, and splines that end or bend there hold them in it.
        grid_sizes: numbers of grid intervals, one after the other, each for an equal share of the steps; the function
            stays (see refine). Not with an optimizer that was made before, since `coef` becomes another parameter.
        callback: called after every step with its number and the result so far; a true value ends the training.
        patience: end when the test loss has not improved for so many evaluations.
        keep_best: leave the model as it was where the test loss was least.
        seed: of the batches' order. On a CPU the training is the same again, to the bit.
        progress: show it, where tqdm is installed.

    Returns:
        train_loss, test_loss, reg and the metrics: lists with a number for every step; "grid": the grid sizes at every
        step; "stopped": why it ended early, or None. train_loss and reg are those of the step's batch where the step
        has ended; of an optimizer that evaluates once and then steps, as Adam, where it has begun, as in pykan. The
        inputs are kept as cache_data, for prune, scores, auto_symbolic and plots: a reference to the tensor, or of a
        loader a sample of up to nn.sample.SAMPLE_ROWS of all rows that were trained on.

    A step after which the loss is not finite is made shorter. Where that does not help, or a gradient is not finite,
    the training ends with a warning, and the model is as it was when the loss last was finite. So it is when the
    training is interrupted. Raises TypeError or ValueError for a wrong argument.
    """
    steps = integer("steps", steps, 0)
    lambdas = {
        "lamb_l1": number("lamb_l1", lamb_l1), "lamb_entropy": number("lamb_entropy", lamb_entropy),
        "lamb_coef": number("lamb_coef", lamb_coef), "lamb_coefdiff": number("lamb_coefdiff", lamb_coefdiff),
    }  # fmt: skip
    y_th = number("y_th", y_th, 0.0)
    options = {"singularity_avoiding": True, "y_th": y_th} if singularity_avoiding else {}
    data = Data(dataset, integer("batch", batch, -1), integer("seed", seed, 0), model.device)
    objective = Objective(
        model, loss_fn, number("lamb", lamb, 0.0), reg_metric, lambdas, options, number("lamb_base", lamb_base, 0.0)
    )
    inwards = number("inwards", inwards, 0.0, 1.0)
    every = max(1, stop_grid_update_step // integer("grid_update_num", grid_update_num, 1))
    sizes = [per_layer("grid_sizes", size, model.depth, 1) for size in grid_sizes or ()]
    stepper = Stepper(model, opt, number("lr", lr), objective, fixed=not sizes)
    record = Log(model, objective, data, metrics or (), display_metrics, log, steps, progress)
    early = Early(model, patience, keep_best)
    model.forget()
    state, batches = State(model), data.batches()
    try:
        for step in range(steps):
            x, y = next(batches)
            if sizes:
                _extend(model, sizes[step * len(sizes) // steps], stepper)
            moves = update_grid and step % every == 0 and start_grid_update_step <= step < stop_grid_update_step
            why = _move(model, x, inwards) if moves else None
            why = why or stepper.step(x, y, state, step == steps - 1)
            if why is not None:
                state.restore()
                record.results["stopped"] = (
                    f"{why} at step {step}; the model is as it was when the loss last was finite"
                )
                if half := {p.dtype for p in model.parameters()} & {torch.float16, torch.bfloat16}:
                    record.results["stopped"] += f" ({half.pop()} is coarse for training: expected model.float())"
                warnings.warn(f"fit stopped: {record.results['stopped']}", RuntimeWarning, stacklevel=2)
                break
            data.trained_on(x)
            test = record.add(step)
            stopped = "by the callback" if callback is not None and callback(step, record.results) else None
            stopped = early.add(test) or stopped
            if stopped:
                record.results["stopped"] = f"{stopped} at step {step}"
                break
    except KeyboardInterrupt:
        state.restore()
        raise
    finally:
        record.close()
        model.cache_data = data.seen
        model.zero_grad(set_to_none=True)
    early.restore()
    return record.results


class Objective:
    """The loss and the penalty of a batch; what they last were is kept, for the result."""

    def __init__(
        self, model, loss_fn, lamb: float, reg_metric: str, lambdas: dict, options: dict, lamb_base: float = 0.0
    ):
        if reg_metric not in model.reg_metrics:
            raise ValueError(f"reg_metric={reg_metric!r}: expected one of {', '.join(map(repr, model.reg_metrics))}")
        self.model, self.lamb, self.reg_metric, self.lamb_base = model, lamb, reg_metric, lamb_base
        self.loss_fn, self.lambdas, self.options = loss_fn or mean_square, lambdas, options
        self.loss = self.penalty = torch.zeros(())
        self.gradient = self.ridge = None

    def evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        """The value on x, y with the ridge of the step; its gradients go into .grad."""
        if self.gradient is not None and x.dtype == self.model.act_fun[0].linear.coef.dtype:
            loss, reg = self.gradient(x, y)
            self.loss, self.penalty = loss, reg if self.lamb else self.penalty
            value = loss + self.lamb * reg
        else:
            value = self(x, y)
            value.backward()
            value = value.detach()
        if self.ridge is None:
            return value
        self.ridge.settle(self.loss, y)
        return value + self.ridge.add()

    def settle(self) -> None:
        """Decide how the next step's gradients are computed, in which nothing but parameters changes."""
        self.ridge = Ridge(self.model, self.lamb_base)
        served = gradient.served(self.model, self.lamb, self.reg_metric)
        options = self.loss_fn, self.lamb, self.reg_metric, self.lambdas, self.options
        self.gradient = gradient.Gradient(self.model, *options) if served else None

    def failure(self) -> str | None:
        """What of the last value is not finite."""
        for name, value in (("loss", self.loss), ("penalty", self.penalty)):
            if not math.isfinite(value):
                return f"the {name} is {float(value)}"
        return None

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        if not self.lamb:
            loss = self.loss_fn(self.model(x, **self.options), y)
            self.loss = loss.detach()
            return loss
        record = self.model.flow(x, **self.options)
        loss = self.loss_fn(record.acts[-1].reshape(*x.shape[:-1], -1), y)
        reg = penalty(self.model, record, self.reg_metric, **self.lambdas)
        self.loss, self.penalty = loss.detach(), reg.detach()
        return loss + self.lamb * reg

    @torch.no_grad()
    def look(self, x: Tensor, y: Tensor) -> None:
        """Take the loss and the penalty here, without gradients."""
        self(x, y)

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
        return loss.sqrt().item() if self.loss_fn is mean_square else loss.item()


# Of a step after which the objective is not finite.
HALVINGS = 30
_OPTIMIZERS = "'LBFGS', 'Adam', 'LM', an optimizer, its class or a function making one"


class Stepper:
    """An optimizer and how it steps."""

    def __init__(self, model, opt, lr: float, objective: Objective, fixed: bool = True):
        self.model, self.opt, self.lr, self.objective = model, opt, lr, objective
        if isinstance(opt, str) and opt not in ("LBFGS", "Adam", "LM"):
            raise ValueError(f"opt={opt!r}: expected {_OPTIMIZERS}")
        if not isinstance(opt, str | torch.optim.Optimizer) and not callable(opt):
            raise TypeError(f"opt={opt!r}: expected {_OPTIMIZERS}")
        if isinstance(opt, torch.optim.Optimizer) and not fixed:
            raise ValueError("opt is an optimizer: expected its class, or a function making one, with grid_sizes")
        self.optimizer = None
        self.renew()
        check_squares(self.optimizer, objective.loss_fn)

    def renew(self) -> None:
        """Make the optimizer, for the parameters that the model now has."""
        self.optimizer = self._make()

    def _make(self) -> torch.optim.Optimizer | LBFGS:
        parameters = trained(self.model)
        if not parameters:
            raise ValueError("the model has no parameter to train: expected one that requires a gradient")
        if isinstance(self.opt, torch.optim.Optimizer):
            return self.opt
        if isinstance(self.optimizer, LevenbergMarquardt):
            self.optimizer.follow(without_scales(self.model, parameters))
            return self.optimizer
        if self.opt == "LM" or self.opt is LevenbergMarquardt:
            return LevenbergMarquardt(without_scales(self.model, parameters))
        if self.opt == "Adam":
            least = max(torch.finfo(p.dtype).tiny for p in parameters)  # float16 has no 1e-8
            return torch.optim.Adam(parameters, lr=self.lr, eps=max(1e-8, least))
        if self.opt == "LBFGS":
            return LBFGS(parameters, lr=self.lr)
        return self.opt(parameters, lr=self.lr) if isinstance(self.opt, type) else self.opt(parameters)

    def step(self, x: Tensor, y: Tensor, state: State, last: bool) -> str | None:
        """One step, after which state is what the model was at before; why not, where something is not finite.

        last: no step follows that would look at where this one has ended.
        """
        try:
            self._take(x, y, state, last)
        except NotFinite as error:  # for the step before, on this batch, went too far
            if not self._shorten(x, y, state):
                return str(error)
            try:
                self._take(x, y, state, last)
            except NotFinite as again:
                return str(again)
        if all(bool(p.isfinite().all()) for p in self.model.parameters()):
            return None
        return "the step is not finite"

    def _take(self, x: Tensor, y: Tensor, state: State, last: bool) -> None:
        if isinstance(self.optimizer, LevenbergMarquardt):
            self.optimizer.step(Batch(self.objective, x, y, state))
            return
        objective, evaluations, first, lost = self.objective, 0, math.inf, False
        objective.settle()

        def closure() -> Tensor:
            nonlocal evaluations, first, lost
            self.optimizer.zero_grad()
            value = objective.evaluate(x, y)
            if evaluations == 0:
                self._check()
                state.keep()
                first = float(value)
            elif objective.failure():  # a large number, by which every line search turns back
                lost, value = True, torch.full_like(value, 1e3 * abs(first) + 1.0)
                for p in self.model.parameters():
                    p.grad = None if p.grad is None else torch.zeros_like(p)
            evaluations += 1
            return value

        try:
            self.optimizer.step(closure)
        except RuntimeError as error:
            if "overflow" not in str(error):  # torch's, of a number that float16 can't hold
                raise
            raise NotFinite("the step is not finite") from error
        begun = objective.loss, objective.penalty
        if lost and evaluations > 1:
            self._along_edges(x, y, first, closure)
        if evaluations != 1 or last:  # the last evaluation need not be where the optimizer has ended
            objective.look(x, y)
            if objective.failure() and not self._shorten(x, y, state):
                raise NotFinite(objective.failure())
        if evaluations == 1:
            objective.loss, objective.penalty = begun

    def _along_edges(self, x: Tensor, y: Tensor, before: float, closure: Callable) -> None:
        """Where a line search got nowhere, since it left the domain of a formula: a step along the edge of that."""
        objective = self.objective
        objective.look(x, y)
        if objective.failure() or objective.loss + objective.lamb * objective.penalty < before:
            return
        if hold(self.model, x):
            try:
                self.optimizer.step(closure)
            finally:
                release(self.model, x)

    def _shorten(self, x: Tensor, y: Tensor, state: State) -> bool:
        """Draw formulas into their domains, or go halfway back to the kept state until the objective is finite.

        Returns whether it is.
        """
        if hold(self.model, x, beside=0.0):
            release(self.model, x)
            self.objective.look(x, y)
            if not self.objective.failure():
                return True
        for _ in range(HALVINGS):
            if not state.approach():
                return False
            self.objective.look(x, y)
            if not self.objective.failure():
                return True
        return False

    def _check(self) -> None:
        """Raises NotFinite where the objective or a gradient is not finite."""
        if why := self.objective.failure():
            raise NotFinite(why)
        grads = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        if math.isfinite(sum(grad.sum() for grad in grads.values())):
            return
        for name, grad in grads.items():  # a sum may be infinite where its terms are not
            if not bool(grad.isfinite().all()):
                raise NotFinite(f"the gradient of {name} is not finite")


def _extend(model, sizes: list[int], stepper: Stepper) -> None:
    changed = [(layer, size) for layer, size in zip(model.act_fun, sizes, strict=True) if layer.num != size]
    for layer, size in changed:
        layer.linear.extend_grid(size)
    if changed:
        stepper.renew()


def _move(model, x: Tensor, inwards: float) -> str | None:
    """Move the grids; why not, where the activations are not finite."""
    try:
        model.update_grid(x, inwards=inwards)
    except (ValueError, RuntimeError) as error:
        if model.rows(x).isfinite().all():
            return f"a grid could not follow its inputs ({error})"
        raise
    return None
