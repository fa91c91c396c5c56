"""An experiment of a paper: what it runs, where its results go, and how they are shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fastkan.measure.provenance import write_csv

FOLDER = Path(__file__).parents[2] / "docs" / "papers"
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Experiment:
    """title and text, in Markdown, for the documentation; source: the paper and its section; run(quick): the rows of
    the table, quick for a test; draw(rows): the paper's figure."""

    title: str
    source: str
    text: str
    run: Callable[[bool], Rows]
    draw: Callable[[Sequence[dict[str, Any]]], Figure]

    def save(self, name: str, quick: bool = False, folder: Path = FOLDER) -> Rows:
        """Run it, and write NAME.csv and NAME.png; returns the rows."""
        rows = self.run(quick)
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / f"{name}.csv", rows)
        self.picture(name, rows, folder)
        return rows

    def picture(self, name: str, rows: Sequence[dict[str, Any]], folder: Path = FOLDER) -> None:
        """Write NAME.png."""
        self.draw(rows).savefig(folder / f"{name}.png", dpi=110, bbox_inches="tight")


def markdown(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """The table of these columns."""
    lines = [columns, ["---"] * len(columns), *([shown(row.get(c, "")) for c in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(value: object) -> str:
    """A number with two digits, other values as they are, and - for none."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value or "-")
    if number == int(number) and abs(number) < 1e6:
        return str(int(number))
    return f"{number:.1e}" if abs(number) < 0.01 else f"{number:.3g}"
