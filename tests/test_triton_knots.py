"""What the Triton kernels read of the knots: the same numbers as from float64 knots, made once for a grid."""

import pytest
import torch

from fastkan.basis.families import FAMILIES as ROWS
from fastkan.spec import FAMILIES, Spec
from support.problems import DOUBLE, SINGLE

pytest.importorskip("triton")

from fastkan.backends.triton import knots
from fastkan.backends.triton.knots import knots_of

CUBIC = Spec.of(3, "silu", "zero", True)


@pytest.fixture
def made(monkeypatch) -> list[torch.Tensor]:
    """The knots that were made and not kept, as outside of Triton's interpreter."""
    monkeypatch.setattr(knots, "INTERPRETED", False)
    monkeypatch.setattr(knots, "_made", {})
    found, original = [], knots._knots

    def make(*args):
        found.append(original(*args))
        return found[-1]

    monkeypatch.setattr(knots, "_knots", make)
    return found


def grid() -> torch.Tensor:
    return torch.rand(3, 1, dtype=DOUBLE) + torch.linspace(0, 2, 9, dtype=DOUBLE)


def test_origin_and_scale_of_uniform_knots():
    g = grid()
    served = ["bspline", *(name for name, row in ROWS.items() if row.kernels)]
    for family, unit in zip(served, (0.25, 0.25, 1.0), strict=True):
        high, low, inverse = knots_of(g, CUBIC._replace(family=FAMILIES.index(family)), SINGLE).unbind(1)
        assert torch.equal(high, g[:, 0].float())
        assert torch.allclose(high.double() + low.double(), g[:, 0], rtol=0, atol=1e-14)
        torch.testing.assert_close(inverse, torch.full((3,), 1 / unit))
        high, low, inverse = knots_of(g, CUBIC, DOUBLE).unbind(1)
        assert torch.equal(high, g[:, 0]) and not low.any() and inverse.dtype == DOUBLE


def test_any_knots_in_the_coordinates_type():
    g = grid().T.contiguous().T
    found = knots_of(g, CUBIC._replace(uniform=False), SINGLE)
    assert torch.equal(found, g.float()) and found.is_contiguous()


def test_knots_are_made_once_for_a_grid(made):
    g = grid()
    first = knots_of(g, CUBIC, SINGLE)
    assert knots_of(g.view(3, 9), CUBIC, SINGLE) is first and len(made) == 1
    knots_of(g, CUBIC, DOUBLE)
    knots_of(g, CUBIC._replace(uniform=False), SINGLE)
    knots_of(g, CUBIC._replace(family=2), SINGLE)
    assert len(made) == 4


def test_a_grid_that_was_written_to_has_new_knots(made):
    g = grid()
    knots_of(g, CUBIC, SINGLE)
    g += 1
    found = knots_of(g, CUBIC, SINGLE)
    assert len(made) == 2 and torch.equal(found[:, 0], g[:, 0].float())
    assert knots_of(g, CUBIC, SINGLE) is found


def test_a_grid_at_the_place_of_a_dead_one_has_its_own_knots(made):
    for shift in range(20):  # memory is used again
        g = grid() + shift
        assert torch.equal(knots_of(g, CUBIC, SINGLE)[:, 0], g[:, 0].float())
        del g


def test_few_knots_are_kept(made, monkeypatch):
    monkeypatch.setattr(knots, "_MOST", 4)
    alive = [grid() for _ in range(3)]
    for g in alive:
        knots_of(g, CUBIC, SINGLE)
    for _ in range(10):
        knots_of(grid(), CUBIC, SINGLE)
    assert len(knots._made) <= 4
    with torch.inference_mode():
        knots_of(grid(), CUBIC, SINGLE)  # has no version: kept nowhere
    assert len(knots._made) <= 4 and len(made) >= 13
