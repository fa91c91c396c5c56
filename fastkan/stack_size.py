"""Which stacks of layers are run in one call, by their shapes alone: no tensor's values are looked at."""

from collections.abc import Sequence

from .stack import Layer

# On a CPU up to so many coefficients, and so many of them times rows: above, a call for each layer costs less than to
# compute the activations twice.
COEFS, WORK = 1 << 14, 1 << 22
# On a GPU as long as a block has the shared memory, and up to about as many rows as its threads: more of them have
# nothing to wait for in a launch for each layer either. Reckoned, not measured. See csrc/cuda/stack.h.
BLOCK_BYTES, GPU_ROWS = 96 << 10, 1 << 15


def fits(device_type: str, layers: Sequence[Layer], rows: int | None) -> bool:
    """Whether layers with so many rows are few and small enough for one call; rows is None where they are traced."""
    if device_type == "cpu":
        coefs = sum(layer.coef.numel() for layer in layers)
        return coefs <= COEFS and (rows is None or rows * coefs <= WORK)
    return device_type == "cuda" and (rows is None or rows <= GPU_ROWS) and block_bytes(layers) <= BLOCK_BYTES


def block_bytes(layers: Sequence[Layer], rows: int = 32, tangents: int = 2) -> int:
    """What a block of a GPU holds of a stack on the way back: by default of the fewest rows with the most tangents."""
    shapes = [layer.coef.shape for layer in layers]
    item, subsets = layers[0].coef.element_size(), 1 << tangents
    nodes = sum(inputs for inputs, _, _ in shapes)
    widest = max(max(inputs, outputs) for inputs, _, outputs in shapes)
    weights = sum(inputs * (functions + 1) * outputs + outputs for inputs, functions, outputs in shapes)
    numbers = (11 * nodes, weights, weights, *(subsets * rows * count for count in (nodes, 2 * widest, 7)))
    return sum((count * item + 15) // 16 * 16 for count in numbers) + 4 * rows
