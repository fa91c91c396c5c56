"""Setting parameters that are computed from others, by torch.nn.utils: parametrizations, weight_norm and prune."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized


@torch.no_grad()
def set_computed(module: nn.Module, name: str, value: Tensor) -> None:
    """Set the tensors that module's parameter `name` is computed from, such that it has this value.

    A parametrization needs a right_inverse. A pruned parameter gets the mask of the value, with a warning. Raises
    RuntimeError where this is impossible; the module is then unchanged.
    """
    hooks: list[Any] = [hook for hook in module.__dict__["_forward_pre_hooks"].values() if _name_of(hook) == name]
    if getattr(module, name).shape != value.shape:
        raise not_own(name)
    if is_parametrized(module, name):
        parts = module.get_submodule(f"parametrizations.{name}")
        before = {key: t.clone() for key, t in parts.state_dict().items()}
        try:
            # A parametrization may store this very tensor, with its memory and strides.
            setattr(module, name, value.clone(memory_format=torch.contiguous_format))
            computed = getattr(module, name)
        except (RuntimeError, ValueError, NotImplementedError) as reason:
            parts.load_state_dict(before)
            raise not_own(name) from reason
        if not _close(computed, value):
            parts.load_state_dict(before)
            raise not_own(name)
    elif len(hooks) == 1 and hasattr(module, f"{name}_orig") and hasattr(module, f"{name}_mask"):
        mask = value != 0
        if not torch.equal(mask, getattr(module, f"{name}_mask") != 0):
            warnings.warn(
                f"{name} was pruned by torch.nn.utils.prune, with a mask for other basis functions: all entries of "
                f"{name} that are not 0 now are in use again; prune once more",
                stacklevel=2,
            )
        getattr(module, f"{name}_orig").copy_(value)
        getattr(module, f"{name}_mask").copy_(mask)
        setattr(module, name, getattr(module, f"{name}_orig") * getattr(module, f"{name}_mask"))
    elif len(hooks) == 1 and hasattr(module, f"{name}_g") and hasattr(module, f"{name}_v"):  # weight_norm
        getattr(module, f"{name}_v").copy_(value)
        getattr(module, f"{name}_g").copy_(torch.norm_except_dim(value, 2, hooks[0].dim))
        setattr(module, name, value)
    else:
        raise not_own(name)


def _name_of(hook: object) -> str | None:
    """The name of the parameter that a hook of torch.nn.utils computes."""
    return getattr(hook, "_tensor_name", getattr(hook, "name", None))


def _close(computed: Tensor, value: Tensor) -> bool:
    rounding = 64 * torch.finfo(value.dtype).eps * float(value.abs().max())
    return bool(((computed - value).abs() <= rounding).all())


def not_own(name: str) -> RuntimeError:
    """The error where a plain parameter is needed."""
    return RuntimeError(
        f"{name} is computed from other parameters and cannot be set: expected a plain parameter; remove the "
        "parametrization first, by torch.nn.utils.parametrize.remove_parametrizations or the like. Nothing has changed"
    )
