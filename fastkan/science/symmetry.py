"""Symmetry: whether some variables act through one function of them alone, f(x) = g(h(x_A), x_B).

The gradient by x_A then has a direction that x_B does not change. The score is the sine of the angle between the
directions at rows that have their x_A in common and their x_B from different rows of the data, in units of the inputs'
standard deviations and as a root mean square, see exchange.ratio: 0 where x_A is a symmetry, 1 at most.

Source: Liu et al., KAN 2.0 (arXiv 2408.10205), section 4.3; by exchange instead of third derivatives, see exchange.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from ..arguments import indices, number
from .derivatives import batch_jacobian, check_points
from .expressions import columns_of, evaluate
from .resampling import Exchange, finite, ratio


def test_symmetry(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    group: Sequence[int],
    dependence_th: float = 5e-2,
    *,
    local: bool = False,
) -> bool:
    """Whether the variables of group act through one function of them: symmetry_score is below dependence_th."""
    return symmetry_score(model, x, group, local=local) < number("dependence_th", dependence_th, 0.0)


def symmetry_score(model: Callable[[Tensor], Tensor], x: Tensor, group: Sequence[int], *, local: bool = False) -> float:
    """How much the other variables turn the gradient by those of group; 0 of a group of one, none or all.

    Args:
        model: of one output, x [N, n] -> [N, 1]; x: data, as the model is used.
        group: indices of inputs.
        local: the largest entry of get_dependence instead, in units of the inputs' standard deviations, which looks at
            the rows of x alone: for inputs that depend on one another.
    """
    check_points(x)
    group, rest = _split(group, x.shape[-1])
    if len(group) < 2 or not rest:
        return 0.0
    if local:
        std = x.detach().std(0)
        std = std.where(std > 0, 1.0)
        return float(get_dependence(lambda at: model(at * std), x / std, group).max())
    exchange = Exchange(model, x)
    return float(sine(exchange.slopes()[:, group], exchange.slopes(rest)[:, group]))


def sine(a: Tensor, b: Tensor) -> Tensor:
    """Of the angles between the vectors in rows of a and b [N, D], a number, see above; 0 where there are none."""
    lengths = a.norm(dim=1) * b.norm(dim=1)
    across = (lengths.square() - (a * b).sum(1).square()).clamp_min(0.0).sqrt()
    return ratio(across, lengths)


def batch_grad_normgrad(
    model: Callable[[Tensor], Tensor], x: Tensor, group: Sequence[int], create_graph: bool = False
) -> Tensor:
    """d(grad_A / |grad_A|) / dx_B of every row of x [N, n]: [N, len(A), len(B)], A the group, B the rest; see there."""
    check_points(x)
    group, rest = _split(group, x.shape[-1])

    def direction(at: Tensor) -> Tensor:
        slopes = batch_jacobian(model, at, create_graph=True)[:, group]
        length = slopes.norm(dim=1, keepdim=True)
        return slopes / length.where(length > 0, 1.0)

    return finite(batch_jacobian(direction, x, create_graph, mode="vector"))[:, :, rest]


def get_dependence(model: Callable[[Tensor], Tensor], x: Tensor, group: Sequence[int]) -> Tensor:
    """How the direction of the gradient by x_A changes with x_B, locally: [len(A), len(B)], A the group, B the rest.

    The median over the rows of |d(grad_A / |grad_A|) / dx_B| std_A std_B: pykan's, without the 1e-6 that it adds to
    lengths, whatever the units. Rows where the gradient is 0 have no direction and do not count.
    """
    turning = batch_grad_normgrad(model, x, group).double()
    group, rest = _split(group, x.shape[-1])
    std = x.detach().double().std(0)
    moving = batch_jacobian(model, x)[:, group].abs().amax(1) > 0
    turning = turning[moving] * std[group][:, None] * std[rest]
    if not len(turning):
        return turning.new_zeros(len(group), len(rest))
    return turning.abs().median(0).values


def test_symmetry_var(
    model: Callable[[Tensor], Tensor], x: Tensor, input_vars: Sequence, symmetry_var, *, verbose: bool = True
) -> Tensor:
    """How parallel the gradients of the model and of an expression are, by the variables of the expression.

    Where f(x) = g(h(x_A), x_B) with h the expression they are parallel everywhere.

    Args:
        model: of one output, x [N, n] -> [N, 1]; x: data.
        input_vars: SymPy symbols, or their names, of the first columns of x.
        symmetry_var: a SymPy expression in some of them.
        verbose: print how many rows have a cosine above 0.9, and what that suggests.

    Returns |cosine| of every row, [N]; NaN where either gradient is 0.
    """
    check_points(x)
    names = list(columns_of("input_vars", input_vars, x))
    used = [i for i, name in enumerate(names) if name in getattr(symmetry_var, "free_symbols", ())]
    if not used:
        raise ValueError(f"symmetry_var={symmetry_var!r}: expected a SymPy expression in {', '.join(map(str, names))}")

    def expression(at: Tensor) -> Tensor:
        return evaluate(symmetry_var, columns_of("input_vars", names, at))

    of_model, of_expression = (batch_jacobian(f, x)[:, used] for f in (model, expression))
    cosine = (of_model * of_expression).sum(1).abs() / (of_model.norm(dim=1) * of_expression.norm(dim=1))
    if verbose:
        share = float((cosine > 0.9).double().mean())
        print(f"{100 * share:.4g}% of the rows have a cosine similarity above 0.9")
        print("suggesting symmetry" if share > 0.9 else "not suggesting symmetry")
    return cosine


def dependences(exchange: Exchange) -> Tensor:
    """How much variable k turns the gradient by a and b: [n, n, n] for a, b, k; 0 where two of them are one."""
    n, here = exchange.inputs, exchange.slopes()
    found = here.new_zeros(n, n, n)
    for k in range(n):
        there = exchange.slopes([k])
        for a in range(n):
            for b in range(a):
                if k not in (a, b):
                    found[a, b, k] = found[b, a, k] = sine(here[:, [a, b]], there[:, [a, b]])
    return found


def _split(group: Sequence[int], inputs: int) -> tuple[list[int], list[int]]:
    """group and the other inputs."""
    group = indices("group", group, inputs)
    return group, [i for i in range(inputs) if i not in group]
