"""python examples/papers/make_knots.py FILE.csv.gz: the data of the experiment `knots`, by SnapPy; takes some minutes.

Needs `pip install snappy==3.3.2 spherogram==2.4.1 database_knotinfo==2026.11.2`. See data/README.md for the columns.
"""

import argparse
import csv
import gzip
import json
import random
from typing import Any

import numpy as np
import snappy  # pyright: ignore[reportMissingImports]
from database_knotinfo import link_list  # pyright: ignore[reportMissingImports]

OF_13 = 900  # knots with 13 crossings
# Lengths up to which geodesics are listed: the list grows exponentially, and the shortest is mostly short.
CUTOFFS = (0.7, 1.1, 1.5, 2.0, 3.0)


def knots() -> list[dict[str, str]]:
    """KnotInfo's rows of hyperbolic knots: to 12 crossings, and a sample of those with 13."""
    rows = [row for row in link_list()[2:] if row["geometric_type"] == "hyperbolic" and row["pd_notation"]]
    large = [row for row in rows if int(row["crossing_number"]) == 13]
    return [row for row in rows if int(row["crossing_number"]) <= 12] + random.Random(0).sample(large, OF_13)


def shortest_geodesic(manifold: Any) -> complex | None:
    """Complex length of a shortest geodesic, by a Dirichlet domain; None if none is found."""
    for attempt in range(6):
        copy = manifold.copy()
        if attempt:
            copy.randomize()
        try:
            domain = copy.dirichlet_domain(maximize_injectivity_radius=attempt % 2 == 0)
            for cutoff in CUTOFFS:
                if found := domain.length_spectrum_dicts(cutoff):
                    return complex(min((geodesic["length"] for geodesic in found), key=lambda z: z.real()))
        except RuntimeError:
            continue
    return None


def invariants(row: dict[str, str]) -> dict[str, Any] | None:
    """A row of the table; None without a shortest geodesic."""
    link = snappy.Link(json.loads(row["pd_notation"]))
    manifold = link.exterior()
    for _ in range(10):
        if manifold.solution_type() == "all tetrahedra positively oriented":
            break
        manifold.randomize()
    geodesic = shortest_geodesic(manifold)
    if geodesic is None:
        return None
    cusp = manifold.cusp_neighborhood()
    cusp.set_displacement(cusp.stopping_displacement())
    meridian, longitude = map(complex, cusp.translations())
    seifert = np.array(link.seifert_matrix())
    eigenvalues = np.linalg.eigvalsh(seifert + seifert.T)
    return {
        "name": row["name"],
        "signature": int((eigenvalues < -1e-9).sum() - (eigenvalues > 1e-9).sum()),
        "genus": link.knot_floer_homology()["seifert_genus"],
        "symmetry": str(manifold.symmetry_group()),
        "short_geodesic_real": geodesic.real,
        "short_geodesic_imag": geodesic.imag,
        "chern_simons": float(manifold.chern_simons()),
        "cusp_volume": float(cusp.volume()),
        "longitudinal_translation": longitude.real,
        "meridional_translation_imag": meridian.imag,
        "meridional_translation_real": meridian.real,
        "volume": float(manifold.volume()),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Compute invariants of knots.")
    parser.add_argument("file", help="to write, .csv.gz")
    rows = []
    path = parser.parse_args().file
    for row in knots():
        if found := invariants(row):
            rows.append({k: format(v, ".14g") if isinstance(v, float) else v for k, v in found.items()})
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
