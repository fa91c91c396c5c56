"""kan.MLP: a baseline multilayer perceptron, with pykan's arguments and side effects."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .... import science
from ..side_effects import cache_input, caching_input, lazy_activations, on_pyplot, pykan_results, seed_all
from .LBFGS import LBFGS


class MLP(science.MLP):
    """fastkan.science.MLP that seeds the global generators, caches its last input, and draws with pyplot."""

    last_forward: tuple[Tensor, int | None, list[int]] | None = None

    def __init__(
        self, width: Sequence[int], act: str = "silu", save_act: bool = True, seed: int = 0,
        device: torch.device | str = "cpu",
    ):  # fmt: skip
        super().__init__(width, act, save_act, seed, device)
        seed_all(seed)
        for pair in zip(width, width[1:], strict=False):  # draw as many random numbers as pykan
            nn.Linear(*pair)
        self.save_act = save_act

    forward = caching_input(science.MLP.forward)

    def fit(
        self, dataset, opt="LBFGS", steps: int = 100, log: int = 1, lamb: float = 0.0, lamb_l1: float = 1.0,
        lamb_entropy: float = 2.0, loss_fn: Callable | None = None, lr: float = 1.0, batch: int = -1,
        metrics: Sequence[Callable] | None = None, in_vars=None, out_vars=None, beta: float = 3.0,
        device: torch.device | str = "cpu", reg_metric: str = "w", display_metrics: Sequence[str] | None = None,
        **options,
    ) -> dict:  # fmt: skip
        """fastkan.science.MLP.fit with pykan's arguments; as in pykan it ignores in_vars, out_vars, beta, device."""
        results = super().fit(
            dataset, opt, steps, log, lamb, lamb_l1, lamb_entropy, loss_fn, lr, batch, metrics, reg_metric,
            display_metrics, **options,
        )  # fmt: skip
        if isinstance(dataset, dict) and dataset.get("test_input") is not None:
            cache_input(self, dataset["test_input"].to(self.device))
        return pykan_results(results)

    def plot(self, beta: float = 3.0, scale: float = 1.0, metric: str = "w", **options):
        """fastkan.science.MLP.plot on a new pyplot figure."""
        return on_pyplot(super().plot(beta, scale, metric, **options))

    def tree(
        self, x: Tensor | None = None, in_var: Sequence | None = None, style: str = "tree", sym_th: float = 5e-2,
        sep_th: float = 1e-1, skip_sep_test: bool = False, verbose: bool = False,
    ):  # fmt: skip
        """fastkan.science.plot_tree of the model, on x or cache_data, on a new pyplot figure."""
        x = self.cache_data if x is None else x
        return on_pyplot(
            science.plot_tree(self, cast(Tensor, x), in_var, style, sym_th, sep_th, skip_sep_test, verbose)
        )


for _name in ("acts", "acts_scale", "wa_forward"):
    setattr(MLP, _name, lazy_activations(science.MLP, _name))
