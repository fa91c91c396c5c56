"""Whether features of their own or the fused kernels are faster, where a user names "triton" alone."""

import torch
from torch import Tensor

from ... import ops
from ...spec import Spec

# What an H100 reaches: products of matrices by the vendor's library, per second, bytes per second, and seconds that a
# kernel takes beyond its work. Estimated from peaks and from published rates, not measured; other GPUs have other
# numbers, but nearly these ratios.
RATES = {"16 bits": 6.0e14, "tf32": 3.4e14}
BANDWIDTH = 3.0e12
LAUNCH = 4e-6
# Share of these rates that the fused kernels reach, where the ordinary cores make features in turns with the tensor
# cores' products: counted in the machine code for sm_90.
FUSED = {"16 bits": 0.5, "tf32": 0.6}
KERNELS_MORE = 3  # features, the base function and its product
GATHERS_FROM = 24  # F / (K + 2) from which the fused kernels gather coefficients instead of multiplying


def apart(x: Tensor, weight: Tensor, spec: Spec, functions: int, outputs: int) -> bool:
    """Whether features as a matrix and the vendor's product are faster than the fused kernels; an estimate.

    In 16 bits and tf32 a product on tensor cores takes less time than its features do in the fused kernels, which make
    them again for every block of outputs: tensor cores starve. Apart, features cost their bytes and more launches. In
    float32 by three tf32 products, and in float64, the products take longest, and fused is always the choice.

    x [N, I]; weight: coefficients or their gradient's u, for their dtype. Compare docs/kernels/triton.md.
    """
    kind = "16 bits" if weight.dtype.itemsize == 2 else "tf32" if weight.dtype == torch.float32 else ""
    if not kind or x.dtype == torch.float64 or (kind == "tf32" and not ops.allows_tf32()):
        return False
    if functions + 1 > GATHERS_FROM * (spec.degree + 2):
        return False
    features = x.shape[0] * x.shape[1] * functions
    products = 2 * features * outputs / RATES[kind]
    more = features * weight.dtype.itemsize / BANDWIDTH + KERNELS_MORE * LAUNCH
    return products / FUSED[kind] > products + more
