"""The contractions in plain PyTorch, in the operands' own type: fast on every device, without kernels of our own.

Rows go in blocks: their features are elementwise operations, and a contraction with coefficients is one matrix product.
Coordinates are float32; nothing of float64 is made unless an operand or the grid is. The functions, their arguments and
results are those of fastkan/reference.py.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ...basis.base import BASES, base_feature
from ...basis.bspline import num_functions
from ...reference import basis_features, total
from ...spec import Spec
from ...transforms import is_traced
from .closed import closed_features, is_closed
from .recursion import Recursion
from .window import Window, known

Maybe = Tensor | None

# Features of a block of rows; on a CPU what its caches hold, or up to eight times that for rows enough for a product.
BLOCK, CPU_BLOCK, CPU_ROWS = 1 << 24, 1 << 18, 128

# The most functions that are evaluated one by one in a trace: code, and the time of compiling it, grow with them.
UNROLLED_TO = 24


class Maker:
    """Makes the features of a block of rows, and contracts them with gradients.

    x, s [N, I] of any dtype; grid [I, M]. Coordinates are float64 where the argument `dtype` is, else float32.
    """

    # Whether feature (i, f) is column f I + i, not i F + f.
    functions_first = False

    def features(self, x: Tensor, s: Maybe, grid: Tensor, spec: Spec, order: int, dtype: torch.dtype) -> Tensor:
        """s[n,i] B_f^(order)(x[n,i]): [N, I F] in dtype."""
        raise NotImplementedError

    def slopes(self, x: Tensor, g: Tensor, grid: Tensor, spec: Spec, order: int, dtype: torch.dtype) -> Tensor:
        """sum_f g[n,i,f] B_f^(order)(x[n,i]): g [N, I F] -> [N, I] in the accumulator of dtype."""
        raise NotImplementedError

    def both(
        self, x: Tensor, s: Maybe, g: Tensor, grid: Tensor, spec: Spec, order: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """`features` of this order and `slopes` of the next."""
        return self.features(x, s, grid, spec, order, dtype), self.slopes(x, g, grid, spec, order + 1, dtype)


class Elementwise(Maker):
    """Features by PyTorch's elementwise operators, each function's in neighbouring columns for all inputs."""

    functions_first = True

    def features(self, x: Tensor, s: Maybe, grid: Tensor, spec: Spec, order: int, dtype: torch.dtype) -> Tensor:
        """As Maker.features."""
        x = x.to(accumulator(dtype))
        if _is_unrolled(grid, spec, order):
            values = Recursion(x, grid, spec).values(order)
            return torch.cat([(y if s is None else y * s.to(y.dtype)).to(dtype) for y in values], 1)
        if _is_windowed(grid, spec, order):
            return _scattered(Window(x, grid, spec), s, order, dtype)
        phi, factor = _all_features(x, grid, spec, order)
        factor = _times(s, factor, x.dtype)
        return _columns(phi if factor is None else phi * factor.unsqueeze(-2)).to(dtype)

    def slopes(self, x: Tensor, g: Tensor, grid: Tensor, spec: Spec, order: int, dtype: torch.dtype) -> Tensor:
        """As Maker.slopes."""
        x = x.to(accumulator(dtype))
        if _is_unrolled(grid, spec, order):
            values = Recursion(x, grid, spec).values(order)
            return total(
                y * part for y, part in zip(values, g.view(len(x), len(values), x.shape[1]).unbind(1), strict=True)
            )
        if _is_windowed(grid, spec, order):
            return _gathered(Window(x, grid, spec), g, order)
        phi, factor = _all_features(x, grid, spec, order)
        slopes = (phi * g.view(phi.shape)).sum(1)
        return slopes if factor is None else slopes * factor

    def both(
        self, x: Tensor, s: Maybe, g: Tensor, grid: Tensor, spec: Spec, order: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """As Maker.both, from the same windows."""
        if _is_windowed(grid, spec, order) and _is_windowed(grid, spec, order + 1):
            window = Window(x.to(accumulator(dtype)), grid, spec)
            return _scattered(window, s, order, dtype), _gathered(window, g, order + 1)
        return super().both(x, s, g, grid, spec, order, dtype)


def _is_unrolled(grid: Tensor, spec: Spec, order: int) -> bool:
    """Whether to evaluate all functions one by one."""
    return is_traced() and num_functions(grid, spec.degree) <= UNROLLED_TO and _is_local(grid, spec, order)


def _is_windowed(grid: Tensor, spec: Spec, order: int) -> bool:
    """Whether to evaluate the K + 1 functions around x, not all functions."""
    return _is_local(grid, spec, order) and not _is_unrolled(grid, spec, order)


def _is_local(grid: Tensor, spec: Spec, order: int) -> bool:
    """Whether the functions are B-splines without a closed form."""
    return not spec.family and not is_closed(spec, order, num_functions(grid, spec.degree))


def _all_features(x: Tensor, grid: Tensor, spec: Spec, order: int) -> tuple[Tensor, Maybe]:
    """Derivatives of all functions [N, F, I], and what they are to be multiplied by: [I], or None for 1."""
    if spec.family:
        return basis_features(x, grid.to(x.dtype), spec, order).transpose(1, 2), None
    return closed_features(x, grid, spec, order)


def _scattered(window: Window, s: Maybe, order: int, dtype: torch.dtype) -> Tensor:
    """Rows of features, zero outside of the window."""
    factor = _times(s, window.factor(order), window.fill.dtype)
    rows, inputs = window.m.shape
    places, values = window.places(), window.values(order)
    values = [(value if factor is None else value * factor).to(dtype) for value in values]
    width = inputs * window.functions
    if is_traced() and inputs:  # in one scatter, since each copies; zeros by m, since constants are kept for a backward
        zeros = torch.where(window.m[:, :1] < 0, 1.0, 0.0).to(dtype).expand(rows, width)
        return zeros.scatter(1, torch.cat(places, 1), torch.cat(values, 1))
    phi = values[0].new_zeros(rows, width)  # of a value: under vmap, a batch if that is one
    for place, value in zip(places, values, strict=True):
        phi.scatter_(1, place, value)
    return phi


def _gathered(window: Window, g: Tensor, order: int) -> Tensor:
    """The sum over the window of its values times entries of rows g of gradients by features."""
    terms = zip(window.places(), window.values(order), strict=True)
    slopes = total(value * g.gather(1, place).to(value.dtype) for place, value in terms)
    factor = window.factor(order)
    return slopes if factor is None else slopes * factor


def _times(s: Maybe, factor: Maybe, dtype: torch.dtype) -> Maybe:
    """Their product, [N, I] or [I], in dtype; None for 1."""
    if s is None:
        return factor
    return s.to(dtype) if factor is None else s.to(dtype) * factor


def _columns(phi: Tensor) -> Tensor:
    """The last two dimensions as one."""
    return phi.reshape(phi.shape[0], phi.shape[1] * phi.shape[2])


class Dense:
    """The six contractions with the features of a maker."""

    def __init__(self, maker: Maker):
        self.maker = maker

    def kan_out(
        self, x: Tensor, s: Maybe, coef: Tensor, base_weight: Maybe, bias: Maybe, grid: Tensor, spec: Spec, order: int
    ) -> Tensor:
        """As reference.kan_out."""
        spec = known(spec, grid)
        dtype = _operand(x, coef, s, order)
        weight = self._matrix(coef).to(dtype)
        blocks: list[Tensor] = []
        for rows in _rows(x, weight.shape[0]):
            x_rows, s_rows = _part(x, rows), _part_of(s, rows)
            phi = self.maker.features(x_rows, s_rows, grid, spec, order, dtype)
            y = phi @ weight if bias is None else torch.addmm(bias.to(dtype), phi, weight)
            if base_weight is not None:
                y = torch.addmm(y, _base(x_rows, s_rows, spec, order, dtype), base_weight.to(dtype))
            blocks.append(y)
        return _joined(blocks).to(coef.dtype)

    def kan_in(
        self, x: Tensor, u: Tensor, coef: Tensor, base_weight: Maybe, grid: Tensor, spec: Spec, order: int
    ) -> Tensor:
        """As reference.kan_in."""
        spec = known(spec, grid)
        x, dtype = _recomputed(x, u), _operand(x, coef)
        weight = self._matrix(coef).to(dtype).T
        blocks: list[Tensor] = []
        for rows in _rows(x, weight.shape[1]):
            x_rows, u_rows = _part(x, rows), _part(u, rows).to(dtype)
            slopes = self.maker.slopes(x_rows, u_rows @ weight, grid, spec, order, accumulator(dtype))
            blocks.append(_plus_base(slopes, x_rows, u_rows, base_weight, spec, order))
        return _joined(blocks).to(x.dtype)

    def kan_coef(
        self, x: Tensor, s: Maybe, u: Tensor, grid: Tensor, spec: Spec, order: int, with_base: bool
    ) -> tuple[Tensor, Maybe]:
        """As reference.kan_coef."""
        spec = known(spec, grid)
        x, dtype = _recomputed(x, u), _operand(x, u, s, order)
        functions = num_functions(grid, spec.degree)
        grad_coef = grad_base = None
        for rows in _rows(x, x.shape[1] * functions):
            x_rows, s_rows, u_rows = _part(x, rows), _part_of(s, rows), _part(u, rows).to(dtype)
            phi = self.maker.features(x_rows, s_rows, grid, spec, order, dtype)
            grad_coef = _plus_product(grad_coef, phi, u_rows)
            if with_base:
                grad_base = _plus_product(grad_base, _base(x_rows, s_rows, spec, order, dtype), u_rows)
        assert grad_coef is not None  # there is at least one block
        grad_base = None if grad_base is None else grad_base.to(u.dtype)
        return self._coefficients(grad_coef, x.shape[1], functions).to(u.dtype), grad_base

    def kan_backward(
        self, x: Tensor, s: Maybe, u: Tensor, coef: Tensor, base_weight: Maybe, grid: Tensor, spec: Spec, order: int
    ) -> tuple[Tensor, Tensor, Maybe]:
        """As reference.kan_backward."""
        spec = known(spec, grid)
        x, dtype, dtype_in = _recomputed(x, u), _operand(x, coef, s, order), _operand(x, coef)
        weight = self._matrix(coef).to(dtype_in).T
        blocks: list[Tensor] = []
        grad_coef = grad_base = None
        for rows in _rows(x, weight.shape[1]):
            x_rows, s_rows, u_rows = _part(x, rows), _part_of(s, rows), _part(u, rows)
            g = u_rows.to(dtype_in) @ weight
            phi, slopes = self.maker.both(x_rows, s_rows, g, grid, spec, order, dtype)
            slopes = _plus_base(slopes, x_rows, u_rows, base_weight, spec, order + 1)
            u_rows = u_rows.to(dtype)
            blocks.append(slopes if s_rows is None else slopes * s_rows)
            grad_coef = _plus_product(grad_coef, phi, u_rows)
            if base_weight is not None:
                grad_base = _plus_product(grad_base, _base(x_rows, s_rows, spec, order, dtype), u_rows)
        assert grad_coef is not None  # there is at least one block
        grad_base = None if grad_base is None else grad_base.to(coef.dtype)
        return _joined(blocks).to(x.dtype), self._coefficients(grad_coef, *coef.shape[:2]).to(coef.dtype), grad_base

    def edge_moments(self, x: Tensor, coef: Tensor, base_weight: Maybe, grid: Tensor, spec: Spec) -> Tensor:
        """As reference.edge_moments."""
        spec = known(spec, grid)
        dtype = accumulator(x.dtype, coef.dtype)
        blocks: list[tuple[int, Tensor, Tensor, Tensor]] = []
        first = None
        for rows in _rows(x, coef.shape[0] * max(coef.shape[1:])):
            _, _, values = self._edges(_part(x, rows), coef, base_weight, grid, spec, dtype)
            # Means are relative to the first row, so that a constant edge has the variance 0.
            first = values[:1].sum(0) if first is None else first
            sizes, values = values.abs().sum(0), values - first
            mean = values.mean(0)
            blocks.append((values.shape[0], sizes, mean, (values - mean).square_().sum(0)))
        assert first is not None  # there is at least one block
        rows = x.shape[0]
        size = total(sizes for _, sizes, _, _ in blocks) / rows
        mean = total(n * mean for n, _, mean, _ in blocks) / rows if len(blocks) > 1 else blocks[0][2]
        squares = total(squares + n * (of_block - mean).square() for n, _, of_block, squares in blocks)
        return torch.stack([size, first + mean, squares / rows])

    def edge_backward(
        self, x: Tensor, u: Maybe, terms: Tensor, coef: Tensor, base_weight: Maybe, grid: Tensor, spec: Spec,
        with_x: bool,
    ) -> tuple[Maybe, Tensor, Maybe]:  # fmt: skip
        """As reference.edge_backward."""
        spec = known(spec, grid)
        dtype = accumulator(x.dtype, coef.dtype)
        blocks: list[Tensor] = []
        grad_coef = grad_base = None
        for rows in _rows(x, coef.shape[0] * max(coef.shape[1:])):
            x_rows, u_rows = _part(x, rows), _part_of(u, rows)
            phi, base, v = self._edges(x_rows, coef, base_weight, grid, spec, dtype)
            v = terms[0] * v.sign() + terms[1] + terms[2] * v
            v = v if u_rows is None else v + u_rows[:, None].to(dtype)
            grad_coef = _plus(grad_coef, torch.einsum("nif,nio->ifo", phi, v))
            if base is not None:
                grad_base = _plus(grad_base, torch.einsum("ni,nio->io", base, v))
            if with_x:
                g = torch.einsum("nio,ifo->nfi" if self.maker.functions_first else "nio,ifo->nif", v, coef.to(dtype))
                slopes = self.maker.slopes(x_rows, _columns(g), grid, spec, 1, dtype)
                if base_weight is not None:
                    g_base = torch.einsum("nio,io->ni", v, base_weight.to(dtype))
                    slopes = slopes + _base(x_rows, None, spec, 1, dtype) * g_base
                blocks.append(slopes)
        assert grad_coef is not None  # there is at least one block
        grad_base = None if grad_base is None else grad_base.to(coef.dtype)
        return _joined(blocks).to(x.dtype) if with_x else None, grad_coef.to(coef.dtype), grad_base

    def _edges(
        self, x: Tensor, coef: Tensor, base_weight: Maybe, grid: Tensor, spec: Spec, dtype: torch.dtype
    ) -> tuple[Tensor, Maybe, Tensor]:
        """Features [N, I, F], base function [N, I] and values [N, I, O] of every edge."""
        phi = self.maker.features(x, None, grid, spec, 0, dtype)
        rows, functions = x.shape[0], coef.shape[1]
        if self.maker.functions_first:
            phi = phi.view(rows, functions, x.shape[1]).transpose(1, 2)
        phi = phi.view(rows, x.shape[1], functions)
        values = torch.einsum("nif,ifo->nio", phi, coef.to(dtype))
        if base_weight is None:
            return phi, None, values
        base = _base(x, None, spec, 0, dtype)
        return phi, base, values + base[..., None] * base_weight.to(dtype)

    def _matrix(self, coef: Tensor) -> Tensor:
        """Coefficients [I, F, O] as rows for the maker's columns."""
        coef = coef.transpose(0, 1) if self.maker.functions_first else coef
        return coef.reshape(coef.shape[0] * coef.shape[1], coef.shape[2])

    def _coefficients(self, matrix: Tensor, inputs: int, functions: int) -> Tensor:
        """The inverse of _matrix, contiguous."""
        if self.maker.functions_first:
            return matrix.view(functions, inputs, matrix.shape[1]).transpose(0, 1).contiguous()
        return matrix.view(inputs, functions, matrix.shape[1])


