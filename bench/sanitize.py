"""Every Triton kernel once or twice on small shapes: what compute-sanitizer watches.

PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python -m bench.sanitize
"""

import sys

import torch

from fastkan.backends import triton
from fastkan.backends.triton import plan
from fastkan.testing import CONTRACTIONS, Problem, assert_within, call

# rows, inputs, outputs: less than any tile; no multiple of one; few edges, whose sums are split over the rows.
SHAPES = ((5, 3, 2), (70, 19, 37), (600, 2, 3))
KINDS = ((torch.float32, "promised"), (torch.bfloat16, "uneven"), (torch.float64, "even"))


def problems():
    for shape in SHAPES:
        for k, (dtype, knots) in enumerate(KINDS):
            yield Problem.random(*shape, (5, 40, 9)[k], knots=knots, dtype=dtype, weighted=k == 1, order=k == 2)


def main() -> int:
    """Both algorithms; they must agree, so that a run that computes nothing does not pass."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reason = triton.missing(device.type, (torch.float32,))
    if reason:
        print(f"bench.sanitize: {reason}", file=sys.stderr)
        return 1
    count = 0
    for p in problems():
        for contraction in CONTRACTIONS:
            found = []
            for plan.gather in (False, True):
                found.append(call(triton, contraction, p.on(device)))
                count += 1
            for a, b in zip(*found, strict=True):
                size = a.double().abs().amax()
                assert_within(a.double(), b.double(), 0.05 * size.expand(a.shape), contraction)
    if device.type == "cuda":
        torch.cuda.synchronize()
    print(f"{count} calls on {device}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
