"""ParameterView: a parameter under another name, with its dimensions in another order."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..transforms import by_func


class ParameterView(Tensor):
    """A parameter with its dimensions in another order, for code that knows it so.

    A tensor that shares the parameter's memory and graph. What is done to it as a parameter is done to the parameter:
    `.data`, `.grad` and `.requires_grad` read and write that one's, hooks are its hooks, and an optimizer may take it.
    Made by view_of. Where the tensor is computed from others, by a parametrization or torch.nn.utils.prune, it can be
    read, and all else raises RuntimeError.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl
    _is_param = True  # isinstance(view, nn.Parameter)

    @property
    def _parameter(self) -> nn.Parameter:
        if isinstance(self._of, nn.Parameter):
            return self._of
        raise RuntimeError(
            f"a tensor of shape {list(self.shape)} is computed from other parameters: expected a parameter itself; "
            "change those it is computed from, or remove the parametrization"
        )

    def _shown(self, t: Tensor | None) -> Tensor | None:
        return None if t is None else t.permute(self._order)

    def _stored(self, t: Tensor) -> Tensor:
        """t in the order of the parameter."""
        t = torch.as_tensor(t, dtype=self.dtype, device=self.device)
        if t.shape != self.shape:
            raise ValueError(f"the value has shape {list(t.shape)}: expected {list(self.shape)}")
        return t.permute([self._order.index(d) for d in range(t.dim())])

    @property
    def data(self) -> Tensor:
        return self._shown(self._of.data)

    @data.setter
    def data(self, value: Tensor) -> None:
        self._parameter.data.copy_(self._stored(value))

    @property
    def grad(self) -> Tensor | None:
        return self._shown(self._parameter.grad)

    @grad.setter
    def grad(self, grad: Tensor | None) -> None:
        self._parameter.grad = None if grad is None else self._stored(grad).contiguous()

    @property
    def requires_grad(self) -> bool:
        return self._of.requires_grad

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        self._parameter.requires_grad_(wanted)

    def requires_grad_(self, requires_grad: bool = True) -> "ParameterView":
        self._parameter.requires_grad_(requires_grad)
        return self

    @property
    def is_leaf(self) -> bool:
        return self._of.is_leaf

    def retain_grad(self) -> None:
        """Nothing: a parameter keeps its gradient."""

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]):
        def reordered(grad: Tensor) -> Tensor | None:
            found = hook(self._shown(grad))
            return None if found is None else self._stored(found)

        return self._parameter.register_hook(reordered)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]):
        return self._parameter.register_post_accumulate_grad_hook(lambda _: hook(self))

    def __deepcopy__(self, memo: dict) -> Tensor:
        return self._shown(self._of.detach()).clone()

    def __reduce_ex__(self, protocol):
        return self._shown(self._of.detach()).__reduce_ex__(protocol)


def view_of(parameter: Tensor, *order: int) -> Tensor:
    """The parameter with its dimensions in that order; an ordinary view where it is traced, sharded or the like."""
    view = parameter.permute(order)
    if type(view) is not Tensor or torch.compiler.is_compiling() or by_func():
        return view
    view = view.as_subclass(ParameterView)
    view._of, view._order = parameter, order
    return view