def accumulator(*dtypes: torch.dtype) -> torch.dtype:
    """The dtype of coordinates and sums: float64 if one of these is, else float32."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def _operand(x: Tensor, coef: Tensor, s: Maybe = None, order: int = 0) -> torch.dtype:
    """The dtype of a matrix product: float16 lacks the range of derivatives and of features times s."""
    if x.dtype == torch.float64 or (coef.dtype == torch.float16 and (order > 0 or s is not None)):
        return accumulator(x.dtype)
    return coef.dtype


def _recomputed(x: Tensor, u: Tensor) -> Tensor:
    """x, as a value that torch.compile takes for known only when u is: x [N, I], u [N, O], the gradient of a result.

    Otherwise it would keep features of the forward for the backward, which costs more time and memory than to make them
    again.
    """
    if not torch.compiler.is_compiling() or u.shape[1] == 0:
        return x
    return torch.where(u[:, :1] == 0, x, torch.maximum(x, x))


def _rows(x: Tensor, features: int) -> Iterator[slice | None]:
    """The rows of x in blocks of that many features a row; None for all of them."""
    rows = x.shape[0]
    if is_traced() or isinstance(rows, torch.SymInt):  # a loop over a dynamic batch would pin it
        yield None
        return
    features = max(1, features)
    step = BLOCK // features
    if x.device.type == "cpu":
        step = max(CPU_BLOCK // features, min(CPU_ROWS, 8 * CPU_BLOCK // features))
    step = max(1, step)
    if rows <= step:
        yield None
        return
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _part(t: Tensor, rows: slice | None) -> Tensor:
    return t if rows is None else t[rows]


def _part_of(s: Maybe, rows: slice | None) -> Maybe:
    return None if s is None else _part(s, rows)


def _joined(blocks: list[Tensor]) -> Tensor:
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def _plus(sum_so_far: Maybe, term: Tensor) -> Tensor:
    return term if sum_so_far is None else sum_so_far + term


def _plus_product(sum_so_far: Maybe, a: Tensor, b: Tensor) -> Tensor:
    """The sum plus a^T b, in the accumulator of their dtype."""
    dtype = accumulator(a.dtype)
    if sum_so_far is None:
        return (a.T @ b).to(dtype)
    return sum_so_far.addmm_(a.T, b) if a.dtype == dtype else sum_so_far.add_(a.T @ b)


def _base(x: Tensor, s: Maybe, spec: Spec, order: int, dtype: torch.dtype) -> Tensor:
    """s b^(order)(x) in dtype, computed in its accumulator."""
    x = x.to(accumulator(dtype))
    base = torch.nn.functional.silu(x) if _is_silu(spec, order, 0) else base_feature(x, BASES[spec.base], order)
    return (base if s is None else base * s.to(base.dtype)).to(dtype)


def _is_silu(spec: Spec, order: int, of_torch: int) -> bool:
    """Whether torch has that derivative of the base function as one operator: of order `of_torch`."""
    return order == of_torch and BASES[spec.base] == "silu"


def _plus_base(slopes: Tensor, x: Tensor, u: Tensor, base_weight: Maybe, spec: Spec, order: int) -> Tensor:
    """`slopes` plus the base function's part of in_order."""
    if base_weight is None:
        return slopes
    g = (u @ base_weight.to(u.dtype).T).to(slopes.dtype)
    if _is_silu(spec, order, 1):
        return slopes + torch.ops.aten.silu_backward(g, x.to(slopes.dtype))
    return torch.addcmul(slopes, _base(x, None, spec, order, slopes.dtype), g)


def missing(device_type: str, dtypes: tuple[torch.dtype, ...], family: int = 0) -> None:
    """No reason against any device, dtype or family."""
    return None


_plain = Dense(Elementwise())
kan_out, kan_in, kan_coef, kan_backward = _plain.kan_out, _plain.kan_in, _plain.kan_coef, _plain.kan_backward
edge_moments, edge_backward = _plain.edge_moments, _plain.edge_backward
