"""python -m bench.quantize: a classifier of scikit-learn's digits, in float32 and as tables of 8-bit numbers.

[64, 16, 10], trained by AdamW on four fifths of the rows; the ranges of the tables are those of these rows. Reported
are the accuracy on the others, the largest and the root mean square difference of the outputs on all rows, bytes of
parameters and buffers, and times of calls of 1, 32 and 1797 rows under torch.inference_mode(), interleaved, medians.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from fastkan import KANLinear, KANSequential
from fastkan.measure.provenance import cpu_kind, write_csv
from fastkan.measure.table import duration, table
from fastkan.measure.timing import time_interleaved
from fastkan.nn import quantize
from fastkan_cli import positive

WIDTH, ROWS, EPOCHS = (64, 16, 10), (1, 32, 1797), 30


def data(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x [1797, 64] from -1 to 1, labels [1797], and the indices of the rows to train and to test on."""
    x, y = (torch.from_numpy(values) for values in load_digits(return_X_y=True))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return x.float() / 8 - 1, y, order[len(x) // 5 :], order[: len(x) // 5]


def trained(x: Tensor, y: Tensor, seed: int, epochs: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    layers = (KANLinear(i, o, generator=generator) for i, o in zip(WIDTH[:-1], WIDTH[1:], strict=True))
    model = KANSequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model.eval()


def rows(seed: int, epochs: int, rounds: int) -> list[dict[str, object]]:
    """A row for the model and for its tables with fewer and fewer points."""
    x, y, train, test = data(seed)
    model = trained(x[train], y[train], seed, epochs)
    models = {"float32": model}
    for bits in (8, 6, 4):
        models[f"tables, {1 << bits} points"] = quantize(model, x[train], bits=bits)
    with torch.inference_mode():
        outputs = {name: each(x) for name, each in models.items()}
        times = {n: time_interleaved(calls(models, x[:n]), rounds)[0] for n in ROWS}
    return [
        {
            "model": name,
            "accuracy": round(float((y_[test].argmax(1) == y[test]).double().mean()), 4),
            "largest_difference": f"{float((y_ - outputs['float32']).abs().max()):.3g}",
            "rms_difference": f"{float((y_ - outputs['float32']).square().mean().sqrt()):.3g}",
            "rms_output": f"{float(outputs['float32'].square().mean().sqrt()):.3g}",
            "bytes": sum(t.nbytes for t in (*models[name].parameters(), *models[name].buffers())),
            **{f"seconds_{n}": f"{median(times[n][name]):.3g}" for n in ROWS},
        }
        for name, y_ in outputs.items()
    ]  # fmt: skip


def calls(models: dict[str, nn.Module], x: Tensor) -> dict[str, Callable[[], object]]:
    return {name: lambda model=model: model(x) for name, model in models.items()}


def as_table(measured: list[dict[str, object]]) -> str:
    names = [
        "digits",
        "accuracy",
        "largest difference",
        "RMS of it",
        "bytes",
        *(f"{n} row{'s' if n > 1 else ''}" for n in ROWS),
    ]
    keys = ("model", "accuracy", "largest_difference", "rms_difference", "bytes")
    lines = [
        [str(row[key]) for key in keys] + [duration(float(str(row[f"seconds_{n}"]))) for n in ROWS] for row in measured
    ]
    return table(names, lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.quantize", description=__doc__)
    parser.add_argument("--rounds", type=positive, default=21, help="samples of each time (21)")
    parser.add_argument("--threads", type=positive, default=1, help="number of torch threads (1)")
    parser.add_argument("--epochs", type=positive, default=EPOCHS, help=f"of the training ({EPOCHS})")
    parser.add_argument("--seed", type=int, default=0, help="of rows and training (0)")
    default = Path(__file__).parent / "results" / cpu_kind() / "quantize.csv"
    parser.add_argument("--out", type=Path, default=default, help=f"(bench/results/{cpu_kind()}/quantize.csv)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    measured = rows(args.seed, args.epochs, args.rounds)
    write_csv(args.out, measured)
    print(as_table(measured), f"RMS of the outputs: {measured[0]['rms_output']}", args.out, sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
