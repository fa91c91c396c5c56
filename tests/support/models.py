"""KANs with random parameters, masks and symbolic edges, and their inputs."""

import torch

from fastkan import KAN

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


MIXED = {"width": [3, [2, 2], [1, 1], 2], "mult_arity": [[], [3, 2], [2], []], "grid": [3, 5, 2], "k": [3, 2, 1]}


FUNCTIONS = ("sin", "x^2", "exp", "0", "gaussian")


def inputs(*shape: int, seed: int = 1, scale: float = 1.5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * (2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1)


@torch.no_grad()
def shaken(model: KAN, symbolic: float = 0.0, off: float = 0.0, seed: int = 0) -> KAN:
    """The model with random parameters, and shares of its edges symbolic, both or off."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    for name, p in model.named_parameters():
        if "affine" not in name:
            p.copy_((0.5 + rand(*p.shape)) * torch.sign(rand(*p.shape) - 0.3))
    for numeric, symbols in zip(model.act_fun, model.symbolic_fun, strict=True):
        numeric.mask *= (rand(*numeric.mask.shape) >= off).to(numeric.mask)
        for i in range(numeric.in_dim):
            for j in range(numeric.out_dim):
                if rand(1) < symbolic:
                    name = FUNCTIONS[int(rand(1) * len(FUNCTIONS))]
                    symbols.set_edge(i, j, name, rand(4) - 0.5)
                    numeric.mask[i, j] = float(rand(1) < 0.2)
    return model
