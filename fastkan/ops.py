"""The contract of the compiled kernels: schemas and shapes, registered when fastkan is imported.

C++ registers implementations of these for CPU and CUDA; nothing else calls them. Arguments and results are those of the
functions of the same names in reference.py, with a Spec spread into its four fields.
"""

import torch
from torch import Tensor

_SPEC = "Tensor grid, int degree, int base, int outside, bool uniform"

SCHEMAS = {
    "kan_out": f"(Tensor x, Tensor? s, Tensor coef, Tensor? base_weight, Tensor? bias, {_SPEC}, int order) -> Tensor",
    "kan_in": f"(Tensor x, Tensor u, Tensor coef, Tensor? base_weight, {_SPEC}, int order) -> Tensor",
    "kan_coef": f"(Tensor x, Tensor? s, Tensor u, {_SPEC}, int order, bool with_base) -> (Tensor, Tensor)",
    "kan_backward": f"(Tensor x, Tensor? s, Tensor u, Tensor coef, Tensor? base_weight, {_SPEC}, int order)"
    " -> (Tensor, Tensor, Tensor)",
    "edge_mean": f"(Tensor x, Tensor coef, Tensor? base_weight, {_SPEC}) -> Tensor",
    "edge_mean_backward": f"(Tensor x, Tensor grad_mean, Tensor coef, Tensor? base_weight, {_SPEC})"
    " -> (Tensor, Tensor, Tensor)",
    "cpu_isa": "() -> int",
}

for _name, _schema in SCHEMAS.items():
    torch.library.define(f"fastkan::{_name}", _schema)


def _base(like: Tensor, inputs: int, outputs: int, wanted: bool) -> Tensor:
    # Where there is no base weight the kernels return an empty tensor, since an operator has a fixed number of results.
    return like.new_empty(inputs if wanted else 0, outputs)


@torch.library.register_fake("fastkan::kan_out")
def _(x, s, coef, base_weight, bias, grid, degree, base, outside, uniform, order):
    return coef.new_empty(x.shape[0], coef.shape[2])


@torch.library.register_fake("fastkan::kan_in")
def _(x, u, coef, base_weight, grid, degree, base, outside, uniform, order):
    return x.new_empty(x.shape)


@torch.library.register_fake("fastkan::kan_coef")
def _(x, s, u, grid, degree, base, outside, uniform, order, with_base):
    inputs, outputs = x.shape[1], u.shape[1]
    return u.new_empty(inputs, grid.shape[1] - degree - 1, outputs), _base(u, inputs, outputs, with_base)


@torch.library.register_fake("fastkan::kan_backward")
def _(x, s, u, coef, base_weight, grid, degree, base, outside, uniform, order):
    inputs, _, outputs = coef.shape
    return x.new_empty(x.shape), coef.new_empty(coef.shape), _base(coef, inputs, outputs, base_weight is not None)


@torch.library.register_fake("fastkan::edge_mean")
def _(x, coef, base_weight, grid, degree, base, outside, uniform):
    return coef.new_empty(coef.shape[0], coef.shape[2])


@torch.library.register_fake("fastkan::edge_mean_backward")
def _(x, grad_mean, coef, base_weight, grid, degree, base, outside, uniform):
    inputs, _, outputs = coef.shape
    return x.new_empty(x.shape), coef.new_empty(coef.shape), _base(coef, inputs, outputs, base_weight is not None)
