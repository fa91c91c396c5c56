"""How the operators work on DTensors, spread over processes, and how torch's parallel styles spread a KANLinear.

An operator is a sum over rows n and inputs i of terms for every output o (see reference.py), so it may be cut along any
of the three: tensors that have this dimension are sharded, others are whole where they are read and partial sums where
they are written. Column-wise parallelism cuts the outputs, row-wise the inputs, data parallelism the rows.

Imported when torch.distributed.tensor is.
"""

import functools
from collections.abc import Callable

import torch
from torch import nn
from torch.distributed.tensor import Partial, Placement, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.experimental import register_sharding
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

from . import ops, reference
from .nn import KANLinear
from .spec import Spec

# The dimensions of arguments, results and parameters by their letters, others by a dot.
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


def _ways(name: str, *values) -> list[tuple[list, list]]:
    """The placements of results and arguments for every way to cut an operator, as register_sharding asks for them."""
    schema = getattr(torch.ops.fastkan, name).default._schema
    given = [
        argument.name if value is not None else "" for argument, value in zip(schema.arguments, values, strict=True)
    ]

    def cut(along: str) -> tuple[list, list]:
        # The bias is added once, behind the sum over the inputs: each process has a part of it.
        otherwise = {"bias": Partial()} if along == "i" else {}
        arguments = [
            _place(_ARGUMENTS[of], along, otherwise.get(of, Replicate())) if of in _ARGUMENTS else None for of in given
        ]
        return [_place(shape, along, Partial()) for shape in _RESULTS[name]], arguments

    whole = [Replicate() for _ in _RESULTS[name]], [Replicate() if of in _ARGUMENTS else None for of in given]
    return [whole, *map(cut, "io" if name == "edge_moments" else "nio")]  # moments are means over the rows


def _register() -> None:
    for name in ops.CONTRACTIONS:
        packets = [getattr(getattr(torch.ops, namespace), name) for namespace in ops.NAMESPACES]
        if f"{name}{ops.TF32}" in ops.GPU_SCHEMAS:
            packets.append(getattr(torch.ops.fastkan, f"{name}{ops.TF32}"))
        register_sharding([packet.default for packet in packets])(functools.partial(_ways, name))


def _as_operator(name: str) -> Callable:
    """A function of the reference as the operator of that name is called."""
    function = getattr(reference, name)
    schema = getattr(getattr(torch.ops, ops.REFERENCE), name).default._schema
    at = [argument.name for argument in schema.arguments].index(Spec._fields[0])

    def operator(*args):
        first, rest = args[:at], args[at:]
        fields = len(Spec._fields)
        found = function(*first, Spec(*rest[:fields]), *rest[fields:])
        if isinstance(found, torch.Tensor):
            return found
        return tuple(t if t is not None else empty for t, empty in zip(found, ops.FAKES[name](*args), strict=True))

    return operator


def _spread(along: str, style, name: str, module: nn.Module, mesh) -> None:
    """Make the parameters and the grid of a KANLinear DTensors, for distribute_module."""
    if not isinstance(module, KANLinear):
        return

    def spread(tensor: torch.Tensor, shape: str) -> torch.Tensor:
        return distribute_tensor(tensor, mesh, [_place(shape, along, Replicate())], src_data_rank=style.src_data_rank)

    for of, p in list(module.named_parameters(recurse=False)):
        module.register_parameter(of, nn.Parameter(spread(p, _PARAMETERS[of]), requires_grad=p.requires_grad))
    module.register_buffer("grid", spread(module.grid, "i."))


def _take_layers(style: type, along: str, wanted: Placement) -> None:
    """Let a style of torch's take KANLinear layers too, beside the nn.Linear and nn.Embedding that it knows."""
    known = style._apply

    @functools.wraps(known)
    def apply(self, module: nn.Module, device_mesh) -> nn.Module:
        if not isinstance(module, KANLinear):
            return known(self, module, device_mesh)
        enter = functools.partial(self._prepare_input_fn, self.input_layouts, (wanted,))
        leave = functools.partial(self._prepare_output_fn, self.output_layouts, self.use_local_output)
        return distribute_module(module, device_mesh, functools.partial(_spread, along, self), enter, leave)

    style._apply = apply


for _name in ops.CONTRACTIONS:
    torch.library.impl(f"{ops.REFERENCE}::{_name}", "CompositeExplicitAutograd", _as_operator(_name))
_register()
_take_layers(ColwiseParallel, "o", Replicate())
_take_layers(RowwiseParallel, "i", Shard(-1))
