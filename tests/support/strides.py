"""Tensors of any strides, as hypothesis draws them."""

from dataclasses import replace

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from fastkan.basis.base import BASES
from fastkan.basis.bspline import OUTSIDE
from fastkan.testing import KNOTS, Problem

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def transposed(t: torch.Tensor) -> torch.Tensor:
    return t.mT.contiguous().mT if t.dim() > 1 else t


def strided(t: torch.Tensor) -> torch.Tensor:
    """Every other element of a larger tensor, from an odd offset."""
    larger = t.new_full([2 * n + 3 for n in t.shape], torch.nan)
    view = larger[tuple(slice(1, 2 * n + 1, 2) for n in t.shape)]
    return view.copy_(t)


def permuted(t: torch.Tensor) -> torch.Tensor:
    dims = list(range(1, t.dim())) + [0]
    back = [dims.index(d) for d in range(t.dim())]
    return t.permute(dims).contiguous().permute(back)


def expanded(t: torch.Tensor) -> torch.Tensor:
    """Its first row for every row; another tensor, but a legal one."""
    return t[:1].expand(t.shape) if t.dim() and t.shape[0] else t


def scalar(t: torch.Tensor) -> torch.Tensor:
    """One element for all of them, as .sum().backward() makes it."""
    return t.reshape(-1)[:1].view([1] * t.dim()).expand(t.shape) if t.numel() else t


def with_space_between_rows(t: torch.Tensor) -> torch.Tensor:
    return t.new_full([t.shape[0], t.shape[1] + 3], torch.nan)[:, 2:-1].copy_(t)


LAYOUTS = (torch.Tensor.contiguous, transposed, strided, permuted, expanded, scalar)


@st.composite
def problems(draw, smallest: int = 0, rows: tuple = (33, 70), outputs: tuple = (17, 65)) -> Problem:
    """Sizes up to 9, or these."""
    sizes = st.integers(smallest, 9)
    p = Problem.random(
        draw(st.one_of(sizes, st.sampled_from(rows))), draw(sizes), draw(st.one_of(sizes, st.sampled_from(outputs))),
        draw(st.integers(1, 12)),
        draw(st.integers(0, 5)), order=draw(st.integers(0, 3)), base=draw(st.sampled_from((None, *BASES))),
        outside=draw(st.sampled_from(OUTSIDE)), knots=draw(st.sampled_from(KNOTS)), per_input=draw(st.booleans()),
        weighted=draw(st.booleans()), with_bias=draw(st.booleans()),
        dtype=draw(st.sampled_from((torch.float64, torch.float32, torch.bfloat16))), seed=draw(st.integers(0, 99)),
    )  # fmt: skip
    layouts = {}
    for name in ("x", "s", "u", "coef", "base_weight", "bias", "grid", "terms"):
        tensor = getattr(p, name)
        if tensor is not None:
            # x keeps its values, which are away from the knots of its own column; a grid row's knots lie side by side
            kinds = {"x": LAYOUTS[:4], "grid": (torch.Tensor.contiguous, with_space_between_rows)}.get(name, LAYOUTS)
            layouts[name] = draw(st.sampled_from(kinds))(tensor)
    return replace(p, **layouts)
