"""The papers' experiments: each runs quickly, and the page of the documentation is that of the committed results."""

import sys
from pathlib import Path

import pytest

from fastkan.measure.provenance import read_csv

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from examples.papers import __main__ as papers  # noqa: E402


@pytest.mark.long
@pytest.mark.parametrize("name", papers.NAMES)
def test_an_experiment_runs(name, tmp_path):
    rows = papers.experiment(name).save(name, quick=True, folder=tmp_path)
    committed = read_csv(ROOT / "docs" / "papers" / f"{name}.csv")
    assert papers.columns(rows) == papers.columns(committed) and len(rows) == len(committed)
    assert (tmp_path / f"{name}.png").stat().st_size > 1000


def test_the_page_is_that_of_the_results():
    assert (ROOT / "docs" / "papers.md").read_text() == papers.page()


def test_poisson_within_what_was_claimed():
    rows = {row["network"]: float(row["mean square error"]) for row in read_csv(ROOT / "docs/papers/poisson.csv")}
    assert rows["fastkan [2, 10, 1], LM"] < 1e-8 and rows["fastkan [2, [0, 1], 1], LM"] < 1e-11


def test_special_functions_within_what_was_claimed():
    rows = read_csv(ROOT / "docs/papers/special.csv")
    assert len(rows) == 15 and all(float(row["fastkan's RMSE"]) < float(row["paper's KAN"]) for row in rows)


def test_toy_functions_within_what_was_claimed():
    rows = [row for row in read_csv(ROOT / "docs/papers/toys.csv") if row["network"].startswith("fastkan")]
    least = [min(map(float, row["RMSE"].split())) for row in rows]
    assert all(error < bound for error, bound in zip(least, (1e-9, 1e-9, 1e-9, 1e-6, 1e-4), strict=True))
    assert all(float(row["slope"]) < -3.7 for row in rows[:3])


def test_differential_equations_below_the_published_networks():
    for name in ("pdes", "fronts"):
        rows = read_csv(ROOT / "docs" / "papers" / f"{name}.csv")
        for equation in {row["equation"] for row in rows}:
            found = [row for row in rows if row["equation"] == equation]
            ours = [row for row in found if "fastkan" in row["network"]]
            published = [row for row in found if "paper's" in row["network"]]
            assert ours and all(
                float(our["relative L2 error"]) < float(other["relative L2 error"])
                and int(our["parameters"]) < int(other["parameters"])
                for our in ours
                for other in published
            )


def test_feynmans_equations_within_what_was_claimed():
    for row, share in zip(read_csv(ROOT / "docs/papers/feynman.csv"), (0.75, 0.6, 0.4), strict=True):
        assert int(row["found"]) >= share * int(row["equations"]) and int(row["wrongly called exact"]) == 0
        assert float(row["median seconds"]) <= 20
