"""Run every GPU kernel on small shapes, for compute-sanitizer.

PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python -m bench.sanitize
"""

import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterator

import torch

from fastkan.backends import native, triton
from fastkan.backends.triton import plan
from fastkan.testing import CONTRACTIONS, Problem, assert_within, call

# rows, inputs, outputs: smaller than any tile; not a multiple of one; few edges (split-K over the rows).
SHAPES = ((5, 3, 2), (70, 19, 37), (600, 2, 3))
KINDS = ((torch.float32, "promised"), (torch.bfloat16, "uneven"), (torch.float64, "even"))
# Shapes that the CUDA backend runs as matrix products, with split-K and without.
PRODUCTS = (
    {"rows": 300, "inputs": 19, "outputs": 72, "grid_size": 5, "weighted": True},
    {"rows": 70, "inputs": 150, "outputs": 136, "grid_size": 12, "degree": 2, "per_input": True},
)


PRODUCT_TYPES = (torch.bfloat16, torch.float32, torch.float64)  # float32 as tf32


def products():
    for product, dtype in itertools.product(PRODUCTS, PRODUCT_TYPES):
        yield Problem.random(**product, knots="promised", dtype=dtype)


def problems():
    yield from products()
    for shape in SHAPES:
        for k, (dtype, knots) in enumerate(KINDS):
            yield Problem.random(*shape, (5, 40, 9)[k], knots=knots, dtype=dtype, weighted=k == 1, order=k == 2)


def algorithms(device: torch.device) -> Iterator[Callable[[str, Problem], tuple[torch.Tensor, ...]]]:
    """The available implementations: Triton's two algorithms, and CUDA."""

    def of_triton(contraction: str, p: Problem, gather: bool) -> tuple[torch.Tensor, ...]:
        plan.gather = gather
        return call(triton, contraction, p)

    if triton.missing(device.type, (torch.float32,)) is None:
        yield functools.partial(of_triton, gather=False)
        yield functools.partial(of_triton, gather=True)
    if device.type == "cuda" and native.missing("cuda", (torch.float32,)) is None:
        yield functools.partial(call, native)


def main() -> int:
    """Run all and compare their results, so that kernels that compute nothing do not pass."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    runs = list(algorithms(device))
    if len(runs) < 2:
        print(f"bench.sanitize: {triton.missing(device.type, (torch.float32,))}", file=sys.stderr)
        return 1
    torch.set_float32_matmul_precision("high")
    count = 0
    for p in problems():
        for contraction in CONTRACTIONS:
            first, *others = [run(contraction, p.on(device)) for run in runs]
            count += len(runs)
            for found in others:
                for a, b in zip(first, found, strict=True):
                    size = a.double().abs().amax()
                    assert_within(a.double(), b.double(), 0.05 * size.expand(a.shape), contraction)
    if device.type == "cuda":
        torch.cuda.synchronize()
        if native.missing("cuda", (torch.float32,)) is None:
            os.environ["FASTKAN_CUDA_ALGORITHM"] = "matrix"  # for float64 too, where some GPUs do not choose it
            for p, contraction in itertools.product(products(), ("kan_out", "kan_backward")):
                call(native, contraction, p.on(device))
                assert native.cuda_algorithm() == "matrix", "the matrix products did not run"
    print(f"{count} calls on {device}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
