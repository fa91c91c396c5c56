"""relations: unsupervised learning: groups of columns of a table that depend on each other, with a score each.

A network is trained to tell the rows of the table from rows whose columns are shuffled independently. Its hidden node
is a sum s = sum_i phi_i(x_i), and a Gaussian of s is the output: so training finds functions whose sum is constant on
the table's rows, which is a relation of the columns. The covariances of the phi_i tell which columns it is between.

Source: Liu et al., KAN (arXiv 2404.19756), section 4.2. Beyond it, groups and scores by covariances.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ..arguments import integer, number
from ..devices import HOST
from ..network import KAN

STEPS = 20
GAIN = 0.005  # of the score, that a further column of a group has to bring


class Relation(NamedTuple):
    """Columns that depend on each other: sum_i phi_i(x_i) is about constant.

    score: 1 - variance of that sum / sum of the variances of the phi_i, on rows that were held out: 1 for an exact
    relation, 0 for independent columns. The mean over the seeds that found it. seeds: the number of those.
    """

    columns: tuple[int, ...]
    score: float
    seeds: int


def relations(x: Tensor, seeds: Iterable[int] = range(5), grid: int = 5, threshold: float = 0.9) -> list[Relation]:
    """Groups of columns of a table that depend on each other, those that the most seeds find first.

    Args:
        x: rows [N, n], a few hundred or more. A fifth of them is held out for the scores.
        seeds: of the networks, of the shuffled columns and of the held-out rows. With each, networks are trained one
            after the other, without the columns of the relations found before, until a score is below the threshold.
        grid: number of intervals of the functions phi_i, which are splines.
        threshold: the least score of a relation.

    Raises TypeError or ValueError that name the argument, its value and what was expected.
    """
    rows, found = _standardised(x), {}
    grid, threshold = integer("grid", grid, 1), number("threshold", threshold, 0.0, 1.0)
    for seed in seeds:
        left = list(range(rows.shape[1]))
        while len(left) > 1:
            group, score = _strongest(_covariance(rows[:, left], integer("seeds", seed, 0), grid))
            if score < threshold:
                break
            columns = tuple(left[i] for i in group)
            found.setdefault(columns, []).append(score)
            left = [i for i in left if i not in columns]
    merged = [Relation(columns, sum(scores) / len(scores), len(scores)) for columns, scores in found.items()]
    return sorted(merged, key=lambda relation: (-relation.seeds, -relation.score))


def _standardised(x: Tensor) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError(f"x is a {type(x).__name__}: expected a tensor [N, n]")
    if x.dim() != 2 or len(x) < 10 or x.shape[1] < 2:
        raise ValueError(f"x has shape {list(x.shape)}: expected [N, n] with at least 10 rows and 2 columns")
    rows = x.detach().to(HOST, torch.float64)
    if not rows.isfinite().all():
        raise ValueError("x has NaN or infinite values: expected finite ones")
    scale = rows.std(0)
    return (rows - rows.mean(0)) / torch.where(scale > 0, scale, 1.0)


def _covariance(rows: Tensor, seed: int, grid: int) -> Tensor:
    """Of the values phi_i(x_i) on held-out rows, after training on the others."""
    generator = torch.Generator("cpu").manual_seed(seed)
    order = torch.randperm(len(rows), generator=generator)
    held_out, real = rows[order[: len(rows) // 5]], rows[order[len(rows) // 5 :]]
    shuffled = torch.stack([c[torch.randperm(len(c), generator=generator)] for c in real.T], 1)
    labels = torch.cat([torch.ones_like(real[:, :1]), torch.zeros_like(real[:, :1])])
    # With smaller edges than usual at the start, the Gaussian's slope is not 0 yet.
    model = KAN(
        [rows.shape[1], 1, 1], grid=grid, noise_scale=0.3, scale_base_sigma=0.3, seed=seed, device=HOST,
        dtype=torch.float64,
    )  # fmt: skip
    model.fix_symbolic(1, 0, 0, "gaussian", fit_params_bool=False, verbose=False)
    model.fit((torch.cat([real, shuffled]), labels), steps=STEPS, progress=False)
    model.get_act(held_out)
    return model.spline_postacts[0][:, 0].T.cov()


def _strongest(covariance: Tensor) -> tuple[list[int], float]:
    """The group of columns of the highest score, and the score: from every pair, columns are added while that brings
    GAIN, and then left out while it costs less."""
    count = range(len(covariance))
    groups = []
    for pair in torch.combinations(torch.arange(len(covariance))).tolist():
        score, group = _score(covariance, pair), pair
        while more := [(_score(covariance, [*group, i]), [*group, i]) for i in count if i not in group]:
            if max(more)[0] < score + GAIN:
                break
            score, group = max(more)
        while less := [
            (_score(covariance, rest), rest) for i in group if len(rest := [j for j in group if j != i]) > 1
        ]:
            if max(less)[0] <= score - GAIN:
                break
            score, group = max(less)
        groups.append((score, sorted(group)))
    score, group = max(groups)
    return group, score


def _score(covariance: Tensor, group: list[int]) -> float:
    part = covariance[group][:, group]
    return float(1 - part.sum() / part.trace()) if part.trace() > 0 else 0.0
