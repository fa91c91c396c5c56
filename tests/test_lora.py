"""LoRA on KANLinear by PEFT: only adapters train, merging keeps the function, states are adapters only."""

import copy

import pytest
import torch
from torch import nn

from fastkan import KANLinear
from fastkan.nn import KANFeedForward

peft = pytest.importorskip("peft", reason="peft is not installed")


def wrapped(model: nn.Module, seed: int = 0, **options):
    from fastkan.compat.lora import lora_modules

    torch.manual_seed(seed)
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules=["up", "down"], **options)
    config._register_custom_module(lora_modules())
    return peft.get_peft_model(copy.deepcopy(model), config)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = KANFeedForward(6, 5)
    model.up.update_grid(torch.randn(100, 6))
    return model


def train(model: nn.Module, x, steps: int = 5) -> None:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - x.sin()).square().mean().backward()
        optimizer.step()


def test_only_adapters_train_and_start_at_nothing(model):
    lora, x = wrapped(model), torch.randn(20, 6)
    assert torch.equal(lora(x), model(x))
    trained = [name for name, p in lora.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    train(lora, x)
    assert (lora(x) - model(x)).abs().max() > 0.01
    with lora.disable_adapter():
        assert torch.equal(lora(x), model(x))


@pytest.mark.parametrize("activation", ["silu", nn.GELU, None])
def test_merged_is_the_same_function(activation):
    x = torch.randn(20, 6)
    torch.manual_seed(0)
    lora = wrapped(KANFeedForward(6, 5, base_activation=activation))
    train(lora, x)
    y = lora(x)
    lora.merge_adapter()
    torch.testing.assert_close(lora(x), y, rtol=0, atol=1e-5)
    lora.unmerge_adapter()
    torch.testing.assert_close(lora(x), y, rtol=0, atol=1e-5)
    merged = lora.merge_and_unload(safe_merge=True)
    assert type(merged.up) is KANLinear
    torch.testing.assert_close(merged(x), y, rtol=0, atol=1e-5)


def test_states_are_adapters(model, tmp_path):
    lora, x = wrapped(model), torch.randn(20, 6)
    train(lora, x)
    state = peft.get_peft_model_state_dict(lora)
    assert all("lora_" in name for name in state)
    other = wrapped(model, seed=1)
    peft.set_peft_model_state_dict(other, state)
    assert torch.equal(other(x), lora(x))


def test_a_second_adapter(model):
    lora, x = wrapped(model, use_rslora=True, lora_dropout=0.1), torch.randn(20, 6)
    train(lora, x)
    lora.add_adapter("other", lora.peft_config["default"])
    lora.set_adapter("other")
    assert torch.equal(lora.eval()(x), model(x))


def test_what_has_no_meaning_is_an_error(model):
    with pytest.raises(ValueError, match="use_dora"):
        wrapped(model, use_dora=True)
    with pytest.raises(ValueError, match="without spline_scale"):
        wrapped(KANFeedForward(6, 5, enable_standalone_scale_spline=True))
    lora = wrapped(model)
    lora.base_model.model.up.base_layer.update_grid(torch.rand(50, 6))
    with pytest.raises(ValueError, match="another grid than its layer"):
        lora.merge_adapter()
