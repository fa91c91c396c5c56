"""One of the two processes of compare.py: builds cases and times them, by requests in JSON on standard input.

It imports the fastkan of its working directory, and uses public names alone, so that it runs with any commit.
"""

import json
import subprocess
import sys
import time

import torch
from torch import nn

import fastkan


def filled(model: nn.Module, scale: float) -> nn.Module:
    """The model with the same parameters for every commit, whatever its initialisation."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model


def layers(batch: int, in_features: int, out_features: int, grid_size: int, backward: bool):
    """KANLinear: forward without a graph, or forward and backward."""
    layer = filled(fastkan.KANLinear(in_features, out_features, grid_size), 1.0)
    x = (2 * torch.rand(batch, in_features) - 1).requires_grad_(backward)
    grad_out = torch.randn(batch, out_features)

    def run():
        with torch.set_grad_enabled(backward):
            y = layer(x)
        return torch.autograd.grad(y, [x, *layer.parameters()], grad_out) if backward else [y]

    return run


def stacks(batch: int, *sizes: int):
    """KANSequential: a loss and its gradients."""
    pairs = zip(sizes[:-1], sizes[1:], strict=True)
    model = filled(fastkan.nn.KANSequential(*(fastkan.KANLinear(i, o) for i, o in pairs)), 0.3)
    x, y = 2 * torch.rand(batch, sizes[0]) - 1, torch.randn(batch, sizes[-1])
    return lambda: torch.autograd.grad(nn.functional.mse_loss(model(x), y), list(model.parameters()))


def fit(batch: int, *sizes: int):
    """KAN.fit: ten LBFGS steps with the penalty, from the same start."""
    x = 2 * torch.rand(batch, sizes[0]) - 1
    y = torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:2] ** 2).expand(-1, sizes[-1])
    model = fastkan.KAN(list(sizes), grid=5, seed=0)
    start = {name: value.clone() for name, value in model.state_dict().items()}

    def run():
        model.load_state_dict(start)
        model.fit((x, y), steps=10, lamb=1e-3, progress=False)
        return [model(x)]

    return run


def startup():
    """import fastkan after torch, in a fresh process."""
    code = "import time, torch; t = time.perf_counter(); import fastkan; print(time.perf_counter() - t)"
    return lambda: float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


def build(what: str, *arguments):
    torch.manual_seed(0)
    return globals()[what](*arguments)


def fingerprint(run) -> list[tuple[float, float]]:
    """A random projection and the norm of every result, to compare between commits."""
    results = run()
    if isinstance(results, float):
        return []
    generator = torch.Generator().manual_seed(2)
    flat = [r.detach().double().flatten() for r in results]
    return [(float(r @ torch.randn(len(r), generator=generator).double()), float(r.norm())) for r in flat]


def seconds(run, repeats: int) -> float:
    """Mean seconds per call; a call that returns a float measures itself."""
    start = time.perf_counter()
    results = [run() for _ in range(repeats)]
    return (sum(results) if isinstance(results[0], float) else time.perf_counter() - start) / repeats


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(json.loads(sys.stdin.readline()))
    run = None
    print(json.dumps([fastkan.__file__, fastkan.backends()["native"]]), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if isinstance(request, list):
            run = build(*request)
            answer = fingerprint(run)
        else:
            answer = seconds(run, request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
