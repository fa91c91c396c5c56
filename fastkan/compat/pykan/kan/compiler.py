"""kan.compiler: a SymPy expression as a network."""

from ....network import compiler
from ..model import MultKAN
from ..steps import Steps


def expr2kan(input_variables, expr, grid: int = 5, k: int = 3, auto_save: bool = False, **options) -> MultKAN:
    """fastkan.kanpiler, whose further arguments are options."""
    found = MultKAN.of(compiler.kanpiler(input_variables, expr, grid, k, **options))
    if auto_save:
        found.history = Steps.begun(found.ckpt_path)
    return found


sf2kan = kanpiler = expr2kan
