"""SymbolicLayer: the symbolic branch of a layer, y = c f(a x + b) + d on its edges, batched by function."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...devices import HOST
from ...nn.module import Module
from ...snapshot import Snapshot, readable
from . import library
from .names import decode, encode
from .state_dict import prepare_symbolic

ANYWHERE = 0.5  # an argument at which every function of the library is defined


class Group(NamedTuple):
    """Edges with one function: edge e leads from inputs[e] to outputs[e]."""

    function: library.SymbolicFunction
    inputs: Tensor
    outputs: Tensor


class _Plan(NamedTuple):
    """The edges of a forward pass, and the mask and names for which they are valid.

    groups: the edges that are on and have a function; active: any edge is on; edges [2, E]: outputs and inputs of those
    that are on; on [O, I]: which are, on the host. mask: None where the mask was not readable; then the groups have all
    edges with a function, active is True, and edges and on are None.
    """

    groups: list[Group]
    active: bool
    mask: Snapshot | None
    names: list[list[str]]
    edges: Tensor | None = None
    on: Tensor | None = None

    def holds(self, mask: Tensor, names: list[list[str]]) -> bool:
        """Whether the plan is valid for this mask and these names; the names are not compared if all edges are off."""
        return (
            self.mask is not None
            and self.mask.holds(mask)
            and (
                not self.active
                or self.names == names
                and all(library.SYMBOLIC_LIB.get(group.function.name) is group.function for group in self.groups)
            )
        )


def at_edge(ax: Tensor, b: Tensor, held: Tensor, low: float, high: float) -> Tensor:
    """b [E], replaced where held is -1 or 1 so that a x + b, with a x [N, E], ends at `low` or `high` of a domain."""
    b = torch.where(held < 0, low - ax.amin(0), b)
    return torch.where(held > 0, high - ax.amax(0), b)


class SymbolicLayer(Module):
    """y[n,o] = sum_i mask[o,i] (c f(a x[n,i] + b) + d)[o,i] with a function f of its own on every edge.

    Parameter: affine [O, I, 4], the a, b, c, d of every edge; it requires a gradient while any edge is on. `mask`
    [O, I] is 0 where an edge is off, initially all; `funs_name` [O][I] are the functions' names in
    library.SYMBOLIC_LIB, "0" for none. Both may be changed in place. The state dict includes the names, encoded as
    numbers, see names.py. 16-bit parameters are computed with in float32, and the sums are rounded once.
    """

    held: Tensor | None = None  # see domain.hold
    affine: nn.Parameter
    edge_mask: Tensor
    _plan: _Plan | None

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.affine = nn.Parameter(torch.zeros(out_dim, in_dim, 4, device=device, dtype=dtype), requires_grad=False)
        self.register_buffer("edge_mask", torch.zeros(out_dim, in_dim, device=device, dtype=dtype))
        self._names = [["0"] * in_dim for _ in range(out_dim)]
        self._plan, self._was_active = None, False

    _trainable = True  # requires_grad of affine while an edge is on

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialize again: all edges are off and have no function."""
        self.affine.zero_()
        self.edge_mask.zero_()
        self.funs_name = [["0"] * self.in_dim for _ in range(self.out_dim)]
        self._current_plan()

    def forward(self, x: Tensor, singularity_avoiding: bool = False, y_th: float = 10.0) -> Tensor:
        """x [N, I] -> [N, O]. With singularity_avoiding no |f| exceeds y_th by much, see library.SYMBOLIC_LIB."""
        plan = self._current_plan()
        affine, mask = self._wide()
        # repeat, not expand: Inductor's index_add would add every row to the same memory.
        y = (mask * affine[..., 3]).sum(1).repeat(x.shape[0], 1)
        for group in plan.groups:
            weight, all_on = mask[group.outputs, group.inputs], plan.mask is not None
            values = self._values(group, x, affine, weight, all_on, singularity_avoiding, y_th)
            y = y.index_add(1, group.outputs, values)
        return y.to(self.affine.dtype)

    def _values(
        self,
        group: Group,
        x: Tensor,
        affine: Tensor,
        weight: Tensor,
        all_on: bool,
        singularity_avoiding: bool,
        y_th: float,
    ) -> Tensor:
        """weight * c f(a x + b) of the edges of a group, [N, E]; all_on: no weight is 0."""
        a, b, c, _ = affine[group.outputs, group.inputs].unbind(1)
        inner = a * x[:, group.inputs].to(a.dtype)
        if self.held is not None:
            b = at_edge(inner, b, self.held[group.outputs, group.inputs], *group.function.domain)
        inner = inner + b
        if not all_on:  # f may not be finite on an edge that is off
            inner = torch.where(weight != 0, inner, ANYWHERE)
        f = group.function.singular_torch_fn(inner, y_th) if singularity_avoiding else group.function.torch_fn(inner)
        return (weight * c * f).to(a.dtype)

    def edges(self, x: Tensor, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The edges that are on: outputs [E], inputs [E] and values [N, E] times the mask; options of forward."""
        plan, (affine, mask) = self._current_plan(), self._wide()
        outputs, inputs = mask.nonzero().unbind(1) if plan.edges is None else plan.edges
        values = (mask * affine[..., 3])[outputs, inputs].repeat(x.shape[0], 1)
        position = torch.full_like(mask, -1, dtype=torch.long)
        position[outputs, inputs] = torch.arange(len(outputs), device=x.device)
        for group in plan.groups:
            if plan.mask is None:
                on = mask[group.outputs, group.inputs] != 0
                group = Group(group.function, group.inputs[on], group.outputs[on])
            weight, at = mask[group.outputs, group.inputs], position[group.outputs, group.inputs]
            part = self._values(
                group, x, affine, weight, True,
                options.get("singularity_avoiding", False), options.get("y_th", 10.0),
            )  # fmt: skip
            values = values.index_add(1, at, part)
        return outputs, inputs, values.to(self.affine.dtype)

    def _wide(self) -> tuple[Tensor, Tensor]:
        """affine and mask in the dtype of the computation."""
        dtype = torch.promote_types(self.affine.dtype, torch.float32)
        return self.affine.to(dtype), self.edge_mask.to(dtype)

    # Edges

    def set_edge(
        self,
        i: int,
        j: int,
        name: str,
        affine: Sequence[float] | Tensor = (1.0, 0.0, 1.0, 0.0),
        mask: float = 1.0,
    ) -> None:
        """Set the edge from i to j to function `name` with (a, b, c, d), "0" for none, and its mask."""
        affine = affine if isinstance(affine, Tensor) else torch.tensor(affine, device="cpu")
        self.set_edges([(i, j)], [name], affine[None], mask)

    @torch.no_grad()
    def set_edges(
        self, edges: Sequence[tuple[int, int]], names: Sequence[str], affine: Tensor, mask: float | Tensor = 1.0
    ) -> None:
        """set_edge for E edges (i, j) at once: E names, affine [E, 4], mask for all or [E]."""
        for name in set(names):
            library.get_symbolic(name)
        if edges:
            inputs, outputs = torch.tensor(list(edges), device=self.affine.device).unbind(1)
            for (i, j), name in zip(edges, names, strict=True):
                self._names[j][i] = name
            mask = torch.as_tensor(mask, device=affine.device).expand(len(edges))
            values = torch.cat([affine, mask[:, None]], 1).to(self.affine.dtype).to(self.affine.device)
            self.affine[outputs, inputs] = values[:, :4]
            self.edge_mask[outputs, inputs] = values[:, 4].to(self.edge_mask.dtype)
        self._plan = None
        self._current_plan()

    def rearranged(self, inputs: Sequence[int | None], outputs: Sequence[int | None]) -> "SymbolicLayer":
        """A layer with these inputs and outputs of this layer, in this order; None for a new one without edges."""
        new = SymbolicLayer(len(inputs), len(outputs), device=self.affine.device, dtype=self.affine.dtype)
        pairs = []
        for j, old_j in enumerate(outputs):
            for i, old_i in enumerate(inputs):
                if old_i is not None and old_j is not None:
                    pairs.append((j, i, old_j, old_i))
                    new.funs_name[j][i] = self.funs_name[old_j][old_i]
        if pairs:
            j, i, old_j, old_i = torch.tensor(pairs, device=self.affine.device).unbind(1)
            with torch.no_grad():
                new.affine[j, i] = self.affine[old_j, old_i]
                new.edge_mask[j, i] = self.edge_mask[old_j, old_i]
        new.trainable = self.trainable
        return new

    @property
    def funs_name(self) -> list[list[str]]:
        """The name of every edge's function, [O][I]; may be changed in place or set."""
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
        """requires_grad of affine while any edge is on; may be set."""
        return self.affine.requires_grad if self._current_plan().active else self._trainable

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        self._trainable = bool(trainable)
        plan = self._current_plan()
        if plan.active and plan.mask is not None:
            self._set_trainable(True)

    @property
    def device(self) -> torch.device:
        return self.affine.device

    @property
    def groups(self) -> list[Group]:
        """The edges that are on, grouped by function."""
        return self._current_plan().groups

    @property
    def on(self) -> Tensor | None:
        """[O, I], which edges are on, on the host; None where the mask is not readable."""
        return self._current_plan().on

    @property
    def active(self) -> bool:
        """Whether any edge is on; if not, forward returns zeros. True where the mask is not readable."""
        return self._current_plan().active

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_plan": None}

    def _current_plan(self) -> _Plan:
        mask = self._buffers.get("edge_mask")  # an attribute takes as long as a small layer
        mask = self.edge_mask if mask is None else mask
        if not readable(mask) or (not mask.is_cpu and mask.is_inference()):
            named = [[j, i] for j, row in enumerate(self._names) for i, name in enumerate(row) if name != "0"]
            return _Plan(self._grouped(named)[0], True, None, [])
        return self.plan_of(mask)

    def plan_of(self, mask: Tensor) -> _Plan:
        """_current_plan for the layer's mask where it is known to be readable."""
        plan = self._plan
        if plan is None or not plan.holds(mask, self._names):
            on, names = mask.cpu() != 0, [list(row) for row in self._names]
            groups, edges = self._grouped(on.nonzero().tolist())
            plan = self._plan = _Plan(groups, bool(on.any()), Snapshot(mask), names, edges, on)
        if plan.active != self._was_active:
            self._set_trainable(plan.active)
        return plan

    def _set_trainable(self, active: bool) -> None:
        """Update requires_grad of affine when the layer becomes active or inactive."""
        affine = self._parameters.get("affine")
        if affine is None or affine.is_inference() or not affine.is_leaf:
            return  # requires_grad can't be set, or belongs to another parameter
        if not active:
            self._trainable = affine.requires_grad
        affine.requires_grad_(active and self._trainable)
        self._was_active = active

    def _grouped(self, edges: list[list[int]]) -> tuple[list[Group], Tensor]:
        """Those of the edges (output, input) that have a function, grouped by it; and all of them, [2, E]."""
        named: dict[str, list[list[int]]] = {}
        for j, i in edges:
            if (name := self._names[j][i]) != "0":
                named.setdefault(name, []).append([j, i])
        pairs = torch.tensor([*edges, *itertools.chain(*named.values())], dtype=torch.long, device=HOST).view(-1, 2)
        pairs = pairs.T.contiguous()
        pairs = pairs.to(self.affine.device) if edges else torch.zeros_like(pairs, device=self.affine.device)
        every, *parts = pairs.split([len(edges), *map(len, named.values())], 1)
        return [Group(library.get_symbolic(name), i, j) for name, (j, i) in zip(named, parts, strict=True)], every

    # State

    def get_extra_state(self) -> Tensor:
        """The names, encoded as a tensor, which all checkpoint formats support."""
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
