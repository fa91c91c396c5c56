"""KAN layers in a vision transformer of the transformers library, beside the original: trained, timed and compared.

    python examples/vision_transformer.py

The two linear layers of every block's MLP become KANLinear by replace_linear, with hidden layers so much narrower that
the parameters are about as many. They read what LayerNorm gives, of mean 0 and variance 1, and GELU's values: most of
it is on a grid from -2 to 2, and outside="linear" takes the rest, so that no input is ever without a gradient. Trained
on 8 x 8 pictures of digits, in float32 and in bfloat16.

Needs transformers and scikit-learn; downloads nothing.
"""

import argparse
import time
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastkan.nn import replace_linear

INTERVALS, RANGE = 5, (-2.0, 2.0)
WIDTH, KAN_WIDTH = 256, 32  # of the hidden layers in a block
BATCH, RATE = 64, 2e-3


class Result(NamedTuple):
    """parameters; seconds for a step; the loss of every step; the share of right answers on pictures held out."""

    parameters: int
    seconds: float
    losses: list[float]
    accuracy: float


def transformer(hidden: int) -> nn.Module:
    """Two blocks of 64 features and 4 heads over 16 patches of 2 x 2 pixels, with that many hidden features."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=64, intermediate_size=hidden, num_hidden_layers=2, num_attention_heads=4, num_labels=10,
        image_size=8, patch_size=2, num_channels=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return ViTForImageClassification(config)


def kan_transformer(hidden: int) -> nn.Module:
    """The same with KAN layers in the blocks."""
    return replace_linear(
        transformer(hidden), "*.mlp.*", grid_size=INTERVALS, grid_range=RANGE, outside="linear", init="random"
    )


def digits() -> tuple[Tensor, Tensor]:
    """1797 pictures [N, 1, 8, 8] from -1 to 1 and their digits [N], shuffled."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(data.images, dtype=torch.float32)[order, None] / 8 - 1, torch.tensor(data.target)[order]


def train(model: nn.Module, x: Tensor, y: Tensor, steps: int, dtype: torch.dtype) -> Result:
    """AdamW on the first 1500 pictures, parameters and activations in dtype."""
    model, x = model.to(dtype).train(), x.to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(1)
    losses, start = [], time.perf_counter()
    for _ in range(steps):
        rows = torch.randint(1500, (BATCH,), generator=generator)
        loss = nn.functional.cross_entropy(model(x[rows]).logits.float(), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    seconds = (time.perf_counter() - start) / steps
    with torch.no_grad():
        right = model.eval()(x[1500:]).logits.argmax(1) == y[1500:]
    return Result(sum(p.numel() for p in model.parameters()), seconds, losses, right.float().mean().item())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--steps", type=int, default=400)
    steps = parser.parse_args(arguments).steps
    x, y = digits()
    print(f"{'':22}{'parameters':>12}{'ms a step':>12}{'first loss':>12}{'last losses':>12}{'accuracy':>10}")
    for dtype in (torch.float32, torch.bfloat16):
        for name, model in (("linear", transformer(WIDTH)), ("KAN", kan_transformer(KAN_WIDTH))):
            result = train(model, x, y, steps, dtype)
            title, last = f"{name}, {str(dtype).removeprefix('torch.')}", result.losses[-20:]
            print(
                f"{title:22}{result.parameters:12}{1e3 * result.seconds:12.1f}"
                f"{result.losses[0]:12.3f}{sum(last) / len(last):12.3f}{result.accuracy:10.3f}"
            )


if __name__ == "__main__":
    main()
