"""kan.Symbolic_KANLayer: the symbolic branch of a layer, with pykan's arguments and results."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from ....network.layers.library import SymbolicFunction
from ....network.layers.symbolic import SymbolicLayer
from ..library import SYMBOLIC_LIB
from ..model import named
from .utils import fit_params


class Symbolic_KANLayer(SymbolicLayer):
    """fastkan.network's SymbolicLayer, whose forward also returns the values on every edge."""

    def __init__(self, in_dim: int = 3, out_dim: int = 2, device: torch.device | str = "cpu"):
        super().__init__(in_dim, out_dim, device=device)

    # pykan's forward returns more than its base class does here
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Tensor, singularity_avoiding: bool = False, y_th: float = 10.0
    ) -> tuple[Tensor, Tensor]:
        """x [N, I] -> the sums [N, O] and the values on every edge [N, O, I]."""
        options = {"singularity_avoiding": singularity_avoiding, "y_th": y_th}
        outputs, inputs, values = self.edges(x, **options)
        postacts = x.new_zeros(len(x), self.out_dim, self.in_dim, dtype=self.affine.dtype)
        rows = torch.arange(len(x), device=x.device)[:, None]
        return super().forward(x, **options), postacts.index_put((rows, outputs, inputs), values)

    def fix_symbolic(
        self, i: int, j: int, fun_name: str | Callable, x: Tensor | None = None, y: Tensor | None = None,
        random: bool = False, a_range: tuple = (-10, 10), b_range: tuple = (-10, 10), verbose: bool = True,
    ) -> Tensor | None:  # fmt: skip
        """Set the function of the edge from i to j to c f(a x + b) + d, fitted to x, y [N] if given; mask stays.

        Returns r2, or None without data; then a, b, c, d are 1, 0, 1, 0, or with random=True uniform in [-1, 1].
        """
        function, r2 = named(fun_name), None
        name = function if isinstance(function, str) else cast(SymbolicFunction, function).name
        if x is None or y is None:
            affine = torch.rand(4) * 2 - 1 if random else torch.tensor([1.0, 0.0, 1.0, 0.0])
        else:
            affine, r2 = fit_params(x, y, SYMBOLIC_LIB[name][0], a_range, b_range, verbose=verbose)
        self.set_edge(i, j, name, affine, self.mask[j, i].item())
        return r2

    def get_subset(self, in_id: Sequence[int], out_id: Sequence[int]) -> "Symbolic_KANLayer":
        """A new layer with these inputs and outputs of this one."""
        new = Symbolic_KANLayer.__new__(Symbolic_KANLayer)
        new.__dict__.update(self.rearranged([int(i) for i in in_id], [int(j) for j in out_id]).__dict__)
        return new

    def swap(self, i1: int, i2: int, mode: str = "in") -> None:
        """Exchange two inputs (mode "in") or two outputs ("out")."""
        order = [list(range(self.in_dim)), list(range(self.out_dim))]
        chosen = order[0] if mode == "in" else order[1]
        chosen[i1], chosen[i2] = chosen[i2], chosen[i1]
        swapped = self.rearranged(*order)
        self.funs_name, self.mask = swapped.funs_name, swapped.edge_mask
        with torch.no_grad():
            self.affine.copy_(swapped.affine)

    def _functions(self, part: int) -> list[list[Callable]]:
        """[O][I], this part of the library's entries."""
        return [[cast(Callable, SYMBOLIC_LIB[name][part]) for name in row] for row in self.funs_name]

    @property
    def funs(self) -> list[list[Callable]]:
        """[O][I], the functions of tensors, determined by funs_name."""
        return self._functions(0)

    @property
    def funs_sympy(self) -> list[list[Callable]]:
        """[O][I], the functions of SymPy expressions."""
        return self._functions(1)

    @property
    def funs_avoid_singularity(self) -> list[list[Callable]]:
        """[O][I], the functions of a tensor and a threshold."""
        return self._functions(3)
