"""Every Triton kernel for every spec through Triton's front end, without code generation.

    python -m support.triton_frontend [--all]

Prints JSON: the number of kernels by name, and what Triton refuses. It sees what the interpreter, to which kernels are
Python, does not: types that differ between branches, code after a return, what is no constant.
"""

import argparse
import itertools
import json
import random
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from fastkan.backends import triton
from fastkan.backends.triton import features, launch, plan
from fastkan.basis.base import BASES
from fastkan.basis.bspline import OUTSIDE
from fastkan.testing import CONTRACTIONS, Problem, call
from support.families import FEATURES, OUTSIDE_OF, family_problem
from support.problems import BF16, DOUBLE, HALF, SINGLE
from support.triton_driver import Driver, front_end

Case = dict[str, Any]
BACKENDS: dict[str, ModuleType] = {"triton": triton, "triton:features": features}
SHAPE = (40, 3, 5)


def cases() -> list[Case]:
    """Every family, degree, outside, knots, order and algorithm; the other factors at random from a fixed seed."""
    draw = random.Random(0)
    splines = itertools.product(["bspline"], range(6), OUTSIDE, ("promised", "uneven"), (0, 1, 2))
    others = ((family, 0, OUTSIDE_OF[family], "promised", order) for family in FEATURES for order in (0, 1, 2))
    rest = {
        "dtype": (DOUBLE, SINGLE, BF16, HALF), "base": (None, *BASES), "weighted": (False, True),
        "with_bias": (False, True), "splits": (1, 3),
    }  # fmt: skip
    names = ("family", "degree", "outside", "knots", "order")
    return [
        {**dict(zip(names, spec, strict=True)), "algorithm": algorithm, **{k: draw.choice(v) for k, v in rest.items()}}
        for spec in itertools.chain(splines, others)
        for algorithm in ("matrix", "gather")
        if algorithm == "matrix" or spec[0] == "bspline"
    ]


def short(cases: list[Case]) -> list[Case]:
    """All cubics on uniform knots, and of the others enough to hold every pair of (degree, outside, knots, order)."""
    chosen, pairs = [], set()
    for case in cases:
        mine = set(itertools.combinations(((k, case[k]) for k in ("family", "degree", "outside", "knots", "order")), 2))
        usual = case["degree"] == 3 and case["knots"] == "promised"
        if usual or len(mine - pairs) > 2:
            chosen.append(case)
            pairs |= mine
    return chosen


def problem_of(case: Case) -> Problem:
    case = {name: value for name, value in case.items() if name not in ("algorithm", "splits")}
    family = case.pop("family")
    if family == "bspline":
        return Problem.random(*SHAPE, 5, case.pop("degree"), **case)
    return family_problem(family, *SHAPE, **{k: v for k, v in case.items() if k not in ("degree", "outside", "knots")})


def run(cases: list[Case], contractions: tuple[str, ...]) -> Iterator[str]:
    """What Triton refuses, with its reason."""
    for case in cases:
        plan.gather = case["algorithm"] == "gather"
        plan.splits = lambda *_, splits=case["splits"]: splits
        launch.made.cache_clear()
        p = problem_of(case)
        for (name, backend), contraction in itertools.product(BACKENDS.items(), contractions):
            if contraction.startswith("edge") and (case["order"] or case["algorithm"] == "gather"):
                continue
            if backend is features and case["algorithm"] == "gather":
                continue
            try:
                call(backend, contraction, p)
            except Exception as error:
                while error.__cause__ is not None:
                    error = error.__cause__
                words = " ".join(f"{k}={v}" for k, v in case.items())
                yield f"{name} {contraction} {words}: {type(error).__name__}: {str(error).splitlines()[-1]}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m support.triton_frontend", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every case, a minute or two")
    driver = Driver(compile=front_end).use()
    chosen, contractions = cases(), CONTRACTIONS
    if not parser.parse_args().all:  # kan_backward has the code of kan_in and kan_coef
        chosen, contractions = short(chosen), tuple(c for c in CONTRACTIONS if c not in ("kan_in", "kan_coef"))
    refused = list(run(chosen, contractions))
    print(json.dumps({"cases": len(chosen), "kernels": driver.compiled, "refused": refused}))


if __name__ == "__main__":
    main()
