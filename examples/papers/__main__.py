"""python -m examples.papers [NAME ...] [--quick]: run experiments, write their results, and print the tables.

Without names all of them. The page of the documentation is made of the results: python -m examples.papers --page.
"""

import argparse
import importlib
import time
from pathlib import Path

from fastkan.measure.provenance import environment, read_csv

from .experiment import FOLDER, Experiment, markdown

NAMES = (
    "toys", "special", "feynman", "formulas", "poisson", "pdes", "fronts", "continual", "unsupervised", "knots",
    "anderson", "physics", "laws", "tabular",
)  # fmt: skip


def experiment(name: str) -> Experiment:
    return importlib.import_module(f".{name}", __package__).EXPERIMENT


def columns(rows: list[dict]) -> list[str]:
    """The experiment's own columns, without those of the measurement."""
    return [name for name in rows[0] if name not in environment()]


def page() -> str:
    """The page of the documentation."""
    parts = [
        "# The papers' experiments\n\nEvery table and figure comes from one command, `python -m examples.papers NAME`, "
        "in a clone of the repository after `make build`; `make papers` runs all of them.\n"
    ]
    for name in NAMES:
        found, rows = experiment(name), read_csv(FOLDER / f"{name}.csv")
        run = f"`python -m examples.papers {name}`, {rows[0].get('cpu', '')}, {rows[0].get('date', '')[:10]}."
        parts.append(
            f"## {found.title}\n\n{found.source}.\n\n{found.text}\n\n{markdown(rows, columns(rows))}\n\n"
            f"![{found.title}](papers/{name}.png)\n\n{run}\n"
        )
    return "\n".join(parts)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m examples.papers", description="The experiments of the KAN papers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; by default all")
    parser.add_argument("--quick", action="store_true", help="fewer steps and points: to see that it runs")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results")
    parser.add_argument("--page", action="store_true", help="only the figures and the page, from the committed results")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in NAMES:
            parser.error(f"NAME={name!r}: expected one of {', '.join(NAMES)}")
    for name in () if arguments.page else arguments.names or NAMES:
        start = time.perf_counter()
        rows = experiment(name).save(name, arguments.quick, arguments.out)
        print(f"{name}: {time.perf_counter() - start:.0f} s\n{markdown(rows, columns(rows))}\n")
    for name in NAMES if arguments.page else ():
        experiment(name).picture(name, read_csv(FOLDER / f"{name}.csv"))
    if arguments.out == FOLDER:
        (FOLDER.parent / "papers.md").write_text(page())


if __name__ == "__main__":
    main()
