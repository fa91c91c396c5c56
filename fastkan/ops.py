"""The contract of the fused kernels: schemas and shapes, registered when fastkan is imported.

One namespace of operators for the compiled kernels, one for the Triton kernels; backends register the implementations,
and only backends call the operators. One more for the reference as operators: see sharding.py. Arguments and results
are those of the functions of the same names in reference.py, with a Spec unpacked into its fields.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .spec import Spec

REFERENCE = "fastkan_reference"
NAMESPACES = ("fastkan", "fastkan_triton", REFERENCE)

_SPEC = "Tensor grid, int degree, int base, int outside, bool uniform, int family"

SCHEMAS = {
    "kan_out": f"(Tensor x, Tensor? s, Tensor coef, Tensor? base_weight, Tensor? bias, {_SPEC}, int order) -> Tensor",
    "kan_in": f"(Tensor x, Tensor u, Tensor coef, Tensor? base_weight, {_SPEC}, int order) -> Tensor",
    "kan_coef": f"(Tensor x, Tensor? s, Tensor u, {_SPEC}, int order, bool with_base) -> (Tensor, Tensor)",
    "kan_backward": f"(Tensor x, Tensor? s, Tensor u, Tensor coef, Tensor? base_weight, {_SPEC}, int order)"
    " -> (Tensor, Tensor, Tensor)",
    "edge_moments": f"(Tensor x, Tensor coef, Tensor? base_weight, {_SPEC}) -> Tensor",
    "edge_backward": f"(Tensor x, Tensor? u, Tensor terms, Tensor coef, Tensor? base_weight, {_SPEC}, bool with_x)"
    " -> (Tensor, Tensor, Tensor)",
}
CONTRACTIONS = tuple(SCHEMAS)

# A stack of layers as one operator, compiled only: see stack.py. `weights` has the coef, scale, base_weight and bias of
# every layer, `specs` the integers of their Specs. stack_backward returns the gradients by x (with_x), by the tangents
# (with_tangents) and by the weights that are not None (with_weights).
_LAYERS = "Tensor?[] weights, Tensor[] grids, int[] specs"
STACK_SCHEMAS = {
    "stack_out": f"(Tensor x, Tensor[] tangents, {_LAYERS}) -> Tensor",
    "stack_backward": f"(Tensor x, Tensor[] tangents, Tensor u, {_LAYERS}, bool with_x, bool with_tangents,"
    " bool with_weights) -> Tensor[]",
}
WEIGHTS = 4  # of a layer in `weights`

# Forms of the contractions on a GPU: with tf32 products of float32, and without matrix products.
TF32, GATHER = "_tf32", "_gather"
GPU_SCHEMAS = {f"{name}{form}": SCHEMAS[name] for form in (TF32, GATHER) for name in CONTRACTIONS[:4]}


def allows_tf32() -> bool:
    """Whether products of float32 on a GPU may use tf32: torch's setting for its own products.

    The value of torch.backends.cuda.matmul.fp32_precision, without its Python: all of torch's settings write it, and
    the older ones raise once a newer one was used.
    """
    return torch._C._get_fp32_precision_getter("cuda", "matmul") == "tf32"


# torch.compile cannot trace this: it evaluates it at compile time, and recompiles when torch's setting changes.
# (torch.compiler.assume_constant_result sets the same attribute, but imports the compiler.)
allows_tf32._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]

torch.library.define("fastkan::cpu_isa", "() -> int")
torch.library.define("fastkan::cpu_algorithm", "() -> int")
torch.library.define("fastkan::cuda_serves", "(int device) -> bool")
torch.library.define("fastkan::cuda_algorithm", "() -> int")

# Training steps, compiled for the CPU; elsewhere the functions `reference` of network/train/{lbfgs,penalties}.py.
TRAINING_SCHEMAS = {
    "lbfgs_direction": "(Tensor g, Tensor s, Tensor y, float[] inverse, int oldest, float scale) -> Tensor",
    "edge_penalty": "(Tensor moments, Tensor? x, int rows, float l1, float entropy, float weight)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
}
for _name, _schema in TRAINING_SCHEMAS.items():
    torch.library.define(f"fastkan::{_name}", _schema)

# A layer of nn/quantized.py, compiled for the CPU; elsewhere the function `reference` there.
torch.library.define(
    "fastkan::table_sum", "(Tensor table, Tensor x, Tensor low, Tensor per_unit, Tensor bias) -> Tensor"
)


def _base(like: Tensor, inputs: int, outputs: int, present: bool) -> Tensor:
    # An absent result is an empty tensor, since an operator has a fixed number of results.
    return like.new_empty(inputs if present else 0, outputs)


def _kan_out(x, s, coef, base_weight, bias, grid, degree, base, outside, uniform, family, order):
    return coef.new_empty(x.shape[0], coef.shape[2])


def _kan_in(x, u, coef, base_weight, grid, degree, base, outside, uniform, family, order):
    return x.new_empty(x.shape)


def _kan_coef(x, s, u, grid, degree, base, outside, uniform, family, order, with_base):
    inputs, outputs = x.shape[1], u.shape[1]
    return u.new_empty(inputs, grid.shape[1] - degree - 1, outputs), _base(u, inputs, outputs, with_base)


def _kan_backward(x, s, u, coef, base_weight, grid, degree, base, outside, uniform, family, order):
    inputs, _, outputs = coef.shape
    return x.new_empty(x.shape), coef.new_empty(coef.shape), _base(coef, inputs, outputs, base_weight is not None)


def _edge_moments(x, coef, base_weight, grid, degree, base, outside, uniform, family):
    double = torch.float64 in (x.dtype, coef.dtype)
    return coef.new_empty(3, coef.shape[0], coef.shape[2], dtype=torch.float64 if double else torch.float32)


def _edge_backward(x, u, terms, coef, base_weight, grid, degree, base, outside, uniform, family, with_x):
    inputs, _, outputs = coef.shape
    grad_x = x.new_empty(x.shape[0] if with_x else 0, inputs)
    return grad_x, coef.new_empty(coef.shape), _base(coef, inputs, outputs, base_weight is not None)


# Fake implementations: the results of an operator without values.
FAKES = dict(
    zip(CONTRACTIONS, (_kan_out, _kan_in, _kan_coef, _kan_backward, _edge_moments, _edge_backward), strict=True)
)


def _stack_out(x, tangents, weights, grids, specs):
    return x.new_empty(x.shape[0], weights[-WEIGHTS].shape[2])


def _stack_backward(x, tangents, u, weights, grids, specs, with_x, with_tangents, with_weights):
    by = [x] * with_x + list(tangents) * with_tangents + list(weights) * with_weights
    return [t.new_empty(t.shape) for t in by if t is not None]


FAKES |= {"stack_out": _stack_out, "stack_backward": _stack_backward}
FAKES |= {name: FAKES[name.rpartition("_")[0]] for name in GPU_SCHEMAS}

for _name, _schema in (STACK_SCHEMAS | GPU_SCHEMAS).items():
    torch.library.define(f"fastkan::{_name}", _schema)
    torch.library.register_fake(f"fastkan::{_name}", FAKES[_name])

for _namespace in NAMESPACES:
    for _name in CONTRACTIONS:
        torch.library.define(f"{_namespace}::{_name}", SCHEMAS[_name])
        torch.library.register_fake(f"{_namespace}::{_name}", FAKES[_name])


def functions(namespace: str, suffix: str = "") -> tuple[Callable[..., Any], ...]:
    """The operators of a namespace as functions with the arguments of reference.py, in the order of CONTRACTIONS.

    With the suffix TF32 or GATHER, in that form where there is one.
    """
    ops = getattr(torch.ops, namespace)
    op_out, op_in, op_coef, op_backward = (getattr(ops, f"{name}{suffix}") for name in CONTRACTIONS[:4])

    def kan_out(x, s, coef, base_weight, bias, grid, spec: Spec, order: int) -> Tensor:
        return op_out(x, s, coef, base_weight, bias, grid, *spec, order)

    def kan_in(x, u, coef, base_weight, grid, spec: Spec, order: int) -> Tensor:
        return op_in(x, u, coef, base_weight, grid, *spec, order)

    def kan_coef(x, s, u, grid, spec: Spec, order: int, with_base: bool) -> tuple[Tensor, Tensor | None]:
        grad_coef, grad_base = op_coef(x, s, u, grid, *spec, order, with_base)
        return grad_coef, grad_base if with_base else None

    def kan_backward(x, s, u, coef, base_weight, grid, spec: Spec, order: int) -> tuple[Tensor, Tensor, Tensor | None]:
        grad_x, grad_coef, grad_base = op_backward(x, s, u, coef, base_weight, grid, *spec, order)
        return grad_x, grad_coef, None if base_weight is None else grad_base

    def edge_moments(x, coef, base_weight, grid, spec: Spec) -> Tensor:
        return ops.edge_moments(x, coef, base_weight, grid, *spec)

    def edge_backward(x, u, terms, coef, base_weight, grid, spec: Spec, with_x: bool):
        grad_x, grad_coef, grad_base = ops.edge_backward(x, u, terms, coef, base_weight, grid, *spec, with_x)
        return grad_x if with_x else None, grad_coef, None if base_weight is None else grad_base

    return kan_out, kan_in, kan_coef, kan_backward, edge_moments, edge_backward
