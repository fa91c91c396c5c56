"""Tracing and transforms of the present call: torch.compile, torch.jit.trace, torch.func, forward-mode AD, vmap.

Only this file uses torch's private functions for them. They are bound to names, not wrapped: a second Python call would
be a measurable share of a small layer's time.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

_functorch = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]  # torch's stubs lack it

# True while torch.jit.trace records (TensorBoard's add_graph and ONNX's older exporter use it).
by_jit = torch._C._get_tracing_state
# True inside grad, vmap, jvp, ... of torch.func.
by_func = torch._C._are_functorch_transforms_active
# True where autocast is enabled on any type of device.
is_any_autocast = torch._C._is_any_autocast_enabled
# Of the vmap inside autograd.grad(is_grads_batched=True).
add_batch_dim, remove_batch_dim = torch._add_batch_dim, torch._remove_batch_dim  # pyright: ignore[reportPrivateImportUsage]
_modes, _has_storage = torch._C._len_torch_dispatch_stack, torch._C._has_storage
_profiled = torch.autograd._profiler_enabled  # pyright: ignore[reportPrivateImportUsage]


def is_traced() -> bool:
    """Whether the call is recorded to run later with other values: then nothing may depend on a tensor's values."""
    return torch.compiler.is_compiling() or bool(by_jit())


def is_dual() -> bool:
    """Whether forward-mode AD is active."""
    return forward_ad._current_level >= 0


def is_transformed(*tensors: Tensor | None) -> bool:
    """Whether torch.func or forward-mode AD is active, or one of the tensors is a batch of is_grads_batched=True."""
    return by_func() or is_dual() or any(map(is_grad_batch, tensors))


def is_third_forward() -> bool:
    """Whether a third forward mode of torch.func is active inside two others: there Functions lose derivatives."""
    if not by_func():
        return False
    jvp = torch._C._functorch.TransformType.Jvp  # pyright: ignore[reportAttributeAccessIssue]
    return sum(interpreter.key() == jvp for interpreter in _functorch.get_interpreter_stack() or ()) > 2


def is_plain(tensors: Iterable[Tensor | None]) -> bool:
    """Whether a call has no other use for PyTorch's dispatcher than to find the kernel of the device.

    Nothing traces, transforms, profiles or intercepts it, and the tensors are ordinary ones.
    """
    if torch.compiler.is_compiling() or by_jit() or by_func() or _modes() or _profiled():
        return False
    if forward_ad._current_level >= 0:
        return False
    for t in tensors:
        if t is None:
            continue
        kind = type(t)
        # Transforms wrap tensors in others without storage, which may outlive them.
        if not (kind is Tensor or kind is nn.Parameter) or not _has_storage(t) or t.is_neg():
            return False
    return True


def is_grad_batch(value: object) -> bool:
    """Whether value is a tensor inside the vmap of autograd.grad(is_grads_batched=True)."""
    return isinstance(value, Tensor) and _functorch.is_legacy_batchedtensor(value)


def unwrapped(x: Tensor) -> Tensor:
    """The plain tensor within torch.func's transforms, detached, with the batch dimensions of vmap first."""
    while _functorch.is_functorch_wrapped_tensor(x):
        batch_dim = _functorch.maybe_get_bdim(x) if _functorch.is_batchedtensor(x) else 0
        x = _functorch.get_unwrapped(x)
        with torch._C._DisableFuncTorch():
            x = x.movedim(batch_dim, 0) if batch_dim > 0 else x
    with torch._C._DisableFuncTorch():
        return x.detach()


def grad_batch_level() -> int:
    """The nesting level of the vmap of autograd.grad(is_grads_batched=True)."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    return level
