"""Networks and data for Levenberg-Marquardt."""

import torch

from fastkan import KAN


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def kan(*args, **options) -> KAN:
    model = KAN(*args, **{"dtype": torch.float64, **options})
    with torch.no_grad():
        for n, p in enumerate(model.parameters()):
            p += 0.1 * random(*p.shape, seed=n).to(p.dtype)
    return model


def pruned_and_symbolic() -> KAN:
    model = kan([3, 4, 2], grid=4, base_fun=torch.tanh)
    model.act_fun[0].mask[1] = 0
    model.act_fun[0].mask[0, 0] = 0.5
    model.act_fun[1].mask[2, 1] = 0
    model.symbolic_fun[0].set_edge(1, 2, "sin", (1.0, 0.2, 0.3, 0.1))
    return model


def moved() -> KAN:
    model = kan([3, 4, 2], grid=4, sb_trainable=False, sp_trainable=False, base_fun="zero")
    model.update_grid(random(100, 3) ** 3)
    return model


NETWORKS = {
    "plain": lambda: kan([2, 3, 1], grid=4),
    "affine": lambda: kan([2, 3, 2], grid=4, affine_trainable=True),
    "products": lambda: kan([2, [2, 2], [1, 1], 2], grid=4, k=2, affine_trainable=True, mult_arity=3),
    "large grid": lambda: kan([2, 1, 1], grid=100, outside="linear"),
    "k=0": lambda: kan([2, 2, 1], grid=4, k=0, outside="clamp"),
    "pruned, symbolic": pruned_and_symbolic,
    "moved knots": moved,
}
