"""Shapes of the benchmarks."""

import torch

from fastkan.measure.correctness import Case

LAYERS = (
    Case(1024, 256, 256, 5),
    Case(4096, 64, 64, 5),
    Case(1024, 784, 64, 5),
    Case(256, 64, 64, 50),
    Case(256, 64, 64, 200),
    Case(64, 2, 5, 5),
    Case(1000, 5, 1, 10),
)

NARROW = tuple(
    Case(*shape, dtype=torch.bfloat16) for shape in ((1024, 256, 256, 5), (4096, 64, 64, 5), (256, 64, 64, 200))
)

SCALING = tuple(Case(4096, 64, 64, grid_size) for grid_size in (5, 10, 20, 50, 100, 200, 500, 1000))

MEMORY = (Case(1024, 256, 256, 5), Case(256, 64, 64, 200))

ACCURACY = tuple(Case(256, 64, 64, grid_size) for grid_size in (5, 50, 200))

# For tests of the benchmarks: all of the code, no useful times.
TINY = (Case(32, 4, 3, 5), Case(16, 2, 5, 20))
