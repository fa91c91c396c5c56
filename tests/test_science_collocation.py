"""Points for differential equations: inside of a box, on its sides, and where a residual is large."""

import pytest
import torch

from fastkan import science

BOX = [(-1.0, 2.0), (0.0, 0.5), (3.0, 4.0)]


def test_points_fill_the_box():
    x = science.collocation_points(512, BOX, seed=3)
    low, high = torch.tensor(BOX, dtype=torch.float64).T
    assert x.shape == (512, 3) and x.dtype == torch.float64 and bool(((x >= low) & (x <= high)).all())
    # Evenly: of a Sobol sequence every quarter of every range has as many.
    counts = torch.stack([((x - low) / (high - low) * 4).long().clamp_max(3)[:, i].bincount() for i in range(3)])
    assert bool((counts - 128).abs().max() <= 2)
    assert torch.equal(x, science.collocation_points(512, BOX, seed=3))
    assert not torch.equal(x, science.collocation_points(512, BOX, seed=4))
    assert science.collocation_points(0, BOX).shape == (0, 3)
    assert science.collocation_points(4, BOX, dtype=torch.float32).dtype == torch.float32


def test_sides():
    sides = science.boundary_points(20, BOX)
    assert len(sides) == 6
    for n, side in enumerate(sides):
        i, end = divmod(n, 2)
        assert side.shape == (20, 3) and bool((side[:, i] == BOX[i][end]).all())
        others = [j for j in range(3) if j != i]
        assert bool((side[:, others].std(0) > 0).all())
    left, right = science.boundary_points(2, [(0.0, 1.0)])
    assert left.tolist() == [[0.0], [0.0]] and right.tolist() == [[1.0], [1.0]]


def test_adaptive_points_are_where_the_residual_is():
    """Half of the points follow the residual: 1 in a tenth of the range, and 0 elsewhere."""
    there = lambda x: (x[:, :1] < 0.1).double()  # noqa: E731
    x = science.adaptive_points(there, 400, [(0.0, 1.0)], seed=1)
    assert x.shape == (400, 1) and len(x.unique()) == 400
    # Shares of the pool: a tenth with 1 / 0.1 + 1 = 11, nine tenths with 1.
    assert float(there(x).mean()) == pytest.approx(11 / 20, abs=0.1)
    even = science.adaptive_points(there, 400, [(0.0, 1.0)], power=0.0, seed=1)
    assert float(there(even).mean()) == pytest.approx(0.1, abs=0.05)
    assert len(science.adaptive_points(lambda x: torch.zeros(len(x), 2), 30, [(0.0, 1.0)])) == 30
    assert science.adaptive_points(there, 0, [(0.0, 1.0)]).shape == (0, 1)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"ranges=\[\(1, 0\)\]: expected \(low, high\)"):
        science.collocation_points(3, [(1, 0)])
    with pytest.raises(ValueError, match="n=-1: expected"):
        science.boundary_points(-1, BOX)
    with pytest.raises(ValueError, match=r"residual returns \[3\]: expected finite numbers, a row for 50 points"):
        science.adaptive_points(lambda x: x[:3, 0], 5, BOX)
    with pytest.raises(ValueError, match="expected finite"):
        science.adaptive_points(lambda x: x[:, 0] / 0, 5, BOX)
