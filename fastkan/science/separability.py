"""Separability: whether a function is a sum, a product, or any function of a sum, of functions of fewer variables.

Scores are the share of the function's variation that no separable function explains: 0 if it is separable, otherwise of
order 1, independent of units. For a trained network, scores of a separable target are about its relative error.

Source: Liu et al., KAN 2.0 (arXiv 2408.10205), section 4.3; by resampling instead of second derivatives.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from ..arguments import integer, number
from ..devices import exact
from .derivatives import batch_hessian, batch_jacobian, check_points
from .resampling import Resampled, groups_of, ratio

MODES = ("add", "mul")


def separability_scores(
    model: Callable[[Tensor], Tensor], x: Tensor, mode: str = "add", bias: float = 0.0, *, local: bool = False
) -> Tensor:
    """Interaction of every two inputs, [n, n]; on the diagonal the effect of each input.

    Args:
        model: a function with one output, x [N, n] -> [N, 1]; x: representative data.
        mode: "add" for sums, "mul" for products, of model(x) + bias.
        local: use second derivatives at the rows of x only: for inputs that depend on one another, where rows with
            columns from other rows may be unlike the data. Derivatives amplify the noise of a trained network.

    The score of i and j is the standard deviation of the part of the function that no f(x without i) + g(x without j),
    or f * g, explains, divided by that of the function: the square root of Sobol's total interaction index. With local
    it is the median of |d2f / dx_i dx_j| std_i std_j, for "add" divided by the standard deviation of f, for "mul" of
    log |f|.

    Raises ValueError for a wrong argument and if the model is not finite.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r}: expected one of {', '.join(map(repr, MODES))}")
    bias = number("bias", bias)
    return _curvature(model, x, mode, bias) if local else _interaction(Resampled(model, x), mode, bias)


def detect_separability(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    mode: str = "add",
    score_th: float = 1e-2,
    res_th: float = 1e-2,
    n_clusters: int | Sequence[int] | None = None,
    bias: float = 0.0,
    verbose: bool = False,
    *,
    y: Tensor | None = None,
    local: bool = False,
) -> dict:
    """The finest partition of the variables into groups such that the function is a sum, or a product, over groups.

    Args:
        model, x, mode, bias, local: see separability_scores.
        score_th: two variables with at least this score are in one group.
        res_th: the largest share of all scores allowed between groups.
        n_clusters: the number of groups, or the minimum and maximum.
        y: labels of x [N, 1], preferably not trained on: score_th, and res_th with it, is raised to the model's
            relative error on them, since a separable function with errors e has scores up to std(e) / std(f).
        verbose: print the scores that remain between groups, for every number of groups.

    Returns n_groups, groups (lists of inputs) and labels (the group of every input); hessian, pykan's name of the
    scores; score_th, as used. One group if nothing is separable.
    """
    scores = separability_scores(model, x, mode, bias, local=local)
    given, score_th = score_th, _threshold("score_th", score_th, model, x, y, bias)
    res_th, inputs = number("res_th", res_th, 0.0), x.shape[1]
    res_th = res_th * score_th / given if given > 0 else res_th
    least, most = _bounds(n_clusters, inputs)
    groups = [list(range(inputs))]
    for count in range(most, max(least, 2) - 1, -1):
        candidate, link = _cut(scores, count)
        inside = sum(scores[group][:, group].sum() for group in candidate)
        total = scores.sum()
        rest = float((total - inside) / total) if total > 0 else 0.0
        if verbose:
            print(f"{count} groups {candidate}: largest score between them {link:.3g}, {rest:.3g} of all scores")
        if link < score_th and rest < res_th:
            groups = candidate
            break
    labels = [next(n for n, group in enumerate(groups) if i in group) for i in range(inputs)]
    return {"n_groups": len(groups), "groups": groups, "labels": labels, "hessian": scores, "score_th": score_th}


def test_separability(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    groups: Sequence[Sequence[int]],
    mode: str = "add",
    threshold: float = 1e-2,
    bias: float = 0.0,
    *,
    y: Tensor | None = None,
    local: bool = False,
) -> bool:
    """Whether the function is a sum, or product, of functions of the groups, and of the variables in no group.

    True if all scores between groups are below threshold; see separability_scores, and detect_separability for y.
    """
    scores = separability_scores(model, x, mode, bias, local=local)
    threshold = _threshold("threshold", threshold, model, x, y, bias)
    return all(scores[a, b] < threshold for a, b in _between(groups_of("groups", groups, x.shape[1]), x.shape[1]))


def test_general_separability(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    groups: Sequence[Sequence[int]],
    threshold: float = 1e-1,
    *,
    local: bool = False,
) -> bool:
    """Whether the function is F(sum of functions of the groups), for any function F of one variable.

    True if general_separability_score is below threshold.
    """
    return general_separability_score(model, x, groups, local=local) < number("threshold", threshold, 0.0)


def general_separability_score(
    model: Callable[[Tensor], Tensor], x: Tensor, groups: Sequence[Sequence[int]], *, local: bool = False
) -> float:
    """Distance of a function from F(sum of functions of the groups): 0 if it has this form; at most 1 unless local.

    The ratio r = f_a / f_b of derivatives by variables of two groups is then a product of functions of the groups:
    r(p, q) r(p', q') = r(p', q) r(p, q') for any p, q of different groups. Multiplied out that is P = Q, products of
    four derivatives each. The score is the largest |P - Q| / (|P| + |Q|) of all a, b, p, q, see resampling.ratio.

    Variables in no group may be arguments of F, but must not otherwise interact with those in groups. Arguments as in
    separability_scores.
    """
    check_points(x)
    groups = groups_of("groups", groups, x.shape[-1])
    ratios = [(a, b) for A, B in combinations(groups, 2) for a in A for b in B]
    if local:
        scores = [_curvature(_quotient(model, a, b), x, "mul", 0.0) for a, b in ratios]
        return max((float(s[p, q]) for s in scores for p, q in _between(groups, x.shape[1])), default=0.0)
    resampled = Resampled(model, x)
    neither, single = resampled.gradient(), [resampled.gradient([p]) for p in range(resampled.inputs)]
    worst = 0.0
    for p, q in _between(groups, resampled.inputs):
        both = resampled.gradient([p, q])
        for a, b in ratios:
            left = neither[:, a] * both[:, a] * single[p][:, b] * single[q][:, b]
            right = neither[:, b] * both[:, b] * single[p][:, a] * single[q][:, a]
            worst = max(worst, float(ratio(left - right, left.abs() + right.abs())))
    return worst


