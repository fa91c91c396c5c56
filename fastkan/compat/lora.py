"""LoRA on KANLinear for PEFT (github.com/huggingface/peft): low-rank changes of coefficients and base weights.

    config = peft.LoraConfig(target_modules=["up", "down"])
    config._register_custom_module(lora_modules())
    model = peft.get_peft_model(model, config)

coef and base_weight, as a matrix of I (F + 1) rows and O columns, change by (alpha / r) A B. The functions of x times A
are a KANLinear of r outputs on the layer's grid, B is an nn.Linear. So a merged layer is a KANLinear as before.

Source: Hu et al., LoRA (arXiv 2106.09685).
"""

# PEFT is optional, and parts of it and of torch are untyped.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportUntypedBaseClass=false
# pyright: reportAttributeAccessIssue=false

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn

from ..nn import KANLinear


@functools.cache
def lora_modules() -> dict[type[nn.Module], type[nn.Module]]:
    """{KANLinear: its LoRA layer}, the mapping that LoraConfig._register_custom_module takes. Needs PEFT."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import check_adapters_to_merge

    class LoraKANLinear(nn.Module, LoraLayer):
        """A KANLinear with adapters; lora_dropout acts on the r numbers before B, since functions of 0 are not 0."""

        def __init__(self, base_layer: Any, adapter_name: str, r: int = 0, lora_alpha: int = 1, **kwargs: Any):
            super().__init__()
            options = {name: value for name, value in kwargs.items() if name not in ("config", *_FIELDS)}
            LoraLayer.__init__(self, base_layer, **options)
            if base_layer.spline_scale is not None:
                raise ValueError(
                    "enable_standalone_scale_spline=True: expected a KANLinear without spline_scale for LoRA"
                )
            self._active_adapter = adapter_name
            self.update_layer(adapter_name, r, lora_alpha, **kwargs)

        def _get_in_out_features(self, module: Any) -> tuple[int, int]:
            return module.in_features, module.out_features

        def update_layer(self, adapter_name: str, r: int, lora_alpha: int, config: Any = None, **kwargs: Any) -> None:
            """Add an adapter of rank r."""
            asked = {name: kwargs.get(name, getattr(config, name, default)) for name, default in _FIELDS.items()}
            if r <= 0:
                raise ValueError(f"r={r}: expected at least 1")
            if asked["init_lora_weights"] not in (True, False) or asked["use_dora"] or asked["lora_bias"]:
                raise ValueError(f"{asked}: expected init_lora_weights True or False, without use_dora and lora_bias")
            layer: KANLinear = self.get_base_layer()
            self.r[adapter_name], self.lora_alpha[adapter_name] = r, lora_alpha
            self.use_rslora[adapter_name], self.use_dora[adapter_name] = asked["use_rslora"], False
            self.lora_bias[adapter_name] = False
            self.scaling[adapter_name] = lora_alpha / (math.sqrt(r) if asked["use_rslora"] else r)
            dropout = asked["lora_dropout"]
            self.lora_dropout[adapter_name] = nn.Dropout(dropout) if dropout else nn.Identity()
            self.lora_A[adapter_name] = _first_factor(layer, r)
            coef = layer.coef
            second = nn.Linear(r, layer.out_features, bias=False, device=coef.device, dtype=coef.dtype)
            if asked["init_lora_weights"]:
                nn.init.zeros_(second.weight)
            self.lora_B[adapter_name] = second
            self.set_adapter(self.active_adapters)

        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            """The layer, plus scaling B A(x) for every active adapter that is not merged."""
            if self.disable_adapters and self.merged:
                self.unmerge()
            y = self.base_layer(x, *args, **kwargs)
            if self.disable_adapters or self.merged:
                return y
            for name in self.active_adapters:
                if name in self.lora_A:
                    hidden = self.lora_dropout[name](self.lora_A[name](x))
                    y = y + self.lora_B[name](hidden).to(y.dtype) * self.scaling[name]
            return y

        @torch.no_grad()
        def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
            """Add the changes to the layer's parameters; safe_merge: ValueError if they are not finite."""
            for name in check_adapters_to_merge(self, adapter_names):
                if name in self.lora_A:
                    deltas = self._deltas(name)
                    if safe_merge and not all(bool(delta.isfinite().all()) for _, delta in deltas):
                        raise ValueError(f"the adapter {name!r} is not finite: the layer is unchanged")
                    for parameter, delta in deltas:
                        parameter += delta
                    self.merged_adapters.append(name)

        @torch.no_grad()
        def unmerge(self) -> None:
            """Subtract them again."""
            while self.merged_adapters:
                name = self.merged_adapters.pop()
                for parameter, delta in self._deltas(name) if name in self.lora_A else ():
                    parameter -= delta

        def _deltas(self, name: str) -> list[tuple[Tensor, Tensor]]:
            """The layer's parameters with what the adapter adds to them."""
            layer, first, second = self.get_base_layer(), self.lora_A[name], self.lora_B[name].weight
            if not torch.equal(layer.exact_knots, first.exact_knots):
                raise ValueError(
                    f"the adapter {name!r} has another grid than its layer: expected the same, to merge them"
                )
            pairs = [(layer.coef, first.coef), (layer.base_weight, first.base_weight)]
            scaling = self.scaling[name]
            return [(p, (scaling * (a @ second.T)).to(p.dtype)) for p, a in pairs if p is not None and a is not None]

        def __repr__(self) -> str:
            return f"lora.{super().__repr__()}"

    return {KANLinear: LoraKANLinear}


# Of LoraConfig, with their defaults.
_FIELDS: dict[str, Any] = {
    "lora_dropout": 0.0, "init_lora_weights": True, "use_rslora": False, "use_dora": False, "lora_bias": False,
}  # fmt: skip


def _first_factor(layer: KANLinear, r: int) -> KANLinear:
    """A: of the layer's functions and grid, with weights within +-1/sqrt(I), as PEFT's for nn.Linear."""
    base = layer.base_activation
    first = KANLinear(
        layer.in_features, r, layer.grid_size, layer.spline_order, outside=layer.outside, grid_range=layer.grid_range,
        base_activation=None if layer.base_weight is None else base, backend=layer.backend,
        scale_noise=2 * layer.grid_size / math.sqrt(layer.in_features), device=layer.coef.device,
        dtype=layer.coef.dtype,
    )  # fmt: skip
    first.grid.copy_(layer.grid)
    return first
