"""A layer as a function of its tensors, on a backend and by plain autograd, and its derivatives."""

import torch
from torch import func

from fastkan import reference
from fastkan.basis.base import BASES
from fastkan.basis.bspline import OUTSIDE
from fastkan.functional import kan_linear
from fastkan.testing import Problem


def small_problem(**kwargs) -> Problem:
    return Problem.random(4, 3, 2, 4, **{"dtype": torch.float64, "knots": "uneven", "per_input": True, **kwargs})


def arguments(p: Problem, scaled: bool = False) -> dict[str, torch.Tensor]:
    tensors = {"x": p.x, "coef": p.coef, "base_weight": p.base_weight, "bias": p.bias}
    if scaled:
        tensors["scale"] = p.terms[0]
    return {name: t.clone().requires_grad_() for name, t in tensors.items() if t is not None}


def layer(p: Problem, names, backend: str):
    """kan_linear on a backend, as a function of the named tensors."""
    spec = p.spec

    def run(*tensors):
        return kan_linear(
            **dict(zip(names, tensors, strict=True)), grid=p.grid, degree=spec.degree, base=BASES[spec.base],
            outside=OUTSIDE[spec.outside], uniform=spec.uniform, backend=backend,
        )  # fmt: skip

    return run


def plain(p: Problem, names):
    """The same function by the reference's formula, differentiated by plain autograd."""

    def run(*tensors):
        t = dict(zip(names, tensors, strict=True))
        coef = t["coef"] * t["scale"][:, None] if "scale" in t else t["coef"]
        x = t["x"].reshape(-1, t["x"].shape[-1])
        y = reference.kan_out(x, None, coef, t.get("base_weight"), t.get("bias"), p.grid, p.spec, 0)
        return y.reshape(*t["x"].shape[:-1], -1)

    return run


def derivatives(run, tensors: dict[str, torch.Tensor], depth: int) -> list[torch.Tensor]:
    """Gradients by every tensor of a scalar, of a scalar function of these gradients, and so on."""
    values = list(tensors.values())
    found, outputs = [], [run(*values)]
    for _ in range(depth):
        number = sum((torch.sin(v + k)).sum() for k, v in enumerate(outputs))
        grads = torch.autograd.grad(number, values, create_graph=True, allow_unused=True)
        outputs = [torch.zeros_like(t) if g is None else g for g, t in zip(grads, values, strict=True)]
        found += [g.detach() for g in outputs]
    return found


TRANSFORMS = {
    "grad": lambda f, x: func.grad(lambda v: f(v).square().sum())(x),
    "vjp": lambda f, x: func.vjp(f, x)[1](f(x).cos()),
    "jvp": lambda f, x: func.jvp(f, (x,), (x.sin(),)),
    "linearize": lambda f, x: func.linearize(f, x)[1](x.sin()),
    "jacrev": lambda f, x: func.jacrev(f)(x),
    "jacfwd": lambda f, x: func.jacfwd(f)(x),
    "hessian": lambda f, x: func.hessian(f)(x),
    "jacrev of jacrev": lambda f, x: func.jacrev(func.jacrev(f))(x),
    "jacfwd of jacfwd": lambda f, x: func.jacfwd(func.jacfwd(f))(x),
    "third order": lambda f, x: func.jacfwd(func.jacrev(func.jacrev(f)))(x),
    "laplacian of each row": lambda f, x: func.vmap(lambda row: func.hessian(f)(row).diagonal(0, -2, -1).sum(-1))(x),
    "gradient of each row": lambda f, x: func.vmap(func.grad(lambda row: f(row).sum()))(x),
    "vmap over columns": lambda f, x: func.vmap(f, in_dims=1)(torch.stack([x, x + 0.1], 1)),
    "vmap of vmap": lambda f, x: func.vmap(func.vmap(f))(x[None, None].expand(2, 3, -1, -1)),
    "Hessian-vector product": lambda f, x: func.jvp(func.grad(lambda v: f(v).sin().sum()), (x,), (x.cos(),))[1],
}
