"""The file of a table's model: what KAN.save writes, and beside it, as JSON, the preparation and what was reported."""

import json
import os
from typing import NamedTuple

import torch

from ..network import KAN
from ..network.checkpoint import atomic_write, content
from .columns import Preparation
from .delimited import TableError

ENTRY = "table"


class Fitted(NamedTuple):
    """A network, what leads from a table to it, and the report of its training."""

    model: KAN
    preparation: Preparation
    report: dict


def save(fitted: Fitted, path: str | os.PathLike) -> None:
    """Write the file, in one piece. KAN.load reads the network alone from it. Raises OSError."""
    table = {"preparation": fitted.preparation.as_json(), "report": fitted.report}
    with atomic_write(path) as file:
        torch.save({**content(fitted.model), ENTRY: json.dumps(table)}, file)


def load(path: str | os.PathLike) -> Fitted:
    """What save has written. The file can't run code. Raises OSError, or TableError where it is another file."""
    try:
        model = KAN.load(path)
        table = json.loads(torch.load(path, weights_only=True)[ENTRY])
        fitted = Fitted(model, Preparation.from_json(table["preparation"]), table["report"])
        if (len(fitted.preparation.inputs), fitted.preparation.outputs) != (model.in_features, model.width_in[-1]):
            raise ValueError
        return fitted
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        why = "a network without a table" if error.args == (ENTRY,) else "another file, or a damaged one"
        raise TableError(f"{path} is {why}: expected the model.pt of `fastkan fit`") from None
