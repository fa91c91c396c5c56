"""Whether calling a module does more than the forward of its class; then fused calls must not bypass it."""

from torch import nn
from torch.nn.modules.module import _has_any_global_hook as any_global_hook  # noqa: F401


def hooked(module: nn.Module) -> bool:
    """Whether a call of the module does more than the forward of its class."""
    own = module.__dict__  # an attribute takes as long as a small layer
    before, after = own["_forward_pre_hooks"] or own["_backward_pre_hooks"], own["_forward_hooks"]
    return bool(before or after or own["_backward_hooks"] or "forward" in own or own.get("_compiled_call_impl"))


def altered(module: nn.Module) -> bool:
    """Whether a call of the module does more than the forward of its class, or its parameters are computed."""
    return hooked(module) or "parametrizations" in module._modules
