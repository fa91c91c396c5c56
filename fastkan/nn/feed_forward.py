"""KANFeedForward: the feed-forward block of a transformer, of KAN layers."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..arguments import integer, number
from .linear import KANLinear

# After a norm most numbers are within two standard deviations; the rest is not without a gradient.
OPTIONS: dict[str, Any] = {"grid_range": (-2.0, 2.0), "outside": "linear"}


class KANFeedForward(nn.Module):
    """y = down(dropout(up(norm(x)))): two KAN layers, where transformers have linear layers and an activation.

    With a gate the hidden numbers are up(x) * gate(x), gate an nn.Linear: a gated unit whose activation is learnt.

    Args:
        in_features: D, the size of x and, unless out_features is given, of the result.
        hidden_features: H; by default D: a KAN layer has G + K + 1 times as many parameters as a linear one.
        out_features: the size of the result.
        norm: begin with an nn.LayerNorm of x; for blocks whose model has none before.
        dropout: probability, of the hidden numbers and of the result.
        gated: multiply by the gate.
        options: of both KANLinear layers; by default grid_range=(-2, 2) and outside="linear", for x after a norm.

    Source of the gate: Shazeer, GLU Variants Improve Transformer (arXiv 2002.05202).
    """

    norm: nn.LayerNorm | None
    gate: nn.Linear | None

    def __init__(
        self, in_features: int, hidden_features: int | None = None, out_features: int | None = None, *,
        norm: bool = False, dropout: float = 0.0, gated: bool = False, **options: Any,
    ):  # fmt: skip
        super().__init__()
        inputs = integer("in_features", in_features, 1)
        hidden = inputs if hidden_features is None else integer("hidden_features", hidden_features, 1)
        outputs = inputs if out_features is None else integer("out_features", out_features, 1)
        place: dict[str, Any] = {name: options.get(name) for name in ("device", "dtype")}
        self.norm = nn.LayerNorm(inputs, **place) if norm else None
        self.up = KANLinear(inputs, hidden, **OPTIONS | options)
        self.gate = nn.Linear(inputs, hidden, **place) if gated else None
        self.dropout = nn.Dropout(number("dropout", dropout, 0.0, 1.0))
        self.down = KANLinear(hidden, outputs, **OPTIONS | options)

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...

    def forward(self, x: Tensor) -> Tensor:
        """x [..., D] -> [..., out_features]."""
        x = x if self.norm is None else self.norm(x)
        hidden = self.up(x)
        hidden = hidden if self.gate is None else hidden * self.gate(x)
        return self.dropout(self.down(self.dropout(hidden)))
