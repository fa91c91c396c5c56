"""from_pykan: a network of pykan (0.2.8) as a KAN."""

import torch

from ..nn.grid import snapped
from .model import KAN


@torch.no_grad()
def from_pykan(model, exact: bool = False, **options) -> KAN:
    """The same function as a model of pykan, with its masks, symbolic edges and multiplication nodes.

    model: a kan.KAN; it is read by its attributes, pykan itself is not imported. exact: take its float32 knots as they
    are, instead of as the equidistant ones that they are rounded from, which are faster. options: others of KAN, such
    as backend or outside; the dtype and the device are the model's.

    Raises ValueError where the knots of a layer do not ascend, as a grid update by pykan can leave them.
    """
    first = model.act_fun[0]
    base = model.base_fun_name if isinstance(model.base_fun_name, str) else model.base_fun
    new = KAN(
        [list(pair) for pair in model.width], [layer.num for layer in model.act_fun],
        [layer.k for layer in model.act_fun], model.mult_arity, base_fun=base, symbolic_enabled=model.symbolic_enabled,
        affine_trainable=model.affine_trainable, grid_eps=model.grid_eps, grid_range=tuple(model.grid_range),
        sp_trainable=model.sp_trainable, sb_trainable=model.sb_trainable, device=first.coef.device,
        dtype=first.coef.dtype, **options,
    )  # fmt: skip
    for mine, theirs in zip(new.act_fun, model.act_fun, strict=True):
        copy_layer(mine, theirs, exact)
    for mine, theirs in zip(new.symbolic_fun, model.symbolic_fun, strict=True):
        mine.funs_name = theirs.funs_name
        mine.affine.copy_(theirs.affine)
        mine.mask = theirs.mask
    for name in ("node_bias", "node_scale", "subnode_bias", "subnode_scale"):
        for mine, theirs in zip(getattr(new, name), getattr(model, name), strict=True):
            mine.copy_(theirs)
    new.input_id = model.input_id.to(new.input_id)
    new.in_features = max(new.in_features, int(new.input_id.max()) + 1)
    return new


@torch.no_grad()
def copy_layer(layer, theirs, exact: bool = False) -> None:
    """Give a KANLayer the grid [I, M], coef [I, O, F], scale_base, scale_sp and mask [I, O] of pykan's layer."""
    grid = theirs.grid.double() if exact else snapped(theirs.grid, *layer.linear.grid_range, layer.k)
    layer.linear.set_grid(grid, theirs.coef.transpose(1, 2))
    layer.scale_base, layer.scale_sp, layer.mask = theirs.scale_base, theirs.scale_sp, theirs.mask
