"""KANAttention: attention whose projections are KAN layers."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..arguments import integer, number
from .feed_forward import OPTIONS
from .linear import KANLinear


class KANAttention(nn.Module):
    """Attention of q [..., Q, q_dim] to k [..., K, k_dim] and v [..., K, v_dim] -> [..., Q, q_dim], by KAN layers.

    The layers are those of fast-kan's AttentionWithFastKANTransform: query, key, value, output and, with gating,
    sigmoid(gate(q)) times the heads' results. The attention is torch's scaled_dot_product_attention. fast-kan's own
    class, which adds a bias after the softmax, is fastkan.AttentionWithFastKANTransform.

    Torch's fused attention has first derivatives in reverse mode only; others need
    torch.nn.attention.sdpa_kernel(SDPBackend.MATH).

    Args:
        q_dim, k_dim, v_dim: sizes of q, k and v; by default k's is q's, and v's is k's.
        head_dim: size of a head's queries, keys and values; by default q_dim / num_heads.
        num_heads: number of heads.
        gating: multiply the heads' results by the gate.
        dropout: probability of dropping a weight of the attention in training.
        options: of all KANLinear layers; by default grid_range=(-2, 2) and outside="linear", for tokens after a norm.

    Source: github.com/ZiyaoLi/fast-kan.
    """

    gate: KANLinear | None

    def __init__(
        self, q_dim: int, num_heads: int, k_dim: int | None = None, v_dim: int | None = None,
        head_dim: int | None = None, *, gating: bool = False, dropout: float = 0.0, **options: Any,
    ):  # fmt: skip
        super().__init__()
        q_dim, self.num_heads = integer("q_dim", q_dim, 1), integer("num_heads", num_heads, 1)
        k_dim = q_dim if k_dim is None else integer("k_dim", k_dim, 1)
        v_dim = k_dim if v_dim is None else integer("v_dim", v_dim, 1)
        if head_dim is None and q_dim % self.num_heads:
            raise ValueError(f"num_heads={num_heads!r}: expected a divisor of q_dim={q_dim}, or a head_dim")
        head_dim = q_dim // self.num_heads if head_dim is None else integer("head_dim", head_dim, 1)
        self.dropout = number("dropout", dropout, 0.0, 1.0)
        total, options = head_dim * self.num_heads, OPTIONS | options
        self.query, self.key = KANLinear(q_dim, total, **options), KANLinear(k_dim, total, **options)
        self.value, self.output = KANLinear(v_dim, total, **options), KANLinear(total, q_dim, **options)
        self.gate = KANLinear(q_dim, total, **options) if gating else None

    if TYPE_CHECKING:

        def __call__(
            self, q: Tensor, k: Tensor | None = None, v: Tensor | None = None, mask: Tensor | None = None,
            is_causal: bool = False,
        ) -> Tensor: ...  # fmt: skip

    def forward(
        self, q: Tensor, k: Tensor | None = None, v: Tensor | None = None, mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """k is q by default, v is k. mask, broadcast to [..., num_heads, Q, K]: True takes part; or added to scores."""
        k = q if k is None else k
        v = k if v is None else v
        heads = [
            layer(t).unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)
            for layer, t in ((self.query, q), (self.key, k), (self.value, v))
        ]
        dropout = self.dropout if self.training else 0.0
        y = nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask, dropout_p=dropout, is_causal=is_causal)
        y = y.transpose(-2, -3).flatten(-2)
        return self.output(y if self.gate is None else torch.sigmoid(self.gate(q)) * y)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, dropout={self.dropout}"
