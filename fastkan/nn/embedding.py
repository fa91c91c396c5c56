"""KANEmbedding: continuous features of a table as vectors, for models of tables."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import functional
from ..arguments import integer
from ..features import features
from .edges import OnEdges
from .linear import KANLinear


class KANEmbedding(OnEdges):
    """y[n,i,d] = phi[i,d](x[n,i]) + bias[i,d]: every feature becomes a vector of embedding_dim functions of it.

    The functions are those of a KANLinear that does not sum over its inputs. The result has the shape of tokens, which
    a transformer of a table takes, or MLPs flattened. Splines generalise piecewise linear encodings.

    Args:
        in_features: I, the number of features.
        embedding_dim: D, the size of a vector.
        bias: add a trainable vector to each feature's, initially normal with standard deviation 1/sqrt(D).
        missing: NaN in x stands for a missing value, which has a trainable vector; otherwise NaN gives NaN.
        options: grid_size, spline_order, grid_range, base_activation, outside, device and all others of KANLinear.

    Source: Gorishniy et al., On Embeddings for Numerical Features in Tabular Deep Learning (arXiv 2203.05556).
    """

    bias: nn.Parameter | None
    missing: nn.Parameter | None

    def __init__(
        self, in_features: int, embedding_dim: int, *, bias: bool = True, missing: bool = False, **options: Any
    ):
        super().__init__()
        generator = options.pop("generator", None)
        self.in_features = integer("in_features", in_features, 1)
        self.embedding_dim = integer("embedding_dim", embedding_dim, 1)
        self.edges = KANLinear(self.in_features, self.embedding_dim, **options)

        def vectors(present: bool) -> nn.Parameter | None:
            return nn.Parameter(torch.empty_like(self.edges.coef[:, 0])) if present else None

        self.bias, self.missing = vectors(bias), vectors(missing)
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new initial parameters, the functions' as those of a KANLinear of one input; reset the grid."""
        self.edges.reset_parameters(generator)
        self._scale_base(1)
        for vectors in (self.bias, self.missing):
            if vectors is not None:
                vectors.normal_(0, self.embedding_dim**-0.5, generator=generator)

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] -> [..., I, D] in the parameters' dtype."""
        functional.check_input(x, self.in_features)
        edges, absent = self.edges, x.isnan() if self.missing is not None else None
        rows = (x if absent is None else x.masked_fill(absent, 0)).reshape(-1, self.in_features)
        coef, scale, weight, _ = edges.weights()
        coef = coef if scale is None else coef * scale[:, None]
        fused = edges.fused and weight is not None
        phi = features(rows, edges.knots, edges.spec, coef.dtype, fused, edges.backend)
        if weight is not None and fused:
            coef = torch.cat([coef, weight[:, None]], 1)
        y = torch.bmm(phi.transpose(0, 1), coef).transpose(0, 1)
        if weight is not None and not fused and (base := edges.base_activation) is not None:
            y = y + base(rows)[..., None].to(y.dtype) * weight
        y = y if self.bias is None else y + self.bias
        y = y.reshape(*x.shape, self.embedding_dim)
        return y if absent is None or self.missing is None else torch.where(absent[..., None], self.missing, y)

    def rows(self, x: Tensor) -> Tensor:
        """x; without the rows that miss a value, if there may be some."""
        functional.check_input(x, self.in_features)
        if self.missing is None:
            return x
        x = x.reshape(-1, self.in_features)
        return x[~x.isnan().any(1)]

    def extra_repr(self) -> str:
        shape = f"{self.in_features}, {self.embedding_dim}"
        return f"{shape}, bias={self.bias is not None}, missing={self.missing is not None}"
