"""Names of inputs and outputs in a diagram: measured before they are drawn, so that they fit and nothing is cut off."""

from collections.abc import Sequence
from typing import NamedTuple

SMALLEST = 0.75  # of its size, before a name is turned upright instead


class Row(NamedTuple):
    """Texts side by side: how large in points, how high they then are in inches, and whether they stand upright."""

    texts: list[str]
    points: float
    height: float
    upright: bool


def chosen(name: str, values: Sequence | None, of: Sequence[int], total: int) -> list:
    """One value for each of the inputs `of` a model with `total` of them; values may name all or these alone."""
    if values is None:
        return []
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) not in (total, len(of)):
        counts = f"{len(of)}" if total == len(of) else f"{len(of)}, or of all {total}"
        raise ValueError(f"{name}={values!r}: expected a list of {counts} names")
    return list(values) if len(values) == len(of) else [values[n] for n in of]


def texts(name: str, values: Sequence | None, of: Sequence[int], total: int) -> list[str]:
    """One text for each of them, see chosen.

    Strings are taken as matplotlib reads them, with formulas between dollar signs; SymPy's expressions as LaTeX.
    """
    return [_text(f"{name}[{n}]", value) for n, value in enumerate(chosen(name, values, of, total))]


def fitted(values: list[str], points: float, slot: float, height: float) -> Row:
    """The size at which texts in a row fit into slots of that width in inches, turned upright where they are long.

    height: how high they may then be.
    """
    if not values:
        return Row([], points, 0.0, False)
    sizes = [measured(text, points) for text in values]
    widest, highest = (max(size[part] for size in sizes) for part in (0, 1))
    fit = min(1.0, (0.94 if len(values) == 1 else 0.85) * slot / widest)
    if fit >= SMALLEST or len(values) == 1:
        return Row(values, points * fit, highest * fit, False)
    fit = min(1.0, 0.94 * slot / highest, height / widest)
    return Row(values, points * fit, widest * fit, True)


def measured(text: str, points: float) -> tuple[float, float]:
    """Width and height of a text in inches."""
    from matplotlib.cbook import is_math_text
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font, measure = FontProperties(size=points), TextToPath().get_text_width_height_descent
    lines = [(line, is_math_text(line)) for line in text.split("\n")]
    sizes = [measure(line if math else line.replace(r"\$", "$"), font, math) for line, math in lines]
    return max(max(width for width, _, _ in sizes), 0.5) / 72, max(1.2 * points * len(lines), sizes[0][1]) / 72


def _text(name: str, value) -> str:
    if not isinstance(value, str):
        try:
            from sympy import Basic, latex
        except ImportError:
            Basic = ()
        value = f"${latex(value)}$" if isinstance(value, Basic) else str(value)
    try:
        measured(value, 10.0)
    except ValueError as error:
        raise ValueError(f"{name}={value!r}: expected text that matplotlib can set ({error})") from None
    return value
