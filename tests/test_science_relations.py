"""relations: groups of columns that depend on each other."""

import pytest
import torch

from fastkan import science


def table(rows: int) -> torch.Tensor:
    """Column 2 depends on 0 and 1, column 3 on 5; 4 is independent."""
    x = 2 * torch.rand(rows, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1
    x[:, 2] = torch.exp(torch.sin(torch.pi * x[:, 0]) + x[:, 1] ** 2)
    x[:, 3] = 100 * x[:, 5] ** 3
    return x


def test_every_seed_finds_both_relations():
    found = science.relations(table(400), range(2))
    assert {(r.columns, r.seeds) for r in found} == {((0, 1, 2), 2), ((3, 5), 2)}
    assert all(0.999 < r.score <= 1 for r in found)
    assert found == science.relations(table(400), range(2))


def test_none_between_independent_columns():
    assert science.relations(torch.rand(300, 3, generator=torch.Generator().manual_seed(0)), [0]) == []


def test_constant_columns_are_no_relation():
    x = table(300)[:, :2]
    x[:, 1] = 3.0
    assert science.relations(x, [0]) == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1.0, 2.0]],), TypeError, "x is a list"),
        ((torch.zeros(20),), ValueError, "x has shape"),
        ((torch.full((20, 2), torch.nan),), ValueError, "x has NaN"),
        ((table(20), ["a"]), TypeError, "seeds"),
        ((table(20), [0], 0), ValueError, "grid"),
        ((table(20), [0], 5, 2.0), ValueError, "threshold"),
    ],
)
def test_errors_name_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        science.relations(*arguments)
