"""KAN layers in models of timm and transformers, beside the originals: parameters, time of a step, loss and accuracy.

    python examples/models.py

All models are made from their configuration, with random weights, and read the digits of scikit-learn:

resnet    timm's ResNet of four basic blocks on 16 x 16 pixels; KAN's has KANConv2d for a block's second convolution
vit       timm's VisionTransformer of two blocks on 4 x 4 patches; KAN's has KANFeedForward for the MLPs
encoder   transformers' BertForSequenceClassification of two layers, which reads the grey values of 64 pixels as words;
          KAN's has KANLinear for the linear layers between attentions, by replace_linear

Needs scikit-learn, timm and transformers; models of a package that is missing are left out. Downloads nothing.
"""

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastkan.nn import KANConv2d, KANFeedForward, replace_linear

BATCH, RATE, TRAINED = 64, 2e-3, 1400
# Most inputs of the layers come from a norm; the rest is not without a gradient.
KAN = {"grid_size": 3, "grid_range": (-2.0, 2.0), "outside": "linear"}


class Result(NamedTuple):
    """parameters; seconds for a step; the loss of every step; the share of right answers on pictures held out."""

    parameters: int
    seconds: float
    losses: list[float]
    accuracy: float


def resnet(kan: bool) -> nn.Module:
    """KAN's channels are half as many, so that the parameters are about as many."""
    from timm.models.resnet import BasicBlock, ResNet

    channels = (8, 16, 32, 32) if kan else (16, 32, 64, 64)
    model = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=10, in_chans=1, stem_width=32, channels=channels)
    for block in [m for m in model.modules() if isinstance(m, BasicBlock)] if kan else ():
        block.conv2 = like(block.conv2)
    return model


def like(conv: nn.Conv2d) -> KANConv2d:
    """A KAN convolution of the same shape."""
    return KANConv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups,
        conv.bias is not None, conv.padding_mode, **KAN,
    )  # fmt: skip


def vit(kan: bool) -> nn.Module:
    """KAN's hidden layers are narrower, so that the parameters are about as many."""
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=16, patch_size=4, in_chans=1, num_classes=10, embed_dim=64, depth=2, num_heads=4, mlp_ratio=4
    )
    for block in model.blocks if kan else ():
        block.mlp = KANFeedForward(64, 36, **KAN)
    return model


def encoder(kan: bool) -> nn.Module:
    """KAN's hidden layers are narrower, so that the parameters are about as many."""
    from transformers import BertConfig, BertForSequenceClassification

    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=17, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_labels=10,
            intermediate_size=36 if kan else 256, max_position_embeddings=64, hidden_act="linear" if kan else "gelu",
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip
    names = ("*.intermediate.dense", "*.layer.*.output.dense")
    return replace_linear(model, names, "*.attention.*", init="random", **KAN) if kan else model


MODELS: dict[str, Callable[[bool], nn.Module]] = {"resnet": resnet, "vit": vit, "encoder": encoder}


def digits(name: str) -> tuple[Tensor, Tensor]:
    """What the model of that name reads, 1797 pictures of which the first TRAINED train it, and the digits."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(data.images, dtype=torch.float32)[order], torch.tensor(data.target)[order]
    if name == "encoder":
        return x.flatten(1).long(), y
    return nn.functional.interpolate(x.unsqueeze(1) / 8 - 1, scale_factor=2, mode="bilinear"), y


def logits(model: nn.Module, x: Tensor) -> Tensor:
    """Of any of the models."""
    y = model(x)
    return y if isinstance(y, Tensor) else y.logits


def train(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Result:
    """AdamW; the first step is not timed."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=RATE)
    generator, losses, start = torch.Generator().manual_seed(1), [], 0.0
    for step in range(steps):
        start = time.perf_counter() if step == 1 else start
        rows = torch.randint(TRAINED, (BATCH,), generator=generator)
        loss = nn.functional.cross_entropy(logits(model, x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    seconds = (time.perf_counter() - start) / max(1, steps - 1)
    with torch.no_grad():
        right = logits(model.eval(), x[TRAINED:]).argmax(1) == y[TRAINED:]
    return Result(sum(p.numel() for p in model.parameters()), seconds, losses, right.double().mean().item())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--quick", action="store_true", help="three steps")
    args = parser.parse_args(arguments)
    print(f"{'':16}{'parameters':>12}{'ms a step':>12}{'first loss':>12}{'last losses':>12}{'accuracy':>10}")
    for name in args.models:
        for title, kan in (("original", False), ("KAN", True)):
            torch.manual_seed(0)
            try:
                model = MODELS[name](kan)
            except ImportError as missing:
                print(f"{name}: {missing}")
                break
            result = train(model, *digits(name), 3 if args.quick else args.steps)
            last = result.losses[-20:]
            print(
                f"{name + ', ' + title:16}{result.parameters:12}{1e3 * result.seconds:12.1f}"
                f"{result.losses[0]:12.3f}{sum(last) / len(last):12.3f}{result.accuracy:10.3f}"
            )


if __name__ == "__main__":
    main()
