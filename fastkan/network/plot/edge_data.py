"""The data of a diagram: the edges that are on, their scores, and their functions at some points."""

import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..activations import Activations
from ..scores.attribution import from_outputs
from .numbers import bounds

if TYPE_CHECKING:
    from ..model import KAN

POINTS = 101  # of a curve
SAMPLES = 30  # rows of data on a curve
ROWS = 8192  # rows of data for scores and ranges


class Edges(NamedTuple):
    """The E edges of a layer that are on, ordered by input, then output.

    modes: "n" numeric, "s" symbolic, "ns" both. scores [E]. x, y [E, POINTS]: the functions over the range of the data;
    low, high [E, 1]: the range of y, equal where it is constant up to rounding; sample_x, sample_y [E, S]: at rows of
    the data. All in float64 on the CPU.
    """

    inputs: list[int]
    outputs: list[int]
    modes: list[str]
    scores: Tensor
    x: Tensor
    y: Tensor
    low: Tensor
    high: Tensor
    sample_x: Tensor
    sample_y: Tensor

    def only(self, edges: list[int]) -> "Edges":
        """These of the edges, by index."""
        names = ("scores", "x", "y", "low", "high", "sample_x", "sample_y")
        inputs, outputs, modes = ([part[e] for e in edges] for part in (self.inputs, self.outputs, self.modes))
        tensors = {name: getattr(self, name)[edges] for name in names}
        return self._replace(inputs=inputs, outputs=outputs, modes=modes, **tensors)


SCORES = {  # pykan's metrics: lists over layers of [O, I]
    "forward_n": lambda model, record: record.acts_scale,
    "forward_u": lambda model, record: record.edge_actscale,
    "backward": lambda model, record: [score.mean(0) for score in from_outputs(model, record).edges],
}


@torch.no_grad()
def drawn_edges(model: "KAN", x: Tensor | None, metric: str) -> list[Edges]:
    """The edges of every layer, with scores by the metric on x, by default the model's cache_data.

    The model stays as it is. Takes the memory of POINTS + SAMPLES values on every edge, for any number of rows.
    """
    if metric not in SCORES:
        raise ValueError(f"metric={metric!r}: expected one of {', '.join(map(repr, SCORES))}")
    record = activations(model, x).scale_up(model)
    scores = SCORES[metric](model, record)
    points = copy.copy(record)
    points.acts = [torch.cat([_over_range(rows), _ranked(rows)]) for rows in record.acts[:-1]]
    points.acts.append(record.acts[-1])
    layers = []
    for l, y in enumerate(points.spline_postacts(model)):
        inputs, outputs, modes = _edges_on(model, l)
        at = points.acts[l].T[inputs].cpu().double().split([POINTS, len(points.acts[l]) - POINTS], 1)
        values = y[:, outputs, inputs].T.cpu().double().split([POINTS, len(y) - POINTS], 1)
        score = scores[l][outputs, inputs].cpu().double()
        range_of_y = bounds(values[0], min(torch.finfo(y.dtype).eps, torch.finfo(torch.float32).eps))
        layers.append(Edges(inputs, outputs, modes, score, at[0], values[0], *range_of_y, at[1], values[1]))
    return layers


def activations(model: "KAN", x: Tensor | None) -> Activations:
    """The activations on x, by default the model's cache_data: of up to ROWS rows, without rows that are not finite."""
    x = model.cache_data if x is None else x
    if x is None:
        raise ValueError("x=None: expected data, since this model has seen none yet; train it, or call get_act(x) once")
    options = {} if model.last_activations is None else model.last_activations.options
    x = x.detach().to(model.device)
    x = x.reshape(-1, x.shape[-1]) if x.dim() else x
    if len(x) > ROWS:
        x = x[torch.linspace(0, len(x) - 1, ROWS, device=x.device).long()]
    record = Activations(model, x, **options)
    finite = torch.stack([rows.isfinite().all(1) for rows in record.acts]).all(0)
    if int(finite.sum()) < 2:
        raise ValueError(f"x has {int(finite.sum())} rows of {len(x)} with finite activations: expected at least 2")
    return record if bool(finite.all()) else Activations(model, x[finite], **options)


def _edges_on(model: "KAN", l: int) -> tuple[list[int], list[int], list[str]]:
    """Inputs, outputs and modes of the edges that are on."""
    numeric = model.act_fun[l].edge_mask != 0  # I O
    symbolic = (model.symbolic_fun[l].edge_mask.T != 0) & model.symbolic_enabled
    inputs, outputs = (numeric | symbolic).nonzero().T.tolist()
    names = {(True, False): "n", (False, True): "s", (True, True): "ns"}
    flags = zip(numeric[inputs, outputs].tolist(), symbolic[inputs, outputs].tolist(), strict=True)
    return inputs, outputs, [names[flag] for flag in flags]


def _over_range(rows: Tensor) -> Tensor:
    """Equidistant points over the range of every column: [N, I] -> [POINTS, I]."""
    low, high = rows.amin(0), rows.amax(0)
    return torch.lerp(low, high, torch.linspace(0, 1, POINTS, device=rows.device, dtype=rows.dtype)[:, None])


def _ranked(rows: Tensor) -> Tensor:
    """Every column's values at evenly spaced ranks: [N, I] -> [SAMPLES or fewer, I]."""
    ranks = torch.linspace(0, len(rows) - 1, min(SAMPLES, len(rows)), device=rows.device).round().long()
    return rows.sort(0).values[ranks]
