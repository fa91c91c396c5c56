"""fit: train a network, with grid updates and penalties; whatever happens, a usable model is left.

Required of a model: forward, flow (a forward pass that records activations), reg_metrics, reg_sizes, forget, device,
grid; and act_fun, symbolic_fun, the layers with grids and masks, which may be empty.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...arguments import integer, number
from ..checkpoint import trained
from ..layers.shape import per_layer
from .data import Data, NoData
from .inputs import given, takes_labels
from .lm_residuals import NotFinite, is_squares
from .log import EarlyStopping, Log
from .objective import Objective
from .pointwise import PointwiseObjective, Terms
from .refinement import refined
from .schedule import Schedule, steps_of
from .starts import best_start
from .stepper import Stepper

if TYPE_CHECKING:
    from ..model import KAN

MOST_BY_LM = 3000  # parameters, beyond which a step of Levenberg-Marquardt takes too long


@takes_labels
def fit(
    model: "KAN",
    dataset=None,
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
    loss_fn: Callable[[Tensor, Tensor], Tensor] | str | None = None,
    lr: float | None = None,
    start_grid_update_step: int = -1,
    stop_grid_update_step: int = 50,
    batch: int = -1,
    metrics: Sequence[Callable] | None = None,
    singularity_avoiding: bool = False,
    y_th: float = 1000.0,
    reg_metric: str = "edge_forward_spline_n",
    display_metrics: Sequence[str] | None = None,
    *,
    y: Any = None,
    validation_data: Any = None,
    sample_weight: Any = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    scheduler: Callable | None = None,
    lamb_base: float = 1e-6,
    inwards: float = 0.5,
    grid_sizes: Sequence[int] | None = None,
    callback: Callable | None = None,
    patience: int | None = None,
    keep_best: bool = False,
    seed: int = 0,
    progress: bool = True,
    residuals: Terms | None = None,
    refine_to: float | None = None,
    starts: int = 1,
) -> dict[str, Any]:
    """Train the model in place; arguments and result as in pykan, and fit(x, y, ...) with the others in that order.

    Args:
        dataset: x [N, inputs] with y; or pykan's dictionary, a pair (x, y), (x, y, x_test, y_test), a TensorDataset,
            or loaders, see train.data.Data. x and y are tensors, NumPy arrays, or pandas' frames and series, whose
            numbers become the model's dtype. Moved to the model's device.
        y: the labels, [N, outputs], or [N] for one output. Texts, truth values, whole numbers [N] for several outputs,
            and all labels with loss_fn="cross_entropy" are classes: `classes` then has them in the order of the
            outputs (one output: the log-odds of the second of two classes), and predict gives them.
        opt: "LBFGS" (strong Wolfe line search, up to 20 iterations a step), "LM" (Levenberg-Marquardt), an optimizer
            of torch.optim by its name ("Adam", "AdamW", "SGD", ...), an optimizer class that takes lr, an optimizer, a
            function of the parameters that returns one, or "auto": "LM" for a mean square of all rows, without a
            penalty, of up to 3000 parameters, else "LBFGS". "LM" is for the mean square error, ignores lr and does not
            train scale_sp, which is redundant. It reaches far lower losses than the others once it is in a good basin,
            which coarse grids lead to (grid_sizes). With lamb it mostly ends below LBFGS after as many evaluations, but
            each takes longer, and not from every start.
        steps: number of optimizer steps, one batch each.
        log: evaluate the test set and show the progress every `log` steps.
        lamb: weight of the penalty reg(reg_metric, lamb_l1, lamb_entropy, lamb_coef, lamb_coefdiff).
        update_grid: move the grids to the activations of the batch, as in pykan: grid_update_num times, at steps from
            start_grid_update_step to before stop_grid_update_step.
        loss_fn: (prediction, label) -> number, "mse" or "cross_entropy"; by default the mean square error, reported as
            its root, or for classes the cross entropy. With sample_weight a function gives a loss for every row.
        lr: the learning rate; by default 1 for "LBFGS" and, as in pykan, for "Adam", and for others their own.
        batch: rows in a batch, -1 for all.
        metrics: functions without arguments that return a number, reported under their names.
        singularity_avoiding, y_th: see forward.
        display_metrics: names of the result that the progress bar shows.
        validation_data: (x, y), (x, y, weight) with sample_weight, or the share of the rows that is held out and not
            trained on, chosen by the seed: they are the test set.
        sample_weight: [N], at least 0: weights of the rows in the loss, of which the mean counts as 1. Not with "LM".
        epochs: passes over the training rows, in place of steps. batch_size: batch, by its other name.
        scheduler: function of the optimizer that returns a scheduler of torch.optim.lr_scheduler, such as its class;
            it steps after every epoch if epochs is given, else after every step. Not with "LM", nor with grid_sizes.
        lamb_base: share of a ridge on base weights, in proportion to the loss: without it splines may cancel huge base
            weights inside the grid range, see train.ridge. 0 in pykan.
        inwards: when a hidden layer's grid range shrinks, the share of the way that its ends move in one update. With
            1, as in pykan, the meaningless activations of the start would decide the range, and splines that end or
            bend there would hold the activations in it.
        grid_sizes: numbers of grid intervals, each for an equal share of the steps; the function is kept (see refine).
            Not with an optimizer made before, since `coef` becomes another parameter.
        callback: called after every step with its number and the result so far; a true value ends the training.
        patience: end after so many evaluations without a lower test loss.
        keep_best: restore the model of the least test loss at the end.
        seed: of the order of batches. Training is bitwise reproducible on a CPU; with dropout, which draws from torch's
            own generator, after torch.manual_seed.
        progress: show a progress bar, where tqdm is installed.
        residuals: function of the model, such as of a differential equation, that returns a tensor or a list of them;
            their mean squares add to the loss, which is reported as its root. A weight is a factor of a tensor. The
            function calls model(x) and model.derivatives(x, order). Then dataset may be None, and the grids follow the
            points of these calls. LM has their Jacobian in closed form where row n of a tensor depends on row n of the
            points, which it checks; else by autograd, which takes longer. Not with loss_fn, and not with lamb and "LM".
        refine_to: the loss to reach, as reported, on the test set where there is one. After `steps`, the numbers of
            grid intervals are doubled, the function is kept, and as many steps follow, again and again, until the loss
            is reached, a refinement no longer lowers it by a tenth (one that does not lower it is undone), an interval
            would have fewer than two rows, or a training ends early; "stopped" says why. Without a test set, splines
            that follow noise count as better. Not with an optimizer made before.
        starts: number of trainings, the first from the model as it is, the others from its reset_parameters with the
            next seeds. The model is then that of the least last loss, on the test set where there is one, and the
            result is of its training, with the losses of all under "starts". refine_to refines the best. Not with an
            optimizer made before, nor with pruned or symbolic edges.

    Returns:
        A dictionary. train_loss, test_loss, reg and the metrics: lists with a number for every step; "grid": the grid
        sizes at every step; "stopped": the reason of an early end, or None. train_loss and reg are those of the step's
        batch after the step; before it, as in pykan, for an optimizer that evaluates once, such as Adam. The inputs
        stay in cache_data, for prune, scores, auto_symbolic and plots: a reference to the tensor, or for a loader a
        sample of up to nn.data_sample.SAMPLE_ROWS rows.

    A step after which the loss is not finite is shortened. If that does not help, or a gradient is not finite, training
    ends with a warning, and the model is that of the last finite loss; so it is after an interruption. Raises TypeError
    or ValueError for a wrong argument.
    """
    if refine_to is not None:
        return refined(fit, **locals())
    if integer("starts", starts, 1) > 1:
        return best_start(fit, **locals())
    lambdas = {
        "lamb_l1": number("lamb_l1", lamb_l1), "lamb_entropy": number("lamb_entropy", lamb_entropy),
        "lamb_coef": number("lamb_coef", lamb_coef), "lamb_coefdiff": number("lamb_coefdiff", lamb_coefdiff),
    }  # fmt: skip
    y_th = number("y_th", y_th, 0.0)
    options = {"singularity_avoiding": True, "y_th": y_th} if singularity_avoiding else {}
    if batch_size is not None:
        if batch != -1:
            raise ValueError(f"batch={batch!r}: expected no batch beside batch_size={batch_size!r}, its other name")
        batch = integer("batch_size", batch_size, 1)
    data: Any = NoData()
    if dataset is not None or residuals is None:
        seed = integer("seed", seed, 0)
        dataset, loss_fn = given(model, dataset, y, validation_data, sample_weight, loss_fn, seed)
        data = Data(dataset, integer("batch", batch, -1), seed, model.device)
    steps, epoch = steps_of(data, integer("steps", steps, 0), epochs)
    weights = number("lamb", lamb, 0.0), reg_metric, lambdas, options, number("lamb_base", lamb_base, 0.0)
    objective = _objective(model, loss_fn, residuals, weights)
    inwards = number("inwards", inwards, 0.0, 1.0)
    every = max(1, stop_grid_update_step // integer("grid_update_num", grid_update_num, 1))
    sizes = [per_layer("grid_sizes", size, model.depth, 1) for size in grid_sizes or ()]
    opt = _chosen(objective, data) if isinstance(opt, str) and opt == "auto" else opt
    stepper = Stepper(opt, None if lr is None else number("lr", lr), objective, fixed=not sizes)
    schedule = Schedule(scheduler, stepper.optimizer, epoch, sizes)
    training_log = Log(objective, metrics or (), display_metrics, log, steps, progress)
    early_stopping = EarlyStopping(model, patience, keep_best)
    model.forget()
    results, batches = training_log.results, data.batches()
    try:
        for step in range(steps):
            x, y = next(batches)
            if sizes:
                stepper.extend_grids(sizes[step * len(sizes) // steps])
            try:
                if update_grid and step % every == 0 and start_grid_update_step <= step < stop_grid_update_step:
                    _update_grid(model, objective.points(x, y), inwards)
                test = partial(objective.test, data) if training_log.tests(step) else None
                value, tested = stepper.step(x, y, step == steps - 1, test)
            except NotFinite as error:
                stepper.state.restore()
                results["stopped"] = f"{error} at step {step}; the model is as it was when the loss last was finite"
                if half := {p.dtype for p in model.parameters()} & {torch.float16, torch.bfloat16}:
                    results["stopped"] += f" ({half.pop()} is coarse for training: expected model.float())"
                warnings.warn(f"fit stopped: {results['stopped']}", RuntimeWarning, stacklevel=2)
                break
            data.trained_on(x)
            test_loss = training_log.add(step, value, tested)
            schedule.step(step, results["test_loss"][-1])
            reason = "by the callback" if callback is not None and callback(step, results) else None
            reason = early_stopping.add(test_loss) or reason
            if reason:
                results["stopped"] = f"{reason} at step {step}"
                break
    except KeyboardInterrupt:
        stepper.state.restore()
        raise
    finally:
        training_log.close()
        model.cache_data = data.seen if data.seen is not None else getattr(objective, "seen", None)
        model.zero_grad(set_to_none=True)
    early_stopping.restore()
    return results


def _objective(model: "KAN", loss_fn: Any, residuals: Terms | None, weights: tuple) -> Objective:
    """The objective of the data, or of the residuals."""
    if residuals is None:
        return Objective(model, loss_fn, *weights)
    if not callable(residuals):
        raise TypeError(f"residuals={residuals!r}: expected a function of the model that returns tensors")
    if loss_fn is not None:
        raise ValueError(f"loss_fn={loss_fn!r}: expected None with residuals, whose mean squares are the loss")
    return PointwiseObjective(model, residuals, *weights)


def _chosen(objective: Objective, data: Any) -> str:
    """ "LM" where it serves: squares of few parameters, all rows at once, without a penalty or 16-bit numbers."""
    parameters = trained(objective.model)
    few = sum(p.numel() for p in parameters) <= MOST_BY_LM
    exact = all(p.dtype in (torch.float32, torch.float64) for p in parameters)
    serves = few and exact and data.at_once and is_squares(objective.loss_fn) and not objective.lamb
    return "LM" if serves else "LBFGS"


def _update_grid(model: "KAN", x: Tensor, inwards: float) -> None:
    """Move the grids. Raises NotFinite where the activations are not finite, though x is."""
    try:
        model.update_grid(x, inwards=inwards)
    except (ValueError, RuntimeError) as error:
        if model.rows(x).isfinite().all():
            raise NotFinite(f"a grid could not follow its inputs ({error})") from error
        raise
