"""Symmetry: whether a function depends on some variables only through one function of them, f(x) = g(h(x_A), x_B).

The direction of the gradient by x_A is then independent of x_B. The score is the sine of the angle between the
directions at two rows with the same x_A and with x_B from different rows of the data, in units of the inputs' standard
deviations, as a root mean square over rows, see resampling.ratio: 0 for a symmetry, at most 1.

Source: Liu et al., KAN 2.0 (arXiv 2408.10205), section 4.3; by resampling instead of third derivatives.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..arguments import indices, number
from ..devices import exact
from .derivatives import batch_jacobian, check_points
from .expressions import columns_of, evaluate
from .resampling import Resampled, finite, ratio


def test_symmetry(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    group: Sequence[int],
    dependence_th: float = 5e-2,
    *,
    local: bool = False,
) -> bool:
    """Whether the variables of group are a symmetry: symmetry_score is below dependence_th."""
    return symmetry_score(model, x, group, local=local) < number("dependence_th", dependence_th, 0.0)


def symmetry_score(model: Callable[[Tensor], Tensor], x: Tensor, group: Sequence[int], *, local: bool = False) -> float:
    """How much the other variables rotate the gradient by the group's; 0 for a group of one, no or all variables.

    Args:
        model: a function with one output, x [N, n] -> [N, 1]; x: representative data.
        group: indices of inputs.
        local: return the largest entry of get_dependence, in units of the inputs' standard deviations, which uses only
            the rows of x: for inputs that depend on one another.
    """
    check_points(x)
    group, rest = _split(group, x.shape[-1])
    if len(group) < 2 or not rest:
        return 0.0
    if local:
        std = x.detach().std(0)
        std = std.where(std > 0, 1.0)
        return float(get_dependence(lambda at: model(at * std), x / std, group).max())
    resampled = Resampled(model, x)
    return float(sine(resampled.gradient()[:, group], resampled.gradient(rest)[:, group]))


def sine(a: Tensor, b: Tensor) -> Tensor:
    """The root mean square sine of the angles between rows of a and b [N, D], see resampling.ratio; 0 of zero rows."""
    lengths = a.norm(dim=1) * b.norm(dim=1)
    across = (lengths.square() - (a * b).sum(1).square()).clamp_min(0.0).sqrt()
    return ratio(across, lengths)


def batch_grad_normgrad(
    model: Callable[[Tensor], Tensor], x: Tensor, group: Sequence[int], create_graph: bool = False
) -> Tensor:
    """d(grad_A / |grad_A|) / dx_B at every row of x [N, n]: [N, len(A), len(B)], with A the group and B the rest."""
    check_points(x)
    group, rest = _split(group, x.shape[-1])

    def direction(at: Tensor) -> Tensor:
        slopes = batch_jacobian(model, at, create_graph=True)[:, group]
        length = slopes.norm(dim=1, keepdim=True)
        return slopes / length.where(length > 0, 1.0)

    return finite(batch_jacobian(direction, x, create_graph, mode="vector"))[:, :, rest]


def get_dependence(model: Callable[[Tensor], Tensor], x: Tensor, group: Sequence[int]) -> Tensor:
    """Local dependence of the gradient's direction by x_A on x_B: [len(A), len(B)], with A the group and B the rest.

    The median over the rows of |d(grad_A / |grad_A|) / dx_B| std_A std_B. Unlike pykan's, lengths have no 1e-6 added,
    whose effect depends on the units. Rows where the gradient is 0 are ignored.
    """
    rotation = exact(batch_grad_normgrad(model, x, group))
    group, rest = _split(group, x.shape[-1])
    std = exact(x.detach()).std(0)
    nonzero = exact(batch_jacobian(model, x))[:, group].abs().amax(1) > 0
    rotation = rotation[nonzero] * std[group][:, None] * std[rest]
    if not len(rotation):
        return rotation.new_zeros(len(group), len(rest))
    return rotation.abs().median(0).values


def test_symmetry_var(
    model: Callable[[Tensor], Tensor], x: Tensor, input_vars: Sequence, symmetry_var: Any, *, verbose: bool = True
) -> Tensor:
    """|cosine| between the gradients of the model and of an expression, by the variables of the expression.

    It is 1 everywhere if f(x) = g(h(x_A), x_B) with h the expression.

    Args:
        model: a function with one output, x [N, n] -> [N, 1]; x: data.
        input_vars: SymPy symbols, or their names, for the first columns of x.
        symmetry_var: a SymPy expression in some of them.
        verbose: print the share of rows with |cosine| above 0.9, and whether that suggests symmetry.

    Returns a value per row, [N]; NaN where either gradient is 0.
    """
    check_points(x)
    names = list(columns_of("input_vars", input_vars, x))
    used = [i for i, name in enumerate(names) if name in getattr(symmetry_var, "free_symbols", ())]
    if not used:
        raise ValueError(f"symmetry_var={symmetry_var!r}: expected a SymPy expression in {', '.join(map(str, names))}")

    def expression(at: Tensor) -> Tensor:
        return torch.as_tensor(evaluate(symmetry_var, columns_of("input_vars", names, at)))

    of_model, of_expression = (batch_jacobian(f, x)[:, used] for f in (model, expression))
    cosine = (of_model * of_expression).sum(1).abs() / (of_model.norm(dim=1) * of_expression.norm(dim=1))
    if verbose:
        share = float(exact(cosine > 0.9).mean())
        print(f"{100 * share:.4g}% of the rows have a cosine similarity above 0.9")
        print("suggesting symmetry" if share > 0.9 else "not suggesting symmetry")
    return cosine


def dependences(resampled: Resampled) -> Tensor:
    """How much variable k rotates the gradient by a and b: [n, n, n] for a, b, k; 0 if two of them are equal."""
    n, gradient = resampled.inputs, resampled.gradient()
    scores = gradient.new_zeros(n, n, n)
    for k in range(n):
        other = resampled.gradient([k])
        for a in range(n):
            for b in range(a):
                if k not in (a, b):
                    scores[a, b, k] = scores[b, a, k] = sine(gradient[:, [a, b]], other[:, [a, b]])
    return scores


def _split(group: Sequence[int], inputs: int) -> tuple[list[int], list[int]]:
    """group and the other inputs."""
    group = indices("group", group, inputs)
    return group, [i for i in range(inputs) if i not in group]
