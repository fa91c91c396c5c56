"""Model files of `fastkan fit`: a KAN.save file with the column preparation and the report as JSON."""

import json
import os
from typing import NamedTuple

import torch

from ..network import KAN
from ..network.checkpoint import atomic_write, content
from .columns import Preparation
from .delimited import TableError

ENTRY = "table"
MODEL = "model.pt"  # in the folder that `fastkan fit` writes


class Fitted(NamedTuple):
    """A network, the preparation of its columns, and the report of its training."""

    model: KAN
    preparation: Preparation
    report: dict


def save(fitted: Fitted, path: str | os.PathLike) -> None:
    """Write the file atomically. KAN.load reads the network from it. Raises OSError."""
    table = {"preparation": fitted.preparation.as_json(), "report": fitted.report}
    with atomic_write(path) as file:
        torch.save({**content(fitted.model), ENTRY: json.dumps(table)}, file)


def load(path: str | os.PathLike) -> Fitted:
    """Read a file written by save, or MODEL of a folder; loading runs no code from it.

    Raises OSError, or TableError for any other file.
    """
    path = os.path.join(path, MODEL) if os.path.isdir(path) else path
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
