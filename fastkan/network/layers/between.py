"""What happens to the hidden nodes between two layers of edges: layer normalisation, dropout."""

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from ..model import KAN


def between(model: "KAN", l: int, y: Tensor) -> Tensor:
    """The nodes y [N, width_in[l + 1]] after layer l, normalised and dropped; those of the last layer as they are."""
    if l + 1 == model.depth:
        return y
    if model.layer_norm:
        y = F.layer_norm(y, y.shape[-1:])
    return F.dropout(y, model.dropout, model.training) if model.dropout else y


def is_plain(model: "KAN", l: int) -> bool:
    """Whether the nodes after layer l go on as they are."""
    options = model.__dict__  # an attribute of a module takes as long as a small layer
    return l + 1 == model.depth or not (options.get("layer_norm") or options.get("dropout"))


def refuse_layer_norm(model: "KAN", what: str) -> None:
    """ValueError where hidden nodes are normalised, which `what` does not know of."""
    if getattr(model, "layer_norm", False) and model.depth > 1:
        raise ValueError(f"layer_norm=True: expected False for {what}")
