"""Encoding of the names of a layer's functions as a tensor in a state dict that survives averages and casts.

Averages, moving averages and casts of state dicts treat all tensors alike. Names are stored as small integers, whose
average over equal names is the same again, with a checksum, stored as bits, that detects averages over different names
and rounding.
"""

import json
import math
import zlib

import torch
from torch import Tensor

from ...devices import exact

CHECK = 32
BLOCK = 256  # bytes: the table of names is padded, so that layers of one shape have states of one length
SPOILED = (
    "the names of functions can't be decoded: the state is an average of models with different functions on their "
    "edges, or was rounded; expected the state of one model, or an average of models with the same functions"
)


def encode(names: list[list[str]]) -> Tensor:
    """Names [O][I] as a checksum, the index of every name in a table, and the table as text: 1-D, float64."""
    table = ["0", *sorted({name for row in names for name in row} - {"0"})]
    text = json.dumps(table).encode()
    indices = {name: n for n, name in enumerate(table)}
    numbers = [indices[name] for row in names for name in row] + list(text.ljust(-(-len(text) // BLOCK) * BLOCK))
    return torch.tensor(_check(numbers) + numbers, dtype=torch.float64, device="cpu")


def decode(state: Tensor, outputs: int, inputs: int) -> list[list[str]]:
    """The names [O][I] in a state, also after an average or a cast; also reads the older format, bytes of JSON.

    Raises ValueError for a state that can't be decoded or has another number of edges.
    """
    numbers = _integers(state)
    try:
        names = json.loads(bytes(numbers)) if numbers[:1] == [ord("[")] else _read(numbers, outputs, inputs)
        matches = len(names) == outputs and all(len(row) == inputs for row in names)
    except (ValueError, TypeError):
        raise ValueError(SPOILED) from None
    if not matches:
        raise ValueError(f"the state has the functions of another number of edges: expected {outputs} x {inputs}")
    return names


def _read(numbers: list[int], outputs: int, inputs: int) -> list[list[str]]:
    """The names; an empty list where the state has another number of edges."""
    check, numbers = numbers[:CHECK], numbers[CHECK:]
    if check != _check(numbers):
        raise ValueError(SPOILED)
    indices, text = numbers[: outputs * inputs], numbers[outputs * inputs :]
    if not text or len(text) % BLOCK or text[0] != ord("["):
        return []
    table = json.loads(bytes(text))
    return [[table[n] for n in indices[j * inputs : (j + 1) * inputs]] for j in range(outputs)]


def _integers(state: Tensor) -> list[int]:
    """The state rounded to integers; ValueError where they differ by more than the rounding of a few operations."""
    if not state.is_floating_point():
        return state.flatten().tolist()
    values = exact(state.detach().flatten())
    whole = values.round()
    allowed = (math.sqrt(torch.finfo(state.dtype).eps) * whole.abs().clamp_min(1.0)).clamp_max(0.3)
    if not bool(((values - whole).abs() <= allowed).all()):  # NaN is not
        raise ValueError(SPOILED)
    return whole.long().tolist()


def _check(numbers: list[int]) -> list[int]:
    checksum = zlib.crc32(json.dumps(numbers).encode())
    return [checksum >> bit & 1 for bit in range(CHECK)]
