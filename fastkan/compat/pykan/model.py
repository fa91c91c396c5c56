"""MultKAN: fastkan.KAN with the arguments, side effects and results of pykan's class of that name."""

import os
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...network import KAN
from ...network.formulas import expression
from ...network.layers.library import SymbolicFunction, add_symbolic
from ...nn.module import computed
from ...science import plot_tree
from . import checkpoint
from .history import Steps
from .layer import EdgeLayer
from .library import SYMBOLIC_LIB
from .plain import SET, fixed, forget, moving, noted
from .side_effects import (
    cache_input,
    caching_input,
    check_unchanged,
    lazy_activations,
    on_pyplot,
    pykan_results,
    seed_all,
)

# Attributes that pykan's forward pass sets; computed here when they are first read.
ACTIVATIONS = (
    "acts", "acts_premult", "spline_preacts", "spline_postacts", "spline_postsplines", "acts_scale",
    "acts_scale_spline", "edge_actscale", "subnode_actscale",
)  # fmt: skip
SCORES = (
    "node_scores", "edge_scores", "subnode_scores", "node_scores_all", "edge_scores_all", "subnode_scores_all",
)  # fmt: skip


class MultKAN(KAN):
    """A KAN with the constructor, methods and side effects of pykan's MultKAN (0.2.8).

    Args: KAN's, with pykan's names and order, and
        auto_save, ckpt_path: save the state after every step in this folder, in pykan's format; the folder's history
            is overwritten, unless first_init=False. state_id, round: the number of the current state.
        seed: also seeds the global generators of torch, numpy and random, as in pykan.
        save_act: no effect: activations are computed when they are read.
        options: of KAN that pykan does not have: dtype, backend, family, and outside, by default "zero", as in pykan.

    cache_data is a reference to the input of the last forward pass; acts, spline_postacts, edge_actscale and the
    others are computed from it, with the parameters at that time, when they are read.

    act_fun[l](x) returns pykan's tuple: the sums, and the input, the value and the spline of every edge. pykan's
    attributes may be set: activations and scores until the next forward pass; grid, k, mult_homo, base_fun_name, round
    and state_id as notes that change nothing; device moves the model, grid_eps and grid_range hold for all layers.
    """

    _numeric_layer = EdgeLayer

    last_forward: tuple[Tensor, int | None, list[int]] | None = None

    def __init__(
        self,
        width: Sequence | None = None,
        grid: int | Sequence[int] = 3,
        k: int | Sequence[int] = 3,
        mult_arity: int | Sequence[Sequence[int]] = 2,
        noise_scale: float = 0.3,
        scale_base_mu: float = 0.0,
        scale_base_sigma: float = 1.0,
        base_fun: str | Callable[[Tensor], Tensor] = "silu",
        symbolic_enabled: bool = True,
        affine_trainable: bool = False,
        grid_eps: float = 0.02,
        grid_range: Sequence[float] = (-1, 1),
        sp_trainable: bool = True,
        sb_trainable: bool = True,
        seed: int = 1,
        save_act: bool = True,
        sparse_init: bool = False,
        auto_save: bool = True,
        first_init: bool = True,
        ckpt_path: str | os.PathLike = "./model",
        state_id: int = 0,
        round: int = 0,
        device: torch.device | str = "cpu",
        **options,
    ):
        seed_all(seed)
        if options.get("family", "bspline") == "bspline":
            options.setdefault("outside", "zero")
        super().__init__(
            cast(Sequence, width), grid, k, mult_arity, noise_scale, scale_base_mu, scale_base_sigma, base_fun,
            symbolic_enabled, affine_trainable, grid_eps, (grid_range[0], grid_range[1]), sp_trainable, sb_trainable,
            seed, sparse_init, device, **options,
        )  # fmt: skip
        for layer in self.act_fun:  # draw as many random numbers as pykan, so that later ones are the same
            torch.rand(layer.num + 1, layer.in_dim, layer.out_dim)
            torch.rand(layer.in_dim, layer.out_dim)
        self.save_act, self.ckpt_path, self._number = save_act, ckpt_path, f"{round}.{state_id}"
        if auto_save and first_init:
            print(f"checkpoint directory created: {ckpt_path}")
            self.history = Steps.new(ckpt_path)
        elif auto_save:
            Steps(ckpt_path).branch(self._number).attach(self)

    @classmethod
    def from_kan(cls, model: KAN, ckpt_path: str | os.PathLike = "./model", number: str = "0.0") -> "MultKAN":
        """A MultKAN that shares the parameters of a KAN, without a history."""
        new = cls.__new__(cls)
        new.__dict__.update(model.__dict__)
        layers = nn.ModuleList(EdgeLayer.of(layer) for layer in model.act_fun)
        new._modules = {**model._modules, "act_fun": layers.train(model.training)}
        new.save_act, new.ckpt_path, new._number, new.history = True, ckpt_path, number, None
        return new

    forward = caching_input(KAN.forward)

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"last_forward": None, SET: {}}  # a copy has parameters of its own

    def reg(self, *args, x: Tensor | None = None, **options) -> Tensor:
        """KAN.reg; without x on the input of the last forward pass, with the current parameters."""
        if x is None:
            check_unchanged(self)
        return super().reg(*args, x=x, **options)

    get_reg = reg

    # Attributes

    @property
    def auto_save(self) -> bool:
        """Whether the state after every step is saved in ckpt_path. May be set."""
        return self.history is not None

    @auto_save.setter
    def auto_save(self, value: bool) -> None:
        if value and self.history is None:
            Steps(self.ckpt_path).branch(self._number).attach(self)
        elif not value:
            self._number, self.history = self._now, None

    @property
    def _now(self) -> str:
        return (self.history and self.history.now) or self._number

    @property
    def round(self) -> int:
        return int(self._now.split(".")[0])

    @property
    def state_id(self) -> int:
        return int(self._now.split(".")[1])

    @property
    def base_fun_name(self):
        """The base function, as given to the constructor."""
        return self.base_fun

    @property
    def mult_homo(self) -> bool:
        """False: the arities are lists, one number per multiplication node."""
        return False

    # Training

    def fit(
        self,
        dataset,
        opt: str | type | Callable = "LBFGS",
        steps: int = 100,
        log: int = 1,
        lamb: float = 0.0,
        lamb_l1: float = 1.0,
        lamb_entropy: float = 2.0,
        lamb_coef: float = 0.0,
        lamb_coefdiff: float = 0.0,
        update_grid: bool = True,
        grid_update_num: int = 10,
        loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
        lr: float = 1.0,
        start_grid_update_step: int = -1,
        stop_grid_update_step: int = 50,
        batch: int = -1,
        metrics: Sequence[Callable] | None = None,
        save_fig: bool = False,
        in_vars: Sequence | None = None,
        out_vars: Sequence | None = None,
        beta: float = 3.0,
        save_fig_freq: int = 1,
        img_folder: str | os.PathLike = "./video",
        singularity_avoiding: bool = False,
        y_th: float = 1000.0,
        reg_metric: str = "edge_forward_spline_n",
        display_metrics: Sequence[str] | None = None,
        **options,
    ) -> dict:
        """KAN.fit with pykan's arguments, in its order, and pykan's results.

        save_fig: draw the network as img_folder/step.jpg after every save_fig_freq-th step, with in_vars, out_vars and
        beta of plot. options: of KAN.fit that pykan does not have; by default lamb_base=0 and inwards=1, as in pykan.
        As in pykan, plot, prune and the other methods then use the test inputs.
        """
        if save_fig:
            options["callback"] = _plot_steps(
                self, dataset, img_folder, save_fig_freq, options.get("callback"), in_vars, out_vars, beta
            )
        options = {"lamb_base": 0.0, "inwards": 1.0, **options}
        results = super().fit(
            dataset, opt, steps, log, lamb, lamb_l1, lamb_entropy, lamb_coef, lamb_coefdiff, update_grid,
            grid_update_num, loss_fn, lr, start_grid_update_step, stop_grid_update_step, batch, metrics,
            singularity_avoiding, y_th, reg_metric, display_metrics, **options,
        )  # fmt: skip
        if isinstance(dataset, dict) and dataset.get("test_input") is not None:
            cache_input(self, dataset["test_input"].to(self.device))
        return pykan_results(results)

    # What matters

    def attribute(
        self, l: int | None = None, i: int | None = None, out_score: Tensor | None = None, plot: bool = True
    ) -> Tensor | None:
        """KAN.attribute; with l and i also a bar chart on a new pyplot figure, unless plot=False."""
        scores = super().attribute(l, i, out_score)
        forget(self, SCORES)
        if plot and scores is not None and i is not None:
            import matplotlib.pyplot as plt

            plt.figure(figsize=(len(scores), 3))
            plt.bar(range(len(scores)), scores.cpu().numpy())
            plt.xticks(range(len(scores)))
        return scores

    def prune_input(self, threshold: float = 1e-2, active_inputs: list[int] | None = None, **options) -> "MultKAN":
        """KAN.prune_input; prints which inputs it keeps."""
        pruned = super().prune_input(threshold, active_inputs, **options)
        if active_inputs is None:
            print("keep:", [column in pruned.input_id.tolist() for column in self.input_id.tolist()])
        return pruned

    # Formulas

    def fix_symbolic(self, l: int, i: int, j: int, fun_name, *args, **options) -> Tensor | None:
        """KAN.fix_symbolic; a lambda is added to the library as anonymous_0, anonymous_1, ..."""
        return super().fix_symbolic(l, i, j, named(fun_name), *args, **options)

    def suggest_symbolic(
        self, l: int, i: int, j: int, a_range=(-10, 10), b_range=(-10, 10), lib=None, topk: int = 5,
        verbose: bool = True, r2_loss_fun: Callable | None = None, c_loss_fun: Callable | None = None,
        weight_simple: float = 0.8,
    ) -> tuple[str, tuple, float, float]:  # fmt: skip
        """KAN.suggest_symbolic; returns the function as pykan's tuple, and takes loss functions of numpy arrays."""
        losses = {"r2_loss_fun": r2_loss_fun, "c_loss_fun": c_loss_fun}
        losses = {name: _on_arrays(fun) for name, fun in losses.items() if fun is not None}
        name, _, r2, complexity = super().suggest_symbolic(
            l, i, j, a_range, b_range, lib, topk, verbose, weight_simple=weight_simple, **losses
        )
        return name, SYMBOLIC_LIB[name], r2, complexity

    def auto_symbolic(
        self, a_range=(-10, 10), b_range=(-10, 10), lib=None, verbose: int = 1, weight_simple: float = 0.8,
        r2_threshold: float = 0.0,
    ):  # fmt: skip
        """KAN.auto_symbolic; as in pykan every edge gets a function, by the default of r2_threshold."""
        return super().auto_symbolic(a_range, b_range, lib, verbose, weight_simple, r2_threshold)

    def symbolic_formula(
        self, var: Sequence | None = None, normalizer: Sequence | None = None,
        output_normalizer: Sequence | None = None, *args, **options,
    ) -> tuple[list, list]:  # fmt: skip
        """KAN.symbolic_formula; symbolic_acts and symbolic_acts_premult then use the same variables."""
        formulas = super().symbolic_formula(var, normalizer, output_normalizer, *args, **options)
        self._formula_variables = var, normalizer, output_normalizer
        return formulas

    @computed
    def symbolic_acts(self) -> list[list]:
        """SymPy expressions of all nodes, layer by layer from the inputs."""
        return expression.node_formulas(self, *getattr(self, "_formula_variables", ()))[0]

    @computed
    def symbolic_acts_premult(self) -> list[list]:
        """SymPy expressions of all subnodes, layer by layer after the inputs."""
        return expression.node_formulas(self, *getattr(self, "_formula_variables", ()))[1]

    # Plots

    def plot(
        self, folder: str | os.PathLike | None = None, beta: float = 3.0, metric: str = "backward", scale: float = 0.5,
        tick: bool = False, sample: bool = False, in_vars: Sequence | None = None, out_vars: Sequence | None = None,
        title: str | None = None, varscale: float = 1.0, **options,
    ):  # fmt: skip
        """KAN.plot on a new pyplot figure, for plt.savefig and plt.show.

        Writes only kan.pdf, and only if a folder is given; pykan writes a picture of every edge.
        """
        return on_pyplot(
            super().plot(folder, beta, metric, scale, tick, sample, in_vars, out_vars, title, varscale, **options)
        )

    def get_fun(self, l: int, i: int, j: int):
        """KAN.get_fun as numpy arrays, also drawn on a new pyplot figure."""
        import matplotlib.pyplot as plt

        x, y = (values.numpy() for values in super().get_fun(l, i, j))
        plt.figure(figsize=(3, 3))
        plt.plot(x, y, marker="o")
        return x, y

    def tree(
        self, x: Tensor | None = None, in_var: Sequence | None = None, style: str = "tree", sym_th: float = 5e-2,
        sep_th: float = 1e-1, skip_sep_test: bool = False, verbose: bool = False,
    ):  # fmt: skip
        """fastkan.science.plot_tree of the model, on x or cache_data, on a new pyplot figure."""
        x = self.cache_data if x is None else x
        return on_pyplot(plot_tree(self, cast(Tensor, x), in_var, style, sym_th, sep_th, skip_sep_test, verbose))

    # Files

    def saveckpt(self, path: str | os.PathLike = "model") -> None:
        """Write path_config.yml, path_state and path_cache_data, which pykan reads as well."""
        checkpoint.save_checkpoint(self, path)

    @classmethod
    def loadckpt(cls, path: str | os.PathLike = "model") -> "MultKAN":
        """Load a model from these three files, by pykan or saveckpt; its steps start a new round, as in pykan."""
        model, config = checkpoint.read(path)
        number = f"{int(config.get('round', 0)) + 1}.{config.get('state_id', 0)}"
        new = cls.from_kan(model, config.get("ckpt_path", "./model"), number)
        new.auto_save = bool(config.get("auto_save", False))
        return new

    @classmethod
    def load(cls, path, **options) -> "MultKAN":
        """Load a model from a file by KAN.save."""
        return cls.from_kan(KAN.load(path, **options))

    def checkout(self, model_id: str) -> "MultKAN":
        """KAN.checkout; with auto_save=False from the files in ckpt_path."""
        return super().checkout(model_id) if self.auto_save else Steps(self.ckpt_path).checkout(model_id)

    def rewind(self, model_id: str) -> "MultKAN":
        """KAN.rewind; with auto_save=False from the files in ckpt_path."""
        if not self.auto_save:
            return self.checkout(model_id).rewind(model_id)
        return super().rewind(model_id)

    def speed(self, compile: bool = False):
        """KAN.speed; sets auto_save=False, as in pykan."""
        self.auto_save = False
        return super().speed(compile)


