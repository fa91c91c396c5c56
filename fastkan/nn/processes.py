"""Tensors and rows of several processes: parts of a DTensor together, and one sample of the rows of all.

Everything here but `is_sharded` is a collective where there are several processes: all of them must call it.
"""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def is_sharded(module: nn.Module) -> bool:
    """Whether a parameter of the module is a DTensor, or FSDP manages it, which may have gathered it for now."""
    return any(hasattr(p, "full_tensor") for p in module.parameters()) or any(map(by_fsdp, module.modules()))


def by_fsdp(module: nn.Module) -> bool:
    """Whether FSDP manages the module's own parameters."""
    return "_is_fsdp_managed_module" in module.__dict__


def unwrapped(cls: type[Any]) -> type[Any]:
    """The class of a module before fully_shard made a subclass of it."""
    from torch.distributed.fsdp import FSDPModule

    return next(of for of in cls.__mro__ if not issubclass(of, FSDPModule))


def whole(t: Tensor) -> Tensor:
    """t; of a DTensor all of it, in every process."""
    gather = getattr(t, "full_tensor", None)
    return t if gather is None else gather()


def placed_as(value: Tensor, like: Tensor) -> Tensor:
    """value, as a DTensor with the placements of `like` if that is one: of the value in the mesh's first process."""
    mesh: Any = getattr(like, "device_mesh", None)
    return value if mesh is None else _distributed(value, mesh, getattr(like, "placements"))  # noqa: B009


def from_first(value: Tensor, like: Tensor) -> Tensor:
    """value of the first process of the mesh on which `like` is; value itself if that is no DTensor."""
    mesh: Any = getattr(like, "device_mesh", None)
    if mesh is None:
        return value
    from torch.distributed.tensor import Replicate

    return _distributed(value, mesh, [Replicate()] * mesh.ndim).to_local()


def _distributed(value: Tensor, mesh: Any, placements: Any) -> Any:
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.detach().contiguous(), mesh, placements)


def checked_group(group: Any) -> "ProcessGroup | None":
    """The argument process_group; TypeError for anything but a group that this process is in, or None."""
    if group is not None and not (
        torch.distributed.is_available() and isinstance(group, torch.distributed.ProcessGroup)
    ):
        raise TypeError(
            f"process_group={group!r}: expected None or a torch.distributed.ProcessGroup with this process in it, such "
            "as torch.distributed.group.WORLD"
        )
    return group


@contextmanager
def together(group: "ProcessGroup | None", device: torch.device) -> Generator[None, None, None]:
    """A block that every process of the group runs by itself: if it raises in one, the others raise RuntimeError at its
    end, and none waits for it later."""
    if group is None:
        yield
        return
    error = None
    try:
        yield
    except Exception as raised:
        error = raised
    failed = gathered(torch.tensor([error is not None]), group, device).nonzero().flatten().tolist()
    if error is not None:
        raise error
    if failed:
        raise RuntimeError(f"processes {failed} of process_group raised an error, see there: nothing has changed here")


def gathered(t: Tensor, group: "ProcessGroup", device: torch.device) -> Tensor:
    """The tensors of all processes along dimension 0, in the order of the group; their lengths may differ."""
    dist = torch.distributed
    t = t.to("cpu" if dist.get_backend(group) == "gloo" else device).contiguous()
    counts = [torch.zeros(1, dtype=torch.long, device=t.device) for _ in range(dist.get_world_size(group))]
    dist.all_gather(counts, counts[0] + len(t), group=group)
    most = int(torch.cat(counts).max())
    padded = torch.cat([t, t.new_zeros(most - len(t), *t.shape[1:])])
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded, group=group)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)]).to(device)