def _interaction(resampled: Resampled, mode: str, bias: float) -> Tensor:
    """Scores by resampling.

    "add": D = f - f_i - f_j + f_ij has 4 times the variance of the interaction. "mul": the minor P - Q = f f_ij -
    f_i f_j over |P| + |Q|, about D / 2 mean(f) if f varies little; divided by the relative variation of f, likewise.
    """
    f, n = resampled.values() + bias, resampled.inputs
    alone = [resampled.values([i]) + bias for i in range(n)]
    if mode == "add":
        unit = f.std()
    else:
        other = resampled.values(range(n)) + bias
        unit = 2**0.5 * ratio(f - other, f.abs() + other.abs())
    scores = f.new_zeros(n, n)
    for i, f_i in enumerate(alone):
        for j, f_j in enumerate(alone[: i + 1]):
            if i == j:
                part = (f - f_i).square().mean().div(2).sqrt()
                part = part if mode == "add" else 2**0.5 * ratio(f - f_i, f.abs() + f_i.abs())
            else:
                f_ij = resampled.values([i, j]) + bias
                p, q = f * f_ij, f_i * f_j
                part = (f - f_i - f_j + f_ij).square().mean().sqrt() / 2
                part = part if mode == "add" else ratio(p - q, p.abs() + q.abs())
            scores[i, j] = scores[j, i] = part
    return scores / unit if unit > 0 else torch.zeros_like(scores)


def _curvature(model: Callable, x: Tensor, mode: str, bias: float) -> Tensor:
    """Scores by second derivatives."""
    if mode == "add":
        function, unit = model, float(exact(model(x).detach()).std())
    else:
        function, unit = lambda at: (model(at) + bias).abs().log(), 1.0
    std = exact(x.detach()).std(0)
    hessian = exact(batch_hessian(function, x)) * std * std[:, None]
    finite = hessian.isfinite().flatten(1).all(1)
    if 2 * int(finite.sum()) <= len(x):
        raise ValueError(f"second derivatives are finite at {int(finite.sum())} of {len(x)} rows: expected most")
    scores = hessian[finite].abs().median(0).values
    return scores / unit if unit > 0 else torch.zeros_like(scores)


def _quotient(model: Callable, a: int, b: int) -> Callable:
    """The ratio of the derivatives by a and by b."""

    def quotient(x: Tensor) -> Tensor:
        gradient = batch_jacobian(model, x, create_graph=True)
        return gradient[:, [a]] / gradient[:, [b]]

    return quotient


def _threshold(name: str, value: float, model: Callable, x: Tensor, y: Tensor | None, bias: float) -> float:
    """value, raised to the scores that errors cause in a separable function: the model's on labels y, and rounding."""
    value = number(name, value, 0.0)
    with torch.no_grad():
        f = model(x)
    std, size = float(exact(f).std()), float((exact(f) + bias).square().mean().sqrt())
    if y is not None and y.shape != f.shape:
        raise ValueError(f"y has shape {list(y.shape)}: expected that of model(x), {list(f.shape)}")
    error = 0.0
    if y is not None:
        squares = exact(f - y).square()
        error = float(
            (squares.mean() + 3 * squares.std() / len(x) ** 0.5).sqrt()
        )  # upper limit of the mean, at 3 standard errors
    return max(value, (error + 4 * torch.finfo(f.dtype).eps * size) / std) if std > 0 else value


def _between(groups: list[list[int]], inputs: int) -> list[tuple[int, int]]:
    """Pairs of inputs in different groups; the inputs in no group form another one."""
    rest = sorted(set(range(inputs)) - {i for group in groups for i in group})
    return [(a, b) for A, B in combinations([*groups, rest], 2) for a in A for b in B]


def _cut(scores: Tensor, count: int) -> tuple[list[list[int]], float]:
    """Single linkage: the `count` groups with the smallest maximum score between groups, and that score."""
    groups = [[i] for i in range(len(scores))]
    while True:
        pairs = list(combinations(range(len(groups)), 2))
        links = [float(scores[groups[a]][:, groups[b]].max()) for a, b in pairs]
        if len(groups) == count:
            return sorted(sorted(group) for group in groups), max(links, default=0.0)
        a, b = pairs[max(range(len(pairs)), key=links.__getitem__)]
        groups[a] = groups[a] + groups.pop(b)


def _bounds(n_clusters: int | Sequence[int] | None, inputs: int) -> tuple[int, int]:
    if n_clusters is None:
        return 1, inputs
    pair = n_clusters if isinstance(n_clusters, Sequence) and not isinstance(n_clusters, str) else (n_clusters,) * 2
    if len(pair) != 2:
        raise ValueError(f"n_clusters={n_clusters!r}: expected an integer, or the minimum and maximum")
    least, most = (integer("n_clusters", count, 1) for count in pair)
    if not least <= most <= inputs:
        raise ValueError(f"n_clusters={n_clusters!r}: expected at most {inputs}, the number of inputs, in order")
    return least, most
