"""Problems of the six contractions, with what the reference gives for them on the host."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..kinds import Kind
from ..select import functions_of
from ..testing import CONTRACTIONS, TF32, Expected, Problem, assert_expected, call, expected, on_knots
from .accelerator import Results

# rows, inputs, outputs, grid size: one of each; odd; whole tiles; many rows, which are split; many edges; narrow; many
# intervals. Derivatives on the first three.
SHAPES = (
    (1, 1, 1, 3), (33, 5, 7, 4), (128, 16, 32, 5), (3000, 3, 9, 5), (5, 70, 136, 5), (700, 1, 1, 9), (90, 3, 8, 40),
)  # fmt: skip
_BASES = ("silu", None, "identity")


@dataclass(frozen=True)
class Case:
    """Operands on the host, the contractions to run, and the results that they must have."""

    label: str
    problem: Problem
    contractions: tuple[str, ...]
    expected: list[list[Expected]]

    @classmethod
    def of(cls, label: str, problem: Problem, contractions: tuple[str, ...] = CONTRACTIONS) -> "Case":
        return cls(label, problem, contractions, [expected(contraction, problem) for contraction in contractions])

    def on(self, device: torch.device) -> Problem:
        return self.problem.on(device)

    def run(self, functions: Any, operands: Problem) -> Results:
        return tuple(t for contraction in self.contractions for t in call(functions, contraction, operands))

    def check(self, results: Results, how: str = "") -> None:
        """AssertionError with the case, the contraction, the error and its bound."""
        at = 0
        for contraction, of in zip(self.contractions, self.expected, strict=True):
            try:
                assert_expected(contraction, results[at : at + len(of)], of)
            except AssertionError as error:
                raise AssertionError(f"{how or self.label}: {error}") from None
            at += len(of)


def varied(operands: Problem) -> tuple[Tensor, ...]:
    """The operands that change from one call to the next."""
    return operands.x, operands.u


def problem(kind: Kind, shape: tuple[int, ...], order: int = 0, seed: int = 0) -> Problem:
    """Random operands of that kind; the optional ones alternate with the seed."""
    base, (rows, inputs, outputs, grid_size) = _BASES[seed % 3], shape
    p = Problem.random(
        rows, inputs, outputs, grid_size, kind.degree, order=order, base=base, outside=kind.outside, knots=_knots(kind),
        per_input=bool(seed % 2), weighted=bool((seed + order) % 2), with_bias=seed % 3 < 2, dtype=kind.coef,
        x_dtype=kind.x, seed=seed,
    )  # fmt: skip
    return _of_kind(kind, p, base)


def _knots(kind: Kind) -> str:
    return "promised" if kind.uniform else "uneven"


def _of_kind(kind: Kind, p: Problem, base: str | None) -> Problem:
    return replace(p, spec=kind.spec(base or "zero"), operand_epsilon=TF32 if kind.tf32 else 0.0)


@functools.lru_cache(maxsize=1)
def cases(kind: Kind) -> list[Case]:
    """The same for all implementations, so kept for the next one."""
    found = []
    for seed, shape in enumerate(SHAPES):
        rows, inputs, outputs, grid_size = shape
        for order in range(3 if seed < 3 else 1):
            label = f"{rows} rows, {inputs}->{outputs}, G={grid_size}, order {order}"
            with_order = CONTRACTIONS if order == 0 else CONTRACTIONS[:4]
            found.append(Case.of(label, problem(kind, shape, order, seed), with_order))
    case = Case.of("non-contiguous operands", problem(kind, (30, 4, 6, 5), seed=1))
    strided = {name: _strided(getattr(case.problem, name)) for name in ("x", "s", "u", "coef", "base_weight")}
    found.append(replace(case, problem=replace(case.problem, **strided)))
    p = problem(kind, (9, 4, 5, 6), seed=1)
    p.x[3, 2] = torch.nan
    found.append(Case.of("a NaN in x", p, CONTRACTIONS[:5]))  # edge_backward needs no more: 0 times the sign of NaN
    for order in range(3):
        knots = "promised" if kind.uniform else "even"
        p = on_knots(kind.degree, order, kind.outside, knots, kind.coef, kind.x)
        found.append(Case.of(f"x on knots, order {order}", _of_kind(kind, p, "silu"), CONTRACTIONS[:4]))
    return found


def _strided(t: Tensor | None) -> Tensor | None:
    """The same values, with the last dimension outermost in memory."""
    return None if t is None else t.movedim(-1, 0).contiguous().movedim(0, -1)


@functools.lru_cache(maxsize=1)
def load(kind: Kind, shape: tuple[int, ...]) -> Case:
    """One large case."""
    return Case.of("all contractions", problem(kind, shape, seed=3))


def steps(
    name: str, kind: Kind, shape: tuple[int, ...], device: torch.device
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Forward and backward of a layer by dense and by this implementation."""
    p = replace(problem(kind, shape), s=None).on(device)

    def step(functions) -> None:
        call(functions, "kan_out", p)
        call(functions, "kan_backward", p)

    return functools.partial(step, functions_of("dense")), functools.partial(step, functions_of(name))
