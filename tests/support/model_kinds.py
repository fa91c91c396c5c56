"""One model of each kind (layer, sequence, network, pruned, symbolic), and checks of their values and gradients."""

import torch
from torch import nn

from fastkan import KAN, KANLinear
from fastkan.nn import KANSequential
from support import definition

CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def perturb(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give the model uneven knots and other parameters."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, KANLinear):
            x = torch.randn(300, module.in_features, generator=generator, dtype=torch.float64)
            module.update_grid(x.to(module.coef.dtype))
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model


def pruned() -> KAN:
    """Without two of five inputs and a hidden node, some of the other edges off."""
    model = KAN([5, 4, 2])
    model = model.prune_input(active_inputs=[0, 3, 4]).prune_node(active_neurons_id=[[0, 1, 3]])
    with torch.no_grad():
        model.act_fun[0].mask[0, 1], model.act_fun[0].mask[1, 1], model.act_fun[1].mask[2, 0] = 0.0, 0.0, 0.5
    return model


def symbolic() -> KAN:
    """Some edges symbolic, some splines, one removed; one node multiplies."""
    model = KAN([5, [2, 1], 2])
    model.remove_edge(0, 1, 2)
    for edge, name in (((0, 0, 0), "sin"), ((0, 4, 1), "exp"), ((1, 0, 1), "x^2")):
        model.fix_symbolic(*edge, name, fit_params_bool=False, verbose=False)
    return model


MODELS = {
    "KANLinear": lambda: KANLinear(5, 2, bias=True),
    "KANSequential": lambda: KANSequential(KANLinear(5, 4), KANLinear(4, 2)),
    "KAN": lambda: KAN([5, 3, 2]),
    "pruned": pruned,
    "symbolic": symbolic,
}


def build(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return perturb(MODELS[kind]().double())


def data(rows: int = 12, seed: int = 1) -> torch.Tensor:
    """Mostly within the grids."""
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check(run, model: nn.Module, x: torch.Tensor | None = None, **tolerance) -> None:
    """run(x) equals the definition on the model's tensors."""
    x = data() if x is None else x
    torch.testing.assert_close(run(x).detach().double(), definition.value(model, x), **(tolerance or CLOSE))


def loss(y: torch.Tensor) -> torch.Tensor:
    return (y * torch.linspace(0.5, 2.0, y.numel(), dtype=y.dtype).view(y.shape)).sin().sum()


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def gradients(model: nn.Module, x: torch.Tensor, run=None) -> dict[str, torch.Tensor]:
    """Of loss(model(x)) by every parameter, and by x under ""."""
    x = x.clone().requires_grad_()
    model(x)  # sets requires_grad by the masks
    parameters = trained(model)
    value = loss((model if run is None else run)(x))
    found = torch.autograd.grad(value, [x, *parameters.values()], allow_unused=True, materialize_grads=True)
    return dict(zip(["", *parameters], found, strict=True))


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], **tolerance) -> None:
    for name, want in expected.items():
        got = found.get(name)
        got = torch.zeros_like(want) if got is None else got
        torch.testing.assert_close(got, want, **(tolerance or CLOSE), msg=lambda text, name=name: f"{name}: {text}")


def check_with_gradients(run, model: nn.Module, x: torch.Tensor) -> None:
    """run(x) equals the definition, and its gradients those of the model."""
    check(run, model, x)
    same(gradients(model, x, run), gradients(model, x))


def layers(model: nn.Module) -> list[KANLinear]:
    return [module for module in model.modules() if isinstance(module, KANLinear)]


def check_copy(copied, model: nn.Module, x: torch.Tensor) -> None:
    """A copy with parameters of its own equals the model."""
    assert copied is not model
    check(copied, model, x)
    same(gradients(copied, x), gradients(model, x))


def train_steps(model, x):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        loss(model(x)).backward()
        optimizer.step()
    model(x)
