"""pykan's tutorials with pykan and with fastkan: the same code, in fresh processes with one thread, in float64.

The result of a training depends on chance: so a task runs from several seeds, the same ones with both packages, and
medians are compared. Times are those of the task without the imports; CPU time is meaningful on a busy machine, wall
time is not. Each package has LIMIT seconds of CPU time per task: then a run is stopped, and no further seed starts.
"""

import contextlib
import functools
import io
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, stdev

import torch

from fastkan.measure.correctness import Unavailable
from fastkan.measure.progress import bar

from .peers import installed
from .tasks import api, example, interp, physics

LIMIT, SEEDS = 60, 10
EXACT = 1e-8  # below it the formula was recovered, and the rest is rounding
LABELS = {"fastkan": "fastkan", "pykan": "pykan"}
# Without the tutorials that train nothing: API 1 to 5 and 11, Interp 2, 5 and 11.
TASKS: dict[str, Callable[[object, int], dict]] = {
    "hellokan": api.hellokan,
    "API 6": api.training_hyperparameters,
    "API 7": api.pruning,
    **{f"API 8, {metric}": functools.partial(api.regularization, metric=metric) for metric in api.METRICS},
    "API 9": api.videos,
    "API 10": api.device,
    "API 12": api.checkpoints,
    "Example 1": example.function_fitting,
    "Example 3": example.deep_formulas,
    "Example 4, regression": example.classification_by_regression,
    "Example 4": example.classification,
    "Example 5": example.special_functions,
    "Example 6": example.pde_interpretation,
    "Example 7": example.pde_accuracy,
    "Example 8": example.continual_learning,
    "Example 9": example.singularity,
    "Example 9, origin": example.singularity_at_the_origin,
    "Example 10": example.relativity,
    "Example 11": example.encouraging_linearity,
    "Example 12": example.unsupervised_learning,
    "Example 13": example.phase_transition,
    "Example 14": example.knots_supervised,
    "Example 15": example.knots_unsupervised,
    "Interp 1": interp.hello_multkan,
    "Interp 3": interp.compiler,
    "Interp 4": interp.feature_attribution,
    "Interp 6": interp.symmetry_of_a_trained_network,
    "Interp 8": interp.auxiliary_variables,
    "Interp 9": interp.plotting_metrics,
    "Interp 10A, KAN": functools.partial(interp.swap, kind="KAN"),
    "Interp 10A, MLP": functools.partial(interp.swap, kind="MLP"),
    "Interp 10B": interp.swap_of_sums,
    "Interp 10, Hessian": interp.hessian,
    "Physics 1": physics.lagrangian,
    "Physics 2A": physics.conservation_law,
    "Physics 2B": physics.conservation_law_in_2d,
    "Physics 3, KAN": functools.partial(physics.black_hole, kind="KAN"),
    "Physics 3, MLP": functools.partial(physics.black_hole, kind="MLP"),
    "Physics 4A": physics.constitutive_law,
    "Physics 4B": physics.constitutive_law_with_prior,
    "Physics 4C": physics.constitutive_law_without_prior,
    "Community 1": physics.navier_stokes,
}
FULL = tuple(TASKS)
TINY = ("API 8, edge_forward_sum",)


def rows(which: Sequence[str], rounds: int) -> list[dict[str, object]]:
    """One row per task and package, over up to min(rounds, SEEDS) seeds, as many as LIMIT allows."""
    return [_row(name, peer, min(rounds, SEEDS)) for name in bar(which, "tutorials") for peer in LABELS]


def _row(name: str, peer: str, seeds: int) -> dict[str, object]:
    try:
        if peer == "pykan":
            installed("kan", "pykan")
    except Unavailable as absent:
        return summary(name, peer, [], str(absent))
    runs: list[dict] = []
    while len(runs) < seeds and sum(run["cpu_seconds"] for run in runs) < LIMIT:
        done = subprocess.run(
            [sys.executable, "-m", "bench.tutorials", name, peer, str(len(runs))], capture_output=True, text=True,
            cwd=Path(__file__).parent.parent, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            reason = f"stopped after {LIMIT} s" if done.returncode < 0 else f"fails: {last}"
            return summary(name, peer, runs, f"seed {len(runs)}: {reason}" if runs else reason)
        runs.append(json.loads(done.stdout))
    return summary(name, peer, runs)


def summary(name: str, peer: str, runs: Sequence[dict], reason: str = "") -> dict[str, object]:
    """A row: medians over the runs of `measured`, and the first number of each run."""
    row = {"tutorial": name, "peer": peer, "seeds": len(runs), "cpu_seconds": "", "seconds": "", "result": "",
           "each": "", "reason": reason}  # fmt: skip
    if not runs:
        return row
    numbers = {key: [run["numbers"][key] for run in runs] for key in runs[0]["numbers"]}
    seconds = {key: f"{median(run[key] for run in runs):.4g}" for key in ("cpu_seconds", "seconds")}
    result = "; ".join(f"{key}: {median(values):.3g}" for key, values in numbers.items())
    return row | seconds | {"result": result, "each": " ".join(f"{v:.4g}" for v in next(iter(numbers.values())))}


def each(row: dict[str, str]) -> list[float]:
    """The result of every seed, as a loss: 1 - accuracy for accuracies."""
    values = [float(value) for value in row["each"].split()]
    return [1 - value for value in values] if row["result"].partition(":")[0].endswith("accuracy") else values


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ratios of results from the same seeds, for the seeds that both finished."""
    return [max(a, EXACT) / max(b, EXACT) for a, b in zip(ours, theirs, strict=False)]


def chance(known: Sequence[float], runs: int) -> float:
    """Upper bound of the median of `runs` ratios if both packages are equally good.

    From the same start the two trainings diverge by rounding, so that their results differ by chance. If the logarithms
    have the standard deviation s, the median of n deviates by sqrt(pi / 2) s / sqrt(n); three times that is allowed,
    and 1 % more for results that are almost the same. With one seed s is unknown, and the bound is 2.
    """
    if len(known) < 2:
        return 2.0
    return 1.01 * math.exp(3 * stdev(map(math.log, known)) * math.sqrt(math.pi / 2 / runs))


def measured(name: str, peer: str, seed: int) -> dict[str, object]:
    """Run the task in this process, in a temporary folder: seconds, and the numeric results."""
    import matplotlib

    matplotlib.use("Agg")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    if peer == "fastkan":
        from fastkan.compat import pykan

        pykan.install()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()):
            import kan
            import kan.MLP

            used = time.process_time()
            resource.setrlimit(resource.RLIMIT_CPU, (int(used) + LIMIT, resource.RLIM_INFINITY))
            torch.manual_seed(0)
            start = time.perf_counter()
            found = TASKS[name](kan, seed)
            seconds = time.process_time() - used, time.perf_counter() - start
    numbers = {key: worst(float(value)) for key, value in found.items() if is_number(value)}
    return {"cpu_seconds": seconds[0], "seconds": seconds[1], "numbers": numbers}


def worst(value: float) -> float:
    """NaN, as from the logarithm of a negative number in a formula, counts as infinitely bad."""
    return math.inf if math.isnan(value) else value


def is_number(value: object) -> bool:
    scalar = hasattr(value, "item") and getattr(value, "ndim", 1) == 0
    return scalar or (isinstance(value, int | float) and not isinstance(value, bool))


if __name__ == "__main__":
    print(json.dumps(measured(*sys.argv[1:3], int(sys.argv[3]))))
