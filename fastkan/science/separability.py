"""Separability: whether a function is a sum, a product, or any function of a sum, of functions of fewer variables.

Scores compare what no separable function can make up for with how much the function varies at all: 0 where it is
separable, of order 1 where it is not, whatever the units. A trained network's are about its relative error where the
function that it learned is separable.

Source: Liu et al., KAN 2.0 (arXiv 2408.10205), section 4.3; by exchange instead of second derivatives, see exchange.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from ..arguments import integer, number
from .derivatives import batch_hessian, batch_jacobian, check_points
from .resampling import Exchange, groups_of, ratio

MODES = ("add", "mul")


def separability_scores(
    model: Callable[[Tensor], Tensor], x: Tensor, mode: str = "add", bias: float = 0.0, *, local: bool = False
) -> Tensor:
    """How much every two inputs act together, [n, n]; how much each acts at all on the diagonal.

    Args:
        model: of one output, x [N, n] -> [N, 1]; x: data, as the model is used.
        mode: "add" for sums, "mul" for products, of model(x) + bias.
        local: by second derivatives at the rows of x alone, for inputs that depend on one another, where a row with
            columns of another one may be like no data. Noise of a trained network is larger in these.

    The score of i and j is the standard deviation of the part of the function that no f(x without i) + g(x without j)
    can take, or no f * g, over that of the function: Sobol's total interaction index, under a root. With local it is
    the median of |d2f / dx_i dx_j| std_i std_j, in "add" over the standard deviation of f, in "mul" of f = log |f|.

    Raises ValueError for a wrong argument and where the model is not finite.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r}: expected one of {', '.join(map(repr, MODES))}")
    bias = number("bias", bias)
    return _curvature(model, x, mode, bias) if local else _interaction(Exchange(model, x), mode, bias)


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
    """The most groups of variables of which the function is a sum, or a product.

    Args:
        model, x, mode, bias, local: see separability_scores.
        score_th: scores from here on bind two variables into one group.
        res_th: the share of all scores that may be left between groups.
        n_clusters: the number of groups that is looked for, or the least and the most.
        y: labels of x [N, 1], best some that were not trained on: score_th, and res_th with it, is raised to the
            model's relative error on them, below which it can't tell: a separable function plus errors e has scores up
            to std(e) / std(f).
        verbose: print what every number of groups would leave.

    Returns n_groups, groups (lists of inputs) and labels (the group of every input); hessian, the scores by their name
    in pykan; score_th, that was used. One group where nothing is separable.
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
    """Whether the function is a sum, or product, of functions of the groups, and one of the variables in no group.

    Whether all scores between groups are below threshold; see separability_scores, and detect_separability for y.
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
    """Whether the function is F(sum of functions of the groups), F any function of one variable.

    Whether general_separability_score is below threshold.
    """
    return general_separability_score(model, x, groups, local=local) < number("threshold", threshold, 0.0)


def general_separability_score(
    model: Callable[[Tensor], Tensor], x: Tensor, groups: Sequence[Sequence[int]], *, local: bool = False
) -> float:
    """How far a function is from F(sum of functions of the groups): 0 where it is such a one, 1 at most unless local.

    The ratio r = f_a / f_b of derivatives by variables of two groups is then a product of functions of the groups:
    r(p, q) r(p', q') = r(p', q) r(p, q') for any p, q of different groups. Without fractions that is P = Q, of four
    derivatives each. The score is the largest |P - Q| / (|P| + |Q|) of all a, b, p, q, see exchange.ratio.

    Variables in no group may take part in F, but may not mix with those of groups otherwise. Arguments as in
    separability_scores.
    """
    check_points(x)
    groups = groups_of("groups", groups, x.shape[-1])
    ratios = [(a, b) for A, B in combinations(groups, 2) for a in A for b in B]
    if local:
        scores = [_curvature(_quotient(model, a, b), x, "mul", 0.0) for a, b in ratios]
        return max((float(s[p, q]) for s in scores for p, q in _between(groups, x.shape[1])), default=0.0)
    exchange = Exchange(model, x)
    here, swapped = exchange.slopes(), [exchange.slopes([p]) for p in range(exchange.inputs)]
    worst = 0.0
    for p, q in _between(groups, exchange.inputs):
        both = exchange.slopes([p, q])
        for a, b in ratios:
            left = here[:, a] * both[:, a] * swapped[p][:, b] * swapped[q][:, b]
            right = here[:, b] * both[:, b] * swapped[p][:, a] * swapped[q][:, a]
            worst = max(worst, float(ratio(left - right, left.abs() + right.abs())))
    return worst


