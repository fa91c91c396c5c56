"""Layers to compare: those of `fastkan bench`, and KAN layers from PyPI if they are installed."""

import importlib
import importlib.metadata
from types import ModuleType

from torch import nn

from fastkan.measure import peers as shipped
from fastkan.measure.correctness import RANGE, Candidate, Operands, Unavailable
from fastkan.measure.peers import Peer
from fastkan.measure.provenance import version_of


def pykan(problem: Operands) -> Candidate:
    """pykan's KANLayer with a fixed spline scale of 1, so that it has the same trainable parameters as the others."""
    c = problem.case
    layer = installed("kan.KANLayer", "pykan").KANLayer(
        c.in_features, c.out_features, num=c.grid_size, k=c.degree, grid_range=list(RANGE), sp_trainable=False
    )
    _fill(layer.coef, problem.coef.transpose(1, 2))
    _fill(layer.scale_base, problem.base_weight)
    layer.scale_sp.data.fill_(1)
    nn.Module.to(layer, problem.x.device, c.dtype)  # its own `to` takes a device only
    return Candidate(
        lambda x: layer(x)[0], problem.x, problem.grad_out, (layer.coef, layer.scale_base),
        lambda: (layer.coef.grad.transpose(1, 2), layer.scale_base.grad), (layer.grid, layer.mask, layer.scale_sp),
    )  # fmt: skip


def inkan(problem: Operands) -> Candidate:
    """inkan's KANLayer with default settings: it compiles its basis with torch.compile."""
    c = problem.case
    _cubic(problem)
    layer = installed("inkan", "inkan").KANLayer(c.in_features, c.out_features, grid_size=c.grid_size, grid_range=RANGE)
    layer.to(problem.x.device, c.dtype)
    splines = c.in_features * c.functions
    _fill(layer.weight[:, :splines], problem.coef.permute(2, 0, 1).flatten(1))
    _fill(layer.weight[:, splines:], problem.base_weight.T)

    def gradients():
        coef = layer.weight.grad[:, :splines].view(c.out_features, c.in_features, c.functions)
        return coef.permute(1, 2, 0), layer.weight.grad[:, splines:].T

    return Candidate(layer, problem.x, problem.grad_out, (layer.weight,), gradients, (layer.grid_starts,))


def flashkan(problem: Operands) -> Candidate:
    """flashkan's KANLayer with default settings: it compiles its basis with torch.compile."""
    c = problem.case
    _cubic(problem)
    layer = installed("flashkan", "flashkan").KANLayer(
        c.in_features, c.out_features, grid_size=c.grid_size, grid_range=RANGE
    )
    layer.to(problem.x.device, c.dtype)
    _fill(layer.spline_weight, problem.coef.permute(2, 0, 1))
    _fill(layer.base_weight, problem.base_weight.T)
    return Candidate(
        layer, problem.x, problem.grad_out, (layer.spline_weight, layer.base_weight),
        lambda: (layer.spline_weight.grad.permute(1, 2, 0), layer.base_weight.grad.T), (layer.grid_starts,),
    )  # fmt: skip


def installed(name: str, distribution: str) -> ModuleType:
    try:
        importlib.metadata.version(distribution)
        return importlib.import_module(name)
    except importlib.metadata.PackageNotFoundError:
        raise Unavailable(f"not installed: pip install {distribution}") from None
    except ImportError as error:
        raise Unavailable(f"does not import: {error}") from error


def _cubic(problem: Operands) -> None:
    if problem.case.degree != 3:
        raise Unavailable("cubic only")


def _fill(parameter, value) -> None:
    if parameter.shape != value.shape:
        raise Unavailable(f"has another layout than was expected: {list(parameter.shape)}, not {list(value.shape)}")
    parameter.data.copy_(value)


INSTALLED = ("pykan", "inkan", "flashkan")

PEERS: dict[str, Peer] = {
    **shipped.PEERS,
    "pykan": Peer("pykan", pykan),
    "inkan": Peer("inkan, compiled", inkan),
    "flashkan": Peer("flashkan, compiled", flashkan),
}


ON_GPU: dict[str, Peer] = {**PEERS, "triton": Peer("fastkan triton", shipped.fastkan("triton"))}


def versions() -> dict[str, str]:
    """Versions of the installed peers."""
    return {name: version_of(name) for name in INSTALLED}
