"""Operators on DTensors, and KANLinear in torch's parallel styles.

An operator is a sum over rows n and inputs i of terms for every output o (see reference.py), so it can be sharded along
any of the three: tensors with this dimension are sharded; of the others, arguments are replicated and results are
partial sums. Column-wise parallelism shards the outputs, row-wise the inputs, data parallelism the rows.

Imported when torch.distributed.tensor is.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import Partial, Placement, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.experimental import register_sharding
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

from . import ops, reference
from .nn import KANLinear
from .spec import Spec

# The dimensions n, i and o of arguments, results and parameters; a dot for any other.
_ARGUMENTS = {
    "x": "ni", "s": "ni", "u": "no", "coef": "i.o", "base_weight": "io", "bias": "o", "grid": "i.", "terms": ".io",
}  # fmt: skip
_RESULTS = {
    "kan_out": ("no",), "kan_in": ("ni",), "kan_coef": ("i.o", "io"), "kan_backward": ("ni", "i.o", "io"),
    "edge_moments": (".io",), "edge_backward": ("ni", "i.o", "io"),
}  # fmt: skip
_PARAMETERS = {"coef": "i.o", "base_weight": "io", "spline_scale": "io", "bias": "o"}


def _place(shape: str, along: str, otherwise: Placement) -> Placement:
    return Shard(shape.index(along)) if along in shape else otherwise


def _placements(name: str, *values) -> list[tuple[list, list]]:
    """The placements of results and arguments for every sharding of an operator, as register_sharding expects them."""
    schema = getattr(torch.ops.fastkan, name).default._schema
    given = [
        argument.name if value is not None else "" for argument, value in zip(schema.arguments, values, strict=True)
    ]

    def sharded(along: str) -> tuple[list, list]:
        # The bias is added once, after the sum over the inputs: each process has a part of it.
        otherwise = {"bias": Partial()} if along == "i" else {}
        arguments = [
            _place(_ARGUMENTS[of], along, otherwise.get(of, Replicate())) if of in _ARGUMENTS else None for of in given
        ]
        return [_place(shape, along, Partial()) for shape in _RESULTS[name]], arguments

    whole = [Replicate() for _ in _RESULTS[name]], [Replicate() if of in _ARGUMENTS else None for of in given]
    return [whole, *map(sharded, "io" if name == "edge_moments" else "nio")]  # moments are means over the rows


def _register() -> None:
    for name in ops.CONTRACTIONS:
        packets = [getattr(getattr(torch.ops, namespace), name) for namespace in ops.NAMESPACES]
        packets += [getattr(torch.ops.fastkan, form) for form in ops.GPU_SCHEMAS if form.rpartition("_")[0] == name]
        register_sharding([packet.default for packet in packets])(functools.partial(_placements, name))


def _as_operator(name: str) -> Callable:
    """A function of the reference with the arguments and results of the operator."""
    function = getattr(reference, name)
    schema = getattr(getattr(torch.ops, ops.REFERENCE), name).default._schema
    at = [argument.name for argument in schema.arguments].index(Spec._fields[0])

    def operator(*args):
        first, rest = args[:at], args[at:]
        fields = len(Spec._fields)
        results = function(*first, Spec(*rest[:fields]), *rest[fields:])
        if isinstance(results, torch.Tensor):
            return results
        return tuple(t if t is not None else empty for t, empty in zip(results, ops.FAKES[name](*args), strict=True))

    return operator


def _shard(along: str, style, name: str, module: nn.Module, mesh) -> None:
    """Shard the parameters and the grid of a KANLinear, for distribute_module."""
    if not isinstance(module, KANLinear):
        return

    def distributed(tensor: torch.Tensor, shape: str) -> torch.Tensor:
        return distribute_tensor(tensor, mesh, [_place(shape, along, Replicate())], src_data_rank=style.src_data_rank)

    for of, p in list(module.named_parameters(recurse=False)):
        module.register_parameter(of, nn.Parameter(distributed(p, _PARAMETERS[of]), requires_grad=p.requires_grad))
    module.register_buffer("grid", distributed(module.grid, "i."))


def _extend(style: Any, along: str, input_layout: Placement) -> None:
    """Make a parallel style of torch, for nn.Linear and nn.Embedding, accept KANLinear layers too."""
    original = style._apply

    @functools.wraps(original)
    def apply(self, module: nn.Module, device_mesh) -> nn.Module:
        if not isinstance(module, KANLinear):
            return original(self, module, device_mesh)
        enter = functools.partial(self._prepare_input_fn, self.input_layouts, (input_layout,))
        leave = functools.partial(self._prepare_output_fn, self.output_layouts, self.use_local_output)
        return distribute_module(module, device_mesh, functools.partial(_shard, along, self), enter, leave)

    style._apply = apply


for _name in ops.CONTRACTIONS:
    torch.library.impl(f"{ops.REFERENCE}::{_name}", "CompositeExplicitAutograd", _as_operator(_name))
_register()
_extend(ColwiseParallel, "o", Replicate())
_extend(RowwiseParallel, "i", Shard(-1))