def _interaction(exchange: Exchange, mode: str, bias: float) -> Tensor:
    """Scores by exchange.

    "add": D = f - f_i - f_j + f_ij, with 4 times the variance of the interaction. "mul": the minor P - Q = f f_ij -
    f_i f_j over |P| + |Q|, D / 2 mean(f) where f varies little; divided by how much f varies over its size, likewise.
    """
    f, n = exchange.values() + bias, exchange.inputs
    alone = [exchange.values([i]) + bias for i in range(n)]
    if mode == "add":
        unit = f.std()
    else:
        other = exchange.values(range(n)) + bias
        unit = 2**0.5 * ratio(f - other, f.abs() + other.abs())
    scores = f.new_zeros(n, n)
    for i, f_i in enumerate(alone):
        for j, f_j in enumerate(alone[: i + 1]):
            if i == j:
                part = (f - f_i).square().mean().div(2).sqrt()
                part = part if mode == "add" else 2**0.5 * ratio(f - f_i, f.abs() + f_i.abs())
            else:
                f_ij = exchange.values([i, j]) + bias
                p, q = f * f_ij, f_i * f_j
                part = (f - f_i - f_j + f_ij).square().mean().sqrt() / 2
                part = part if mode == "add" else ratio(p - q, p.abs() + q.abs())
            scores[i, j] = scores[j, i] = part
    return scores / unit if unit > 0 else torch.zeros_like(scores)


def _curvature(model: Callable, x: Tensor, mode: str, bias: float) -> Tensor:
    """Scores by second derivatives."""
    if mode == "add":
        function, unit = model, float(model(x).detach().double().std())
    else:
        function, unit = lambda at: (model(at) + bias).abs().log(), 1.0
    std = x.detach().double().std(0)
    hessian = batch_hessian(function, x).double() * std * std[:, None]
    told = hessian.isfinite().flatten(1).all(1)
    if 2 * int(told.sum()) <= len(x):
        raise ValueError(f"second derivatives are finite at {int(told.sum())} of {len(x)} rows: expected most")
    scores = hessian[told].abs().median(0).values
    return scores / unit if unit > 0 else torch.zeros_like(scores)


def _quotient(model: Callable, a: int, b: int) -> Callable:
    """The derivative by a over that by b."""

    def quotient(x: Tensor) -> Tensor:
        slopes = batch_jacobian(model, x, create_graph=True)
        return slopes[:, [a]] / slopes[:, [b]]

    return quotient


def _threshold(name: str, value: float, model: Callable, x: Tensor, y: Tensor | None, bias: float) -> float:
    """value, or what errors leave of the scores of a separable function: the model's on labels y, and rounding."""
    value = number(name, value, 0.0)
    with torch.no_grad():
        f = model(x)
    std, size = float(f.double().std()), float((f.double() + bias).square().mean().sqrt())
    if y is not None and y.shape != f.shape:
        raise ValueError(f"y has shape {list(y.shape)}: expected that of model(x), {list(f.shape)}")
    error = 0.0
    if y is not None:
        squares = (f - y).double().square()
        error = float((squares.mean() + 3 * squares.std() / len(x) ** 0.5).sqrt())  # but for chance
    return max(value, (error + 4 * torch.finfo(f.dtype).eps * size) / std) if std > 0 else value


def _between(groups: list[list[int]], inputs: int) -> list[tuple[int, int]]:
    """Pairs of inputs in different groups; those in no group are one more."""
    rest = sorted(set(range(inputs)) - {i for group in groups for i in group})
    return [(a, b) for A, B in combinations([*groups, rest], 2) for a in A for b in B]


def _cut(scores: Tensor, count: int) -> tuple[list[list[int]], float]:
    """`count` groups with the least possible largest score between them, and that: single linkage."""
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
        raise ValueError(f"n_clusters={n_clusters!r}: expected an integer, or the least and the most")
    least, most = (integer("n_clusters", count, 1) for count in pair)
    if not least <= most <= inputs:
        raise ValueError(f"n_clusters={n_clusters!r}: expected at most {inputs}, the number of inputs, in order")
    return least, most
