"""SymbolicLayer: the symbolic branch of a layer, y = c f(a x + b) + d on its edges, all edges of a function at once."""

import json
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..tracing import by_jit
from . import library


class Group(NamedTuple):
    """Edges that share a function: edge e leads from inputs[e] to outputs[e]."""

    function: library.SymbolicFunction
    inputs: Tensor
    outputs: Tensor


class SymbolicLayer(nn.Module):
    """y[n,o] = sum_i mask[o,i] (c f(a x[n,i] + b) + d)[o,i] with a function f of its own on every edge.

    Parameter: affine [O, I, 4], the a, b, c, d of every edge; it takes a gradient while any edge is on. `mask` [O, I]
    is 0 where an edge is off, as all are at the start; `funs_name` [O][I] are the functions' names in
    library.SYMBOLIC_LIB, "0" where there is none. Both may be changed in place. The state dict holds the names too.
    """

    def __init__(self, in_dim: int, out_dim: int, *, device=None, dtype: torch.dtype | None = None):
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.affine = nn.Parameter(torch.zeros(out_dim, in_dim, 4, device=device, dtype=dtype), requires_grad=False)
        self.register_buffer("edge_mask", torch.zeros(out_dim, in_dim, device=device, dtype=dtype))
        self._names = [["0"] * in_dim for _ in range(out_dim)]
        self._plan, self._version, self._awake = None, -1, False

    def forward(self, x: Tensor, singularity_avoiding: bool = False, y_th: float = 10.0) -> Tensor:
        """x [N, I] -> [N, O]. With singularity_avoiding no |f| exceeds y_th by much, see library.SYMBOLIC_LIB."""
        plan = self._current_plan()
        affine, mask = self.affine, self.edge_mask
        constant = (mask * affine[..., 3]).sum(1)  # O
        y = constant.repeat(x.shape[0], 1)  # not expand: Inductor's index_add would add every row to the same numbers
        for group in plan:
            weight = mask[group.outputs, group.inputs]
            y = y.index_add(1, group.outputs, self._values(group, x, weight, singularity_avoiding, y_th))
        return y

    def _values(self, group: Group, x: Tensor, weight: Tensor, singularity_avoiding: bool, y_th: float) -> Tensor:
        """weight * c f(a x + b) of the edges of a group, [N, E]."""
        a, b, c, _ = self.affine[group.outputs, group.inputs].unbind(1)
        inner = a * x[:, group.inputs].to(a.dtype) + b
        f = group.function.singular_torch_fn(inner, y_th) if singularity_avoiding else group.function.torch_fn(inner)
        return (weight * c * f).to(a.dtype)

    def edges(self, x: Tensor, **options) -> tuple[Tensor, Tensor, Tensor]:
        """The edges that are on, by themselves: outputs [E], inputs [E] and values [N, E], the mask included."""
        outputs, inputs = self.edge_mask.nonzero().unbind(1)
        values = (self.edge_mask * self.affine[..., 3])[outputs, inputs].repeat(x.shape[0], 1)
        position = torch.full_like(self.edge_mask, -1, dtype=torch.long)
        position[outputs, inputs] = torch.arange(len(outputs), device=x.device)
        for group in self._current_plan():
            at = position[group.outputs, group.inputs]
            weight = self.edge_mask[group.outputs, group.inputs]
            part = self._values(group, x, weight, options.get("singularity_avoiding", False), options.get("y_th", 10.0))
            values = values.index_add(1, at, part)
        return outputs, inputs, values

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
        self.refresh()
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
        new._current_plan()
        return new

    @property
    def funs_name(self) -> list[list[str]]:
        """[O][I], the name of every edge's function; may be changed in place or set."""
        self.refresh()
        return self._names

    @funs_name.setter
    def funs_name(self, names: list[list[str]]) -> None:
        if len(names) != self.out_dim or any(len(row) != self.in_dim for row in names):
            raise ValueError(f"funs_name={names!r}: expected {self.out_dim} lists of {self.in_dim} names")
        self._names = [list(row) for row in names]
        self.refresh()

    @property
    def mask(self) -> Tensor:
        """[O, I], 0 where an edge is switched off; may be changed in place or set."""
        self.refresh()
        return self.edge_mask

    @mask.setter
    def mask(self, mask: Tensor) -> None:
        with torch.no_grad():
            self.edge_mask.copy_(torch.as_tensor(mask))
        self.refresh()

    def __setattr__(self, name: str, value) -> None:
        if name == "mask" and isinstance(value, nn.Parameter):
            value = value.detach()  # which nn.Module would register in the property's place
        super().__setattr__(name, value)

    @property
    def device(self) -> torch.device:
        return self.affine.device

    def refresh(self) -> None:
        """Look at the mask and the names again before the next forward pass."""
        self._plan = None

    @property
    def active(self) -> bool:
        """Whether any edge is on; if not, forward is zeros. In torch.jit.trace, whether any may be."""
        if by_jit():
            return any(name != "0" for row in self._names for name in row)
        self._current_plan()
        return self._awake

    def __getstate__(self) -> dict:
        return super().__getstate__() | {"_plan": None}  # a copy counts the versions of its mask anew

    def _current_plan(self) -> list[Group]:
        mask = self._buffers["edge_mask"]  # an attribute takes as long as a small layer
        if by_jit():
            return self._grouped(None)
        if torch.compiler.is_compiling() or mask.is_meta:
            return self._grouped(None) if self._plan is None else self._plan
        if self._plan is None or self._version != mask._version:
            on = (mask != 0).tolist()
            self._plan, self._version = self._grouped(on), mask._version
            awake = any(map(any, on))
            if awake != self._awake:
                self.affine.requires_grad_(awake)
                self._awake = awake
        return self._plan

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

    def _apply(self, fn, recurse: bool = True):
        self.refresh()  # its indices are on a device
        return super()._apply(fn, recurse)

    def get_extra_state(self) -> Tensor:
        """The names, as the bytes of their JSON: a tensor, as every format of checkpoints takes them."""
        return torch.tensor(list(json.dumps(self._names).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        self.funs_name = json.loads(bytes(state.tolist()).decode())
        self._current_plan()