for _name in ACTIVATIONS:
    setattr(MultKAN, _name, lazy_activations(KAN, _name))
for _name in (*ACTIVATIONS, *SCORES):
    setattr(MultKAN, _name, noted(MultKAN, _name, lambda model: model.last_forward))
for _name in ("grid", "k", "mult_homo", "base_fun_name", "round", "state_id"):
    setattr(MultKAN, _name, noted(MultKAN, _name))
MultKAN.depth, MultKAN.device = fixed(KAN, "depth"), moving(KAN)  # type: ignore[assignment]


def named(function: str | SymbolicFunction | Callable) -> str | SymbolicFunction | Callable:
    """The function itself, or a lambda as an entry anonymous_N of the library."""
    if isinstance(function, str | SymbolicFunction) or getattr(function, "__name__", "<lambda>") != "<lambda>":
        return function
    count = sum(name.startswith("anonymous_") for name in SYMBOLIC_LIB)
    return add_symbolic(f"anonymous_{count}", function)


def _on_arrays(function: Callable) -> Callable[[Tensor], Tensor]:
    """A function of tensors that calls this one with numpy arrays."""
    return lambda values: torch.as_tensor(function(values.cpu().numpy()), dtype=values.dtype, device=values.device)


def _plot_steps(
    model: MultKAN, dataset, folder: str | os.PathLike, every: int, callback: Callable | None, in_vars, out_vars,
    beta: float,
) -> Callable:  # fmt: skip
    """A callback of fit that draws the network after every `every`-th step, then calls `callback`."""
    os.makedirs(folder, exist_ok=True)
    x = dataset["test_input"] if isinstance(dataset, dict) else None

    def draw(step: int, results: dict) -> Any:
        if step % every == 0:
            KAN.plot(
                model, beta=beta, in_vars=in_vars, out_vars=out_vars, title=f"Step {step}", x=x,
                path=os.path.join(folder, f"{step}.jpg"),
            )  # fmt: skip
        return None if callback is None else callback(step, results)

    return draw


Steps.model_class = MultKAN
