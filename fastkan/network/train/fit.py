"""fit: train a network, with grid updates and penalties; whatever happens, a usable model is left.

Required of a model: forward, flow (a forward pass that records activations), reg_metrics, reg_sizes, forget, device,
grid; and act_fun, symbolic_fun, the layers with grids and masks, which may be empty.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...arguments import integer, number
from ..layers.shape import per_layer
from .data import Data
from .lm_residuals import NotFinite
from .log import EarlyStopping, Log
from .objective import Objective
from .stepper import Stepper

if TYPE_CHECKING:
    from ..model import KAN


def fit(
    model: "KAN",
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
    stepper = Stepper(opt, number("lr", lr), objective, fixed=not sizes)
    training_log = Log(objective, data, metrics or (), display_metrics, log, steps, progress)
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
                    _update_grid(model, x, inwards)
                value = stepper.step(x, y, last=step == steps - 1)
            except NotFinite as error:
                stepper.state.restore()
                results["stopped"] = f"{error} at step {step}; the model is as it was when the loss last was finite"
                if half := {p.dtype for p in model.parameters()} & {torch.float16, torch.bfloat16}:
                    results["stopped"] += f" ({half.pop()} is coarse for training: expected model.float())"
                warnings.warn(f"fit stopped: {results['stopped']}", RuntimeWarning, stacklevel=2)
                break
            data.trained_on(x)
            test_loss = training_log.add(step, value)
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
        model.cache_data = data.seen
        model.zero_grad(set_to_none=True)
    early_stopping.restore()
    return results


def _update_grid(model: "KAN", x: Tensor, inwards: float) -> None:
    """Move the grids. Raises NotFinite where the activations are not finite, though x is."""
    try:
        model.update_grid(x, inwards=inwards)
    except (ValueError, RuntimeError) as error:
        if model.rows(x).isfinite().all():
            raise NotFinite(f"a grid could not follow its inputs ({error})") from error
        raise
