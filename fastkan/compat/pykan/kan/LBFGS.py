"""kan.LBFGS: the optimizer, with pykan's arguments: torch's and tolerance_ys."""

from collections.abc import Callable

import torch

from ....network.train.lbfgs import LBFGS as Fast
from ....network.train.lbfgs_on_device import lbfgs

__all__ = ["LBFGS"]


class LBFGS(torch.optim.LBFGS):
    """torch.optim.LBFGS; with line_search_fn="strong_wolfe" the faster fastkan.network.train.lbfgs.

    tolerance_ys: smaller curvatures are ignored; always 1e-32 with "strong_wolfe".
    """

    def __init__(
        self, params, lr: float = 1, max_iter: int = 20, max_eval: int | None = None, tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9, tolerance_ys: float = 1e-32, history_size: int = 100,
        line_search_fn: str | None = None,
    ):  # fmt: skip
        super().__init__(params, lr, max_iter, max_eval, tolerance_grad, tolerance_change, history_size, line_search_fn)
        self._fast: Fast | None = None

    def step(self, closure: Callable):
        """Up to max_iter iterations; closure sets .grad and returns the loss. Returns the first loss."""
        group = self.param_groups[0]
        if group["line_search_fn"] != "strong_wolfe":
            return super().step(closure)
        parameters = [p for p in self._params if p.requires_grad]
        if self._fast is None or list(map(id, parameters)) != list(map(id, self._fast.params)):
            self._fast = lbfgs(parameters, history=group["history_size"])
        fast = self._fast
        for name in ("lr", "max_iter", "max_eval", "tolerance_grad", "tolerance_change"):
            setattr(fast, name, group[name])
        return fast.step(closure)
