"""Interleaved timing of several layers, each checked for correctness first."""

import gc
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median, quantiles

import torch

from .correctness import Build, Candidate, Case, Checker, Operands, Unavailable

SAMPLE_SECONDS = 5e-3
PHASES = ("forward", "forward+backward")


@dataclass
class Result:
    """Times of one candidate in one phase of one case, in seconds per call; empty if it was not timed, see `reason`."""

    case: Case
    peer: str
    phase: str
    parameters: int = 0
    error: float | None = None  # the largest error / tolerance; None: computes another function
    reason: str = ""
    times: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)  # to the first candidate, per round
    repeats: int = 0

    @property
    def seconds(self) -> float:
        return median(self.times)

    @property
    def ratio(self) -> float:
        return median(self.ratios)


def quartiles(samples: list[float]) -> tuple[float, float]:
    """Lower and upper quartile."""
    if len(samples) < 2:
        return samples[0], samples[0]
    low, _, high = quantiles(samples, n=4, method="inclusive")
    return low, high


Progress = Callable[[Iterable[int], str], Iterable[int]]


def silent(items: Iterable[int], label: str) -> Iterable[int]:
    """No-op progress bar."""
    return items


def wall_clock(run: Callable[[], object], repeats: int) -> float:
    """Mean seconds per call of `repeats` consecutive calls."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


Sample = Callable[[Callable[[], object], int], float]


def event_clock(run: Callable[[], object], repeats: int) -> float:
    """Mean seconds per call of `repeats` consecutive calls, by CUDA events of the current stream."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e-3 / repeats


def clock(device: torch.device) -> Sample:
    """The clock of a device: event_clock on a GPU."""
    return event_clock if device.type == "cuda" else wall_clock


def time_interleaved(
    runs: dict[str, Callable[[], object]],
    rounds: int,
    sample_seconds: float = SAMPLE_SECONDS,
    progress: Progress = silent,
    label: str = "",
    sample: Sample = wall_clock,
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Time each run once per round, rotating the order by one from round to round.

    A sample is the mean of as many calls as take `sample_seconds`. Returns name -> samples in seconds per call, and
    name -> calls per sample.
    """
    repeats = {name: _calibrate(run, sample_seconds, sample) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for r in progress(range(rounds), label):
            shift = r % len(names)
            for name in names[shift:] + names[:shift]:
                times[name].append(sample(runs[name], repeats[name]))
    finally:
        if collecting:
            gc.enable()
    return times, repeats


def _calibrate(run: Callable[[], object], sample_seconds: float, sample: Sample) -> int:
    """Number of calls that take sample_seconds, by doubling; these calls are the warm-up too."""
    sample(run, 1)
    repeats = 1
    while (seconds := repeats * sample(run, repeats)) < sample_seconds:
        repeats = max(2 * repeats, min(math.ceil(repeats * sample_seconds / seconds), 16 * repeats))
    return repeats


def measure(
    case: Case,
    peers: dict[str, Build],
    rounds: int,
    *,
    phases: Iterable[str] = PHASES,
    sample_seconds: float = SAMPLE_SECONDS,
    progress: Progress = silent,
    seed: int = 0,
    device: torch.device | str = "cpu",
    sample: Sample = wall_clock,
    prepare: Callable[[str, Candidate], None] | None = None,
) -> list[Result]:
    """Check and time all peers at one case. Ratios are to the first peer, which must be able to run.

    `prepare` is called with every candidate that passed the check, before it is timed.
    """
    problem = Operands.of(case, seed, device)
    checker = Checker(problem)
    passed, failed = {}, {}
    for name, build in peers.items():
        candidate, error, reason = _build_and_check(name, build, problem, checker, prepare)
        if reason:
            failed[name] = (error, reason)
        else:
            passed[name] = (candidate, error)
    first = next(iter(peers))
    results = []
    for phase in phases:
        runs = {name: c.infer if phase == "forward" else c.train for name, (c, _) in passed.items()}
        times, repeats = time_interleaved(runs, rounds, sample_seconds, progress, f"{case}, {phase}", sample)
        for name in peers:
            if name in failed:
                error, reason = failed[name]
                results.append(Result(case, name, phase, error=error, reason=reason))
                continue
            candidate, error = passed[name]
            ratios = [a / b for a, b in zip(times[name], times[first], strict=True)] if first in times else []
            results.append(
                Result(
                    case, name, phase, candidate.parameter_count, error,
                    times=times[name], ratios=ratios, repeats=repeats[name],
                )
            )  # fmt: skip
    return results


def _build_and_check(
    name: str, build: Build, problem: Operands, checker: Checker, prepare: Callable[[str, Candidate], None] | None
) -> tuple[Candidate | None, float | None, str]:
    """The candidate, its error / tolerance, and the reason not to time it, or ''."""
    try:
        candidate = build(problem)
        if candidate.gradients is None:
            candidate.train()
            error, reason = None, ""
        else:
            error, reason = checker.check(candidate)
        if prepare and not reason:
            prepare(name, candidate)
    except Unavailable as reason:
        return None, None, str(reason)
    except Exception as failure:  # another library's failure is a row of the table and does not end the run
        first_line = str(failure).strip().partition("\n")[0]
        return None, None, f"fails: {type(failure).__name__}: {first_line}"
    return candidate, error, f"wrong: {reason}" if reason else ""


def csv_rows(results: Iterable[Result]) -> list[dict[str, object]]:
    return [_csv_row(r) for r in results]


def _csv_row(r: Result) -> dict[str, object]:
    c = r.case
    row = {
        "batch": c.batch,
        "in_features": c.in_features,
        "out_features": c.out_features,
        "grid_size": c.grid_size,
        "degree": c.degree,
        "dtype": c.arithmetic,
        "phase": r.phase,
        "peer": r.peer,
        "parameters": r.parameters,
        "error_over_tolerance": "" if r.error is None else f"{r.error:.3g}",
        "reason": r.reason,
        "rounds": len(r.times),
        "repeats": r.repeats,
    }
    numbers: dict[str, object] = dict.fromkeys(
        ("seconds", "seconds_q1", "seconds_q3", "ratio", "ratio_q1", "ratio_q3"), ""
    )
    if r.times:
        spread = (r.seconds, *quartiles(r.times), r.ratio, *quartiles(r.ratios))
        numbers = {k: f"{v:.4g}" for k, v in zip(numbers, spread, strict=True)}
    return row | numbers
