"""The names of a layer's functions as numbers in a state dict: averages of the same names are these names again.

Averages, casts and moving averages of state dicts treat all their tensors alike. Names survive that as small integers,
and a checksum, whose bits are numbers too, tells where different names, or numbers too coarse, were mixed.
"""

import json
import math
import zlib

import torch
from torch import Tensor

CHECK = 32
BLOCK = 256  # of text: the table of names is filled up, so that layers of one shape have states of one length
SPOILED = (
    "these numbers hold no names of functions: they are an average of models that have different functions on their "
    "edges, or were rounded; expected those of one model, or an average of models with the same functions"
)


def encode(names: list[list[str]]) -> Tensor:
    """[O][I] names -> their checksum, the place of every name in a table, and the table as text: 1-D, float64."""
    table = ["0", *sorted({name for row in names for name in row} - {"0"})]
    text = json.dumps(table).encode()
    places = {name: place for place, name in enumerate(table)}
    numbers = [places[name] for row in names for name in row] + list(text.ljust(-(-len(text) // BLOCK) * BLOCK))
    return torch.tensor(_check(numbers) + numbers, dtype=torch.float64)


def decode(state: Tensor, outputs: int, inputs: int) -> list[list[str]]:
    """The reverse, also of an average or a cast; or of the bytes of the names' JSON, as they once were saved.

    Raises ValueError where they are no names, or not those of so many edges.
    """
    numbers = _integers(state)
    try:
        names = json.loads(bytes(numbers)) if numbers[:1] == [ord("[")] else _read(numbers, outputs, inputs)
        fitting = len(names) == outputs and all(len(row) == inputs for row in names)
    except (ValueError, TypeError):
        raise ValueError(SPOILED) from None
    if not fitting:
        raise ValueError(f"these are functions of another number of edges: expected {outputs} x {inputs}")
    return names


def _read(numbers: list[int], outputs: int, inputs: int) -> list[list[str]]:
    """No names where there are those of another number of edges."""
    found, numbers = numbers[:CHECK], numbers[CHECK:]
    if found != _check(numbers):
        raise ValueError(SPOILED)
    places, text = numbers[: outputs * inputs], numbers[outputs * inputs :]
    if not text or len(text) % BLOCK or text[0] != ord("["):
        return []
    table = json.loads(bytes(text))
    return [[table[place] for place in places[j * inputs : (j + 1) * inputs]] for j in range(outputs)]


def _integers(state: Tensor) -> list[int]:
    """Rounding errors of a few operations are taken away; ValueError where there is more than that."""
    if not state.is_floating_point():
        return state.flatten().tolist()
    values = state.detach().flatten().double()
    whole = values.round()
    allowed = (math.sqrt(torch.finfo(state.dtype).eps) * whole.abs().clamp_min(1.0)).clamp_max(0.3)
    if not bool(((values - whole).abs() <= allowed).all()):  # NaN is not
        raise ValueError(SPOILED)
    return whole.long().tolist()


def _check(numbers: list[int]) -> list[int]:
    checksum = zlib.crc32(json.dumps(numbers).encode())
    return [checksum >> bit & 1 for bit in range(CHECK)]
