"""A small network of KAN convolutions that reads digits: scikit-learn's 1797 pictures of 8 x 8 pixels.

    python examples/digits.py

Three quarters of the pictures train it, a quarter tests it. Every epoch sees them shifted by up to a pixel. Needs
scikit-learn.
"""

import argparse
import time

import torch
from torch import Tensor, nn

from fastkan.nn import KANConv2d, KANLinear

BATCH, RATE = 64, 4e-3


def digits(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures [N, 1, 8, 8] from -1 to 1 and digits [N], for training and for the test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    parts = train_test_split(x.numpy(), data.target, test_size=0.25, random_state=seed, stratify=data.target)
    x_train, x_test, y_train, y_test = map(torch.from_numpy, parts)
    return x_train, y_train, x_test, y_test


def network(seed: int = 0) -> nn.Module:
    """Two convolutions and a linear layer, all of KAN; a norm before each keeps its inputs on its grid."""
    torch.manual_seed(seed)
    options = {"grid_size": 4, "grid_range": (-2, 2), "outside": "linear"}
    return nn.Sequential(
        KANConv2d(1, 16, 3, padding=1, grid_size=4, outside="linear"),
        nn.BatchNorm2d(16),
        KANConv2d(16, 32, 3, padding=1, stride=2, **options),
        nn.BatchNorm2d(32),
        KANConv2d(32, 32, 3, padding=1, stride=2, **options),
        nn.Flatten(),
        nn.BatchNorm1d(128),
        nn.Dropout(0.2),
        KANLinear(128, 10, **options),
    )


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Every picture by -1, 0 or 1 pixel in both directions; what comes in is background."""
    wide = nn.functional.pad(x, (1, 1, 1, 1), value=-1.0)
    at = torch.randint(3, (2, len(x), 1), generator=generator) + torch.arange(8)
    return wide[torch.arange(len(x))[:, None, None], 0, at[0][:, :, None], at[1][:, None]].unsqueeze(1)


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int, seed: int = 0) -> None:
    """AdamW with a rate that falls to zero."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-2)
    steps = epochs * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            loss = nn.functional.cross_entropy(model(shifted(x[rows], generator)), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of right answers."""
    return (model.eval()(x).argmax(1) == y).double().mean().item()


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="one epoch")
    args = parser.parse_args(arguments)
    x, y, x_test, y_test = digits(args.seed)
    model = network(args.seed)
    start = time.perf_counter()
    train(model, x, y, 1 if args.quick else args.epochs, args.seed)
    seconds, right = time.perf_counter() - start, accuracy(model, x_test, y_test)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters} parameters, {seconds:.1f} s, {100 * right:.2f} % of {len(y_test)} pictures right")
    return right


if __name__ == "__main__":
    main()
