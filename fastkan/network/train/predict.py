"""predict and score of a network, for arrays and frames as well as tensors."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import losses
from .arrays import tensor

if TYPE_CHECKING:
    from ..model import KAN


@torch.no_grad()
def outputs(model: "KAN", x: Any) -> Tensor:
    """The outputs for x, a tensor, an array or a frame [N, inputs], without gradients and in evaluation mode."""
    training = model.training
    model.eval()
    try:
        return model(tensor("x", x, next(model.parameters()).dtype).to(model.device))
    finally:
        model.train(training)


def predict(model: "KAN", x: Any) -> Any:
    """The outputs [N, outputs] for x [N, inputs], or the most likely class of every row, [N], of a network that fit
    trained on class labels (`classes`).

    A tensor for a tensor x, else a NumPy array; classes that are texts are a list for a tensor x.
    """
    y = outputs(model, x)
    if model.classes is None:
        return y if isinstance(x, Tensor) else y.cpu().numpy()
    names = [model.classes[n] for n in chosen(y).tolist()]
    if isinstance(x, Tensor):
        return names if any(isinstance(name, str) for name in names) else torch.tensor(names, device=y.device)
    import numpy as np

    return np.array(names)


def predict_proba(model: "KAN", x: Any) -> Any:
    """The probabilities [N, classes] of a network that fit trained on class labels, in the order of `classes`.

    A tensor for a tensor x, else a NumPy array. Raises RuntimeError for a network of numbers.
    """
    if model.classes is None:
        raise RuntimeError("the model has no classes: expected fit(x, y) with class labels before predict_proba")
    shares = probabilities(outputs(model, x))
    return shares if isinstance(x, Tensor) else shares.cpu().numpy()


def score(model: "KAN", x: Any, y: Any, sample_weight: Any = None) -> float:
    """R^2, the mean over the outputs, or the accuracy of a network that fit trained on class labels.

    x [N, inputs], y [N] or [N, outputs], sample_weight [N]. An output whose labels are constant has R^2 1 if all are
    predicted exactly, else 0.
    """
    found = outputs(model, x)
    weight = torch.ones(len(found), dtype=torch.float64)
    if sample_weight is not None:
        weight = losses.weights(tensor("sample_weight", sample_weight, torch.float64).cpu().double(), len(found))
    if model.classes is not None:
        right = chosen(found).cpu() == losses.class_indices(y, model.classes)
        return float((right * weight).mean())
    y = tensor("y", y, torch.float64).to(found.device, torch.float64)
    y = y[:, None] if y.dim() == 1 else y
    errors = losses.squares(found.double(), y).cpu()
    mean = (y.cpu() * weight[:, None]).mean(0)
    error = (errors * weight[:, None]).mean(0)
    variance = ((y.cpu() - mean).square() * weight[:, None]).mean(0)
    r2 = torch.where(variance > 0, 1 - error / variance, (error == 0).double())
    return float(r2.mean())


def chosen(prediction: Tensor) -> Tensor:
    """The index of the most likely class, [N], of scores [N, classes], or log-odds [N, 1] of the second of two."""
    return prediction.argmax(1) if prediction.shape[1] > 1 else (prediction[:, 0] > 0).long()


def probabilities(prediction: Tensor) -> Tensor:
    """Class probabilities [N, classes] of such scores."""
    if prediction.shape[1] > 1:
        return prediction.softmax(1)
    second = prediction.sigmoid()
    return torch.cat([1 - second, second], 1)
