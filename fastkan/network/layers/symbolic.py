"""SymbolicLayer: the symbolic branch of a layer, y = c f(a x + b) + d on its edges, all edges of a function at once."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...nn.module import Module
from ...snapshot import Snapshot, readable
from . import library
from .names import decode, encode
from .state_dict import prepare_symbolic

ANYWHERE = 0.5  # where every function of the library is defined


class Group(NamedTuple):
    """Edges that share a function: edge e leads from inputs[e] to outputs[e]."""

    function: library.SymbolicFunction
    inputs: Tensor
    outputs: Tensor


class _Plan(NamedTuple):
    """Which calls a forward pass makes, and of which mask and names that is true.

    groups: the edges that are on and have a function, active: whether any edge is on. seen: None where the mask could
    not be looked at; then the groups hold all edges with a function, and active is True.
    """

    groups: list[Group]
    active: bool
    seen: Snapshot | None
    names: list[list[str]]

    def holds(self, mask: Tensor, of_edges: list[list[str]]) -> bool:
        """Names of edges that are off do not matter, and are not looked at where all are."""
        return self.seen.holds(mask) and (
            not self.active
            or self.names == of_edges
            and all(library.SYMBOLIC_LIB.get(group.function.name) is group.function for group in self.groups)
        )


def at_edge(ax: Tensor, b: Tensor, held: Tensor, low: float, high: float) -> Tensor:
    """b of edges [E]; where it is held, -1 or 1, that at which a x [N, E] ends at the low or high edge of a domain."""
    b = torch.where(held < 0, low - ax.amin(0), b)
    return torch.where(held > 0, high - ax.amax(0), b)


class SymbolicLayer(Module):
    """y[n,o] = sum_i mask[o,i] (c f(a x[n,i] + b) + d)[o,i] with a function f of its own on every edge.

    Parameter: affine [O, I, 4], the a, b, c, d of every edge; it takes a gradient while any edge is on. `mask` [O, I]
    is 0 where an edge is off, as all are at the start; `funs_name` [O][I] are the functions' names in
    library.SYMBOLIC_LIB, "0" where there is none. Both may be changed in place. The state dict holds the names too, as
    numbers, see names.py. Parameters of 16 bits are computed with in float32, and the sums are rounded once.
    """

    held: Tensor | None = None  # see domain.hold

    def __init__(self, in_dim: int, out_dim: int, *, device=None, dtype: torch.dtype | None = None):
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.affine = nn.Parameter(torch.zeros(out_dim, in_dim, 4, device=device, dtype=dtype), requires_grad=False)
        self.register_buffer("edge_mask", torch.zeros(out_dim, in_dim, device=device, dtype=dtype))
        self._names = [["0"] * in_dim for _ in range(out_dim)]
        self._plan, self._awake = None, False

    # Whether affine takes a gradient once an edge is on.
    _trainable = True

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Back to the start: no edge is on, or has a function."""
        self.affine.zero_()
        self.edge_mask.zero_()
        self.funs_name = [["0"] * self.in_dim for _ in range(self.out_dim)]
        self._current_plan()

    def forward(self, x: Tensor, singularity_avoiding: bool = False, y_th: float = 10.0) -> Tensor:
        """x [N, I] -> [N, O]. With singularity_avoiding no |f| exceeds y_th by much, see library.SYMBOLIC_LIB."""
        plan = self._current_plan()
        affine, mask = self._wide()
        # Not expand: Inductor's index_add would add every row to the same numbers.
        y = (mask * affine[..., 3]).sum(1).repeat(x.shape[0], 1)
        for group in plan.groups:
            on = mask[group.outputs, group.inputs], plan.seen is not None
            values = self._values(group, x, affine, *on, singularity_avoiding, y_th)
            y = y.index_add(1, group.outputs, values)
        return y.to(self.affine.dtype)

    def _values(
        self, group: Group, x: Tensor, affine: Tensor, weight: Tensor, on: bool, singularity_avoiding: bool, y_th: float
    ) -> Tensor:
        """weight * c f(a x + b) of the edges of a group, [N, E]; on: whether no weight is 0."""
        a, b, c, _ = affine[group.outputs, group.inputs].unbind(1)
        inner = a * x[:, group.inputs].to(a.dtype)
        if self.held is not None:
            b = at_edge(inner, b, self.held[group.outputs, group.inputs], *group.function.domain)
        inner = inner + b
        if not on:  # f may not be finite where an edge that is off would be read
            inner = torch.where(weight != 0, inner, ANYWHERE)
        f = group.function.singular_torch_fn(inner, y_th) if singularity_avoiding else group.function.torch_fn(inner)
        return (weight * c * f).to(a.dtype)

    def edges(self, x: Tensor, **options) -> tuple[Tensor, Tensor, Tensor]:
        """The edges that are on, by themselves: outputs [E], inputs [E] and values [N, E], the mask included."""
        plan, (affine, mask) = self._current_plan(), self._wide()
        outputs, inputs = mask.nonzero().unbind(1)
        values = (mask * affine[..., 3])[outputs, inputs].repeat(x.shape[0], 1)
        position = torch.full_like(mask, -1, dtype=torch.long)
        position[outputs, inputs] = torch.arange(len(outputs), device=x.device)
        for group in plan.groups:
            if plan.seen is None:
                kept = mask[group.outputs, group.inputs] != 0
                group = Group(group.function, group.inputs[kept], group.outputs[kept])
            weight, at = mask[group.outputs, group.inputs], position[group.outputs, group.inputs]
            part = self._values(
                group, x, affine, weight, True,
                options.get("singularity_avoiding", False), options.get("y_th", 10.0),
            )  # fmt: skip
            values = values.index_add(1, at, part)
        return outputs, inputs, values.to(self.affine.dtype)

    def _wide(self) -> tuple[Tensor, Tensor]:
        """affine and mask in the type that is computed in."""
        dtype = torch.promote_types(self.affine.dtype, torch.float32)
        return self.affine.to(dtype), self.edge_mask.to(dtype)

    # Its edges

    def set_edge(self, i: int, j: int, name: str, affine=(1.0, 0.0, 1.0, 0.0), mask: float = 1.0) -> None:
        """Put function `name` with (a, b, c, d) on the edge from i to j and switch it on or off; "0" is none."""
        self.set_edges([(i, j)], [name], torch.as_tensor(affine)[None], mask)

    @torch.no_grad()
    def set_edges(
        self, edges: list[tuple[int, int]], names: list[str], affine: Tensor, mask: float | Tensor = 1.0
    ) -> None:
        """set_edge for edges (i, j), E of them, at once: E names, affine [E, 4], mask for all or [E]."""
        for name in set(names):
            library.get_symbolic(name)
        if edges:
            inputs, outputs = torch.tensor(edges, device=self.affine.device).unbind(1)
            for (i, j), name in zip(edges, names, strict=True):
                self._names[j][i] = name
            self.affine[outputs, inputs] = affine.to(self.affine)
            self.edge_mask[outputs, inputs] = torch.as_tensor(mask).to(self.edge_mask)
        self._plan = None
        self._current_plan()

    def rearranged(self, inputs: list[int | None], outputs: list[int | None]) -> "SymbolicLayer":
        """A layer of these inputs and outputs of the present one, in this order; None makes one without edges."""
        new = SymbolicLayer(len(inputs), len(outputs), device=self.affine.device, dtype=self.affine.dtype)
        pairs = [(j, i, o, n) for j, o in enumerate(outputs) for i, n in enumerate(inputs) if None not in (o, n)]
        for j, i, o, n in pairs:
            new._names[j][i] = self._names[o][n]
        if pairs:
            j, i, o, n = torch.tensor(pairs, device=self.affine.device).unbind(1)
            with torch.no_grad():
                new.affine[j, i] = self.affine[o, n]
                new.edge_mask[j, i] = self.edge_mask[o, n]
        new.trainable = self.trainable
        return new

    @property
    def funs_name(self) -> list[list[str]]:
        """[O][I], the name of every edge's function; may be changed in place or set."""
        return self._names

    @funs_name.setter
    def funs_name(self, names: list[list[str]]) -> None:
        if len(names) != self.out_dim or any(len(row) != self.in_dim for row in names):
            raise ValueError(f"funs_name={names!r}: expected {self.out_dim} lists of {self.in_dim} names")
        self._names = [list(row) for row in names]

    @property
    def mask(self) -> Tensor:
        """[O, I], 0 where an edge is switched off; may be changed in place or set."""
        self._plan = None
        return self.edge_mask

    @mask.setter
    def mask(self, mask: Tensor) -> None:
        with torch.no_grad():
            self.edge_mask.copy_(torch.as_tensor(mask))
        self._plan = None

    @property
    def trainable(self) -> bool:
        """Whether affine takes a gradient while any edge is on; may be set."""
        return self.affine.requires_grad if self._current_plan().active else self._trainable

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        self._trainable = bool(trainable)
        plan = self._current_plan()
        if plan.active and plan.seen is not None:
            self._train_if(True)

    @property
    def device(self) -> torch.device:
        return self.affine.device

    @property
    def groups(self) -> list[Group]:
        """The edges that are on, by their functions."""
        return self._current_plan().groups

    @property
    def active(self) -> bool:
        """Whether any edge is on; if not, forward is zeros. True where that can't be looked at."""
        return self._current_plan().active

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_plan": None}

    def _current_plan(self) -> _Plan:
        mask = self._buffers.get("edge_mask")  # an attribute takes as long as a small layer
        mask = self.edge_mask if mask is None else mask
        if not readable(mask) or (not mask.is_cpu and mask.is_inference()):
            return _Plan(self._grouped(None), True, None, [])
        return self.plan_of(mask)

    def plan_of(self, mask: Tensor) -> _Plan:
        """_current_plan, of the layer's mask where that is known to be readable."""
        plan = self._plan
        if plan is None or not plan.holds(mask, self._names):
            on = (mask != 0).tolist()
            active = any(map(any, on))
            plan = self._plan = _Plan(self._grouped(on), active, Snapshot(mask), [list(row) for row in self._names])
        if plan.active != self._awake:
            self._train_if(plan.active)
        return plan

    def _train_if(self, active: bool) -> None:
        affine = self._parameters.get("affine")
        if affine is None or affine.is_inference() or not affine.is_leaf:
            return  # which take no gradient, or are not the layer's own
        if not active:
            self._trainable = affine.requires_grad
        affine.requires_grad_(active and self._trainable)
        self._awake = active

    def _grouped(self, on: list[list[bool]] | None) -> list[Group]:
        """The edges by function; all that have one where it is not known which are on."""
        found: dict[str, list] = {}
        for j, row in enumerate(self._names):
            for i, name in enumerate(row):
                if name != "0" and (on is None or on[j][i]):
                    found.setdefault(name, []).append((i, j))
        device = self.affine.device
        return [
            Group(library.get_symbolic(name), *torch.tensor(edges, device=device).T.contiguous())
            for name, edges in found.items()
        ]

    # Its state

    def get_extra_state(self) -> Tensor:
        """The names, as numbers in a tensor, as every format of checkpoints takes them."""
        return encode(self._names)

    def set_extra_state(self, state: Tensor) -> None:
        if not state.is_meta:
            self.funs_name = decode(state, self.out_dim, self.in_dim)
            self._current_plan()

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing, unexpected, errors) -> None:
        prepare_symbolic(self, state_dict, prefix)
        try:
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing, unexpected, errors)
        except ValueError as error:
            errors.append(f"{prefix}_extra_state: {error}")
