"""kan.MLP: the baseline, with pykan's arguments and habits."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .... import science
from ..side_effects import numbers, on_pyplot, remember, remembering, seed_all, seen
from .LBFGS import LBFGS


class MLP(science.MLP):
    """fastkan.science.MLP; seeds global random numbers, remembers its last input, and draws by pyplot."""

    def __init__(
        self, width: Sequence[int], act: str = "silu", save_act: bool = True, seed: int = 0,
        device: torch.device | str = "cpu",
    ):  # fmt: skip
        super().__init__(width, act, save_act, seed, device)
        seed_all(seed)
        for pair in zip(width, width[1:], strict=False):  # the random numbers that pykan takes
            nn.Linear(*pair)
        self.save_act = save_act

    forward = remembering(science.MLP)

    def fit(
        self, dataset, opt="LBFGS", steps: int = 100, log: int = 1, lamb: float = 0.0, lamb_l1: float = 1.0,
        lamb_entropy: float = 2.0, loss_fn: Callable | None = None, lr: float = 1.0, batch: int = -1,
        metrics: Sequence[Callable] | None = None, in_vars=None, out_vars=None, beta: float = 3.0,
        device: torch.device | str = "cpu", reg_metric: str = "w", display_metrics: Sequence[str] | None = None,
        **options,
    ) -> dict:  # fmt: skip
        """fastkan.science.MLP.fit by pykan's arguments; in_vars, out_vars, beta and device do nothing, as in pykan."""
        results = super().fit(
            dataset, opt, steps, log, lamb, lamb_l1, lamb_entropy, loss_fn, lr, batch, metrics, reg_metric,
            display_metrics, **options,
        )  # fmt: skip
        if isinstance(dataset, dict) and dataset.get("test_input") is not None:
            remember(self, dataset["test_input"].to(self.device))
        return numbers(results)

    def plot(self, beta: float = 3.0, scale: float = 1.0, metric: str = "w", **options):
        """fastkan.science.MLP.plot, on a new figure of pyplot's."""
        return on_pyplot(super().plot(beta, scale, metric, **options))

    def tree(
        self, x: Tensor | None = None, in_var: Sequence | None = None, style: str = "tree", sym_th: float = 5e-2,
        sep_th: float = 1e-1, skip_sep_test: bool = False, verbose: bool = False,
    ):  # fmt: skip
        """fastkan.science.plot_tree of the model, on x or what it was last given, on a new figure of pyplot's."""
        x = self.cache_data if x is None else x
        return on_pyplot(science.plot_tree(self, x, in_var, style, sym_th, sep_th, skip_sep_test, verbose))


for _name in ("acts", "acts_scale", "wa_forward"):
    setattr(MLP, _name, seen(science.MLP, _name))
