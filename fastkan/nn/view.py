"""ParameterView: a parameter under another name, with its dimensions in another order."""

# Parts of torch are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _disabled_torch_function_impl  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType]
from torch.utils.hooks import RemovableHandle

from ..transforms import by_func


# Properties stand for attributes of Tensor, hence the ignored overrides.
class ParameterView(Tensor):
    """A parameter with its dimensions permuted, for code that expects that layout.

    It shares the parameter's memory and autograd graph. Operations on a parameter act on the original: `.data`, `.grad`
    and `.requires_grad` read and write the original's, hooks are registered there, and an optimizer may hold the view.
    Made by view_of. Of a tensor that is computed from others, by a parametrization or torch.nn.utils.prune, the view is
    read-only: anything else raises RuntimeError.
    """

    __torch_function__ = _disabled_torch_function_impl  # pyright: ignore[reportAssignmentType] torch's own way
    _is_param = True  # isinstance(view, nn.Parameter)
    _of: Tensor
    _order: tuple[int, ...]

    @property
    def _parameter(self) -> nn.Parameter:
        if isinstance(self._of, nn.Parameter):
            return self._of
        raise RuntimeError(
            f"a tensor of shape {list(self.shape)} is computed from other parameters: expected a plain parameter; "
            "change the tensors that it is computed from, or remove the parametrization"
        )

    def _permuted(self, t: Tensor) -> Tensor:
        return t.permute(self._order)

    def _in_order_of_parameter(self, t: Tensor) -> Tensor:
        t = torch.as_tensor(t, dtype=self.dtype, device=self.device)
        if t.shape != self.shape:
            raise ValueError(f"the value has shape {list(t.shape)}: expected {list(self.shape)}")
        return t.permute([self._order.index(d) for d in range(t.dim())])

    @property
    def data(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._permuted(self._of.data)

    @data.setter
    def data(self, value: Tensor) -> None:
        self._parameter.data.copy_(self._in_order_of_parameter(value))

    @property
    def grad(self) -> Tensor | None:
        grad = self._parameter.grad
        return None if grad is None else self._permuted(grad)

    @grad.setter
    def grad(self, grad: Tensor | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._parameter.grad = None if grad is None else self._in_order_of_parameter(grad).contiguous()

    @property
    def requires_grad(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._of.requires_grad

    @requires_grad.setter
    def requires_grad(self, requires_grad: bool) -> None:
        self._parameter.requires_grad_(requires_grad)

    def requires_grad_(self, requires_grad: bool = True) -> "ParameterView":  # pyright: ignore[reportIncompatibleMethodOverride]
        self._parameter.requires_grad_(requires_grad)
        return self

    @property
    def is_leaf(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._of.is_leaf

    def retain_grad(self) -> None:
        """Nothing: a parameter retains its gradient."""

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        def permuted(grad: Tensor) -> Tensor | None:
            result = hook(self._permuted(grad))
            return None if result is None else self._in_order_of_parameter(result)

        return self._parameter.register_hook(permuted)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        def of_view(_: Tensor) -> None:
            hook(self)

        return self._parameter.register_post_accumulate_grad_hook(of_view)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self._permuted(self._of.detach()).clone()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._permuted(self._of.detach()).__reduce_ex__(protocol)


def view_of(parameter: Tensor, *order: int) -> Tensor:
    """The parameter with its dimensions in that order; an ordinary view while traced, for a DTensor and the like."""
    view = parameter.permute(order)
    if type(view) is not Tensor or torch.compiler.is_compiling() or by_func():
        return view
    view = view.as_subclass(ParameterView)
    view._of, view._order = parameter, order  # pyright: ignore[reportPrivateUsage] the constructor
    return view
