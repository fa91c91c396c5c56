"""Whether calling a module does more than the forward of its class; then fused calls must not bypass it."""

from torch import nn
from torch.nn.modules import module as _torch

any_global_hook = _torch._has_any_global_hook  # pyright: ignore[reportPrivateUsage] torch has no public question


def hooked(module: nn.Module) -> bool:
    """Whether calling the module does more than the forward of its class."""
    own = module.__dict__  # an attribute takes as long as a small layer
    before, after = own["_forward_pre_hooks"] or own["_backward_pre_hooks"], own["_forward_hooks"]
    return bool(before or after or own["_backward_hooks"] or "forward" in own or own.get("_compiled_call_impl"))


def altered(module: nn.Module) -> bool:
    """Whether calling the module does more than the forward of its class, or its parameters are parametrized."""
    return hooked(module) or "parametrizations" in module.__dict__["_modules"]
