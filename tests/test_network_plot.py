"""Diagrams: edges, positions and colours match the model, without side effects."""

import copy
import pickle
import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastkan import KAN
from fastkan.network import plot_training
from fastkan.network.plot import diagram, diagram_artists, edge_data, numbers
from fastkan.network.plot.layout import Shape, place
from support.models import inputs, shaken

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install matplotlib")
figure_module = pytest.importorskip("matplotlib.figure")

PRODUCTS = {"width": [4, [2, 2], 1], "mult_arity": [[], [2, 3], []]}
SHAPES = [{"width": [1, 1]}, {"width": [2, 5, 1]}, PRODUCTS, {"width": [7, 10, 6]}]


def ready(symbolic: float = 0.0, off: float = 0.0, **shape) -> KAN:
    """A model with some of its edges symbolic, both or off, that has seen data."""
    model = KAN(**shape, dtype=torch.float64)
    if symbolic or off:
        shaken(model, symbolic, off)
    model.get_act(inputs(60, model.width[0][0]))
    return model


def artist(figure, name: str):
    """The artist of that name, or None."""
    found = [a for a in figure.findobj() if a.get_gid() == name]
    assert len(found) <= 1
    return found[0] if found else None


def colours(figure, name: str) -> torch.Tensor:
    made = artist(figure, name)
    return torch.zeros(0, 4) if made is None else torch.as_tensor(made.get_colors())


def on(model: KAN, l: int) -> torch.Tensor:
    """[I, O], whether an edge is on."""
    symbolic = model.symbolic_fun[l].mask.T != 0
    return (model.act_fun[l].mask != 0) | (symbolic & model.symbolic_enabled)


def state(model: KAN) -> list:
    return [torch.get_rng_state(), *(t.clone() for t in model.state_dict().values())]


# The network


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("symbolic", "off"), [(0.0, 0.0), (0.4, 0.3)])
def test_every_edge_that_is_on_is_drawn(shape, symbolic, off):
    model = ready(symbolic, off, **shape)
    figure = model.plot(sample=True)
    for l in range(model.depth):
        count = int(on(model, l).sum())
        curves = artist(figure, f"curves-{l}")
        assert (0 if curves is None else len(curves.get_segments())) == count
        if count:
            assert len(artist(figure, f"lines-{l}").get_segments()) == 2 * count
            assert len(artist(figure, f"boxes-{l}").get_paths()) == count
            assert len(artist(figure, f"samples-{l}").get_offsets()) == count * edge_data.SAMPLES
        assert len(artist(figure, f"sums-{l + 1}").get_offsets()) == model.width_out[l + 1]
        products = artist(figure, f"products-{l + 1}")
        assert (0 if products is None else len(products.get_offsets())) == model.width[l + 1][1]
    assert len(artist(figure, "inputs").get_offsets()) == model.width[0][0]


@pytest.mark.parametrize(
    ("ends", "shown"),
    [
        ((-1.0, 1.0), ("-1", "1")), ((0.2578, 0.2612), ("0.258", "0.261")), ((1000.0, 1049.0), ("1000", "1050")),
        ((3e-7, 0.0001), ("3e-7", "1e-4")), ((1.0, 1.0 + 1e-9), ("1", "+1e-9")), ((2.0, 2.0), ("2", "2")),
    ],
)  # fmt: skip
def test_numbers_tell_the_ends_of_a_range_apart(ends, shown):
    assert numbers.ends(*ends) == shown


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_curve_is_flat_only_where_rounding_would_show(dtype):
    eps = torch.finfo(dtype).eps
    wave = torch.linspace(0, 1, 101, dtype=torch.float64).expand(3, -1)
    y = 1000.0 + wave * torch.tensor([[1000 * eps], [0.9], [1.1]], dtype=torch.float64) * 1000 * numbers.LEVELS * eps
    low, high = numbers.bounds(y, eps)
    assert (high > low)[:, 0].tolist() == [False, False, True]
    share = numbers.heights(y, low, high)
    assert share[:2].eq(0.5).all() and share[2, [0, -1]].tolist() == [0.0, 1.0]
    kept = numbers.rounded(y[2].tolist(), low[2].item(), high[2].item())
    error = (torch.tensor(kept, dtype=torch.float64) - y[2]).abs().max()
    assert error <= 0.5 * 10.0**-numbers.DIGITS * (high - low)[2].item() + 1000 * torch.finfo(torch.float64).eps


def test_number_of_artists_is_bounded():
    options = {"legend": False, "max_edges": None}
    counts = [len(ready(width=[n, n, n]).plot(**options).axes[0].get_children()) for n in (2, 12)]
    assert counts[0] == counts[1] < 40


def legend(figure) -> list[str]:
    return [t.get_text() for t in figure.axes[0].texts if t.get_gid() == "legend"]


def names(figure) -> list[str]:
    return [t.get_text() for t in figure.axes[0].texts if t.get_gid() != "legend"]


def test_a_large_layer_shows_its_strongest_edges():
    model = ready(width=[9, 6, 2])
    model.attribute()
    figure = model.plot(max_edges=7, in_vars=[f"v{n}" for n in range(9)])
    score = model.edge_scores[0].T.flatten()
    strongest = score.topk(7).indices.sort().values
    inputs, outputs = strongest // 6, strongest % 6
    hidden = set(outputs.tolist()) | set((model.edge_scores[1].T.flatten().topk(7).indices // 2).tolist())
    assert names(figure) == [f"v{n}" for n in inputs.unique().tolist()]
    assert len(artist(figure, "inputs").get_offsets()) == len(inputs.unique())
    assert len(artist(figure, "sums-1").get_offsets()) == len(hidden)
    assert all(len(artist(figure, f"curves-{l}").get_segments()) == 7 for l in (0, 1))
    line = " ".join(legend(figure))
    assert f"layer 0: the 7 strongest of 54 edges; nodes: {len(inputs.unique())} of 9 → {len(hidden)} of 6" in line
    at = dict(zip(inputs.unique().tolist(), artist(figure, "inputs").get_offsets().tolist(), strict=True))
    starts = {tuple(s[0]) for s in artist(figure, "lines-0").get_segments()}
    assert {tuple(at[i]) for i in inputs.tolist()} <= starts
    assert names(model.plot(max_edges=7))[:1] == [f"$x_{{{inputs.min() + 1}}}$"]
    assert not names(model.plot(max_edges=54))
    products = ready(**PRODUCTS).plot(max_edges=3)
    assert (
        len(artist(products, "products-1").get_offsets()) == 2 and len(artist(products, "curves-0").get_segments()) == 3
    )


def test_the_legend_has_what_is_drawn_and_nothing_else():
    model = ready(width=[2, 3, 1])
    assert "score ≤" in legend(model.plot(beta=1.0))[0] and not legend(model.plot(legend=False))
    assert "symbolic" not in legend(model.plot()) and "product" not in legend(model.plot())
    model.symbolic_fun[0].set_edge(0, 0, "sin")
    model.set_mode(0, 0, 0, "s")
    assert {"numeric", "symbolic"} <= set(legend(model.plot())) and not artist(model.plot(), "legend-product")
    assert "product" in legend(ready(**PRODUCTS).plot()) and artist(ready(**PRODUCTS).plot(), "legend-product")
    assert "points: data" in legend(model.plot(sample=True)) and "height" in " ".join(legend(model.plot()))
    assert "height" not in " ".join(legend(model.plot(tick=True)))
    assert not any("score ≤" in text for text in legend(model.plot(beta=1e6)))
    assert "beta=" in " ".join(legend(model.plot(beta=0.01))) and "beta=" not in " ".join(legend(model.plot(beta=9.0)))
    assert not legend(model.plot(figsize=(1, 1)))  # no room


def test_the_scale_of_curves_is_beside_them():
    model = ready(width=[2, 3, 1])
    figure = model.plot()
    assert len(artist(figure, "heights-0").get_paths()) == 6 and len(artist(figure, "heights-1").get_paths()) == 3
    lines = len(artist(figure, "ranges-1").get_paths())
    assert len(artist(figure, "ranges-0").get_paths()) == 2 and lines in (3, 6)
    for l in (0, 1):
        boxes = [path.get_extents() for path in artist(figure, f"boxes-{l}").get_paths()]
        for curve, text, box in zip(artist(figure, f"curves-{l}").get_segments(),
                                    artist(figure, f"heights-{l}").get_paths(), boxes, strict=True):  # fmt: skip
            assert text.get_extents().y0 > curve[:, 1].max() and text.get_extents().y1 < box.y1
            assert box.x0 < text.get_extents().x0 and text.get_extents().x1 < box.x1
    ticks = model.plot(tick=True)
    assert artist(ticks, "heights-0") is None and artist(ticks, "ranges-0") is None


def test_products_join_their_subnodes():
    figure = ready(**PRODUCTS).plot()
    at = {name: artist(figure, name).get_offsets().tolist() for name in ("sums-1", "handed-on-1", "products-1")}
    joins = [segment.tolist() for segment in artist(figure, "joins-1").get_segments()]
    nodes = at["handed-on-1"] + at["products-1"]
    single = ready(width=[2, [1, 1], 1], mult_arity=1).plot()
    assert artist(single, "joins-1") is None and len(artist(single, "sums-1").get_offsets()) == 2
    assert joins == [[at["sums-1"][sub], nodes[node]] for sub, node in enumerate([0, 1, 2, 2, 3, 3, 3])]


@pytest.mark.parametrize(("metric", "scores"), [("backward", "edge_scores"), ("forward_n", "acts_scale"),
                                                ("forward_u", "edge_actscale")])  # fmt: skip
def test_opacity_is_the_score(metric, scores):
    model = ready(0.3, 0.2, **PRODUCTS)
    model.attribute()
    figure = model.plot(metric=metric, beta=0.7)
    for l, score in enumerate(getattr(model, scores)):
        expected = torch.tanh(0.7 * score.T[on(model, l)]).clamp_min(diagram.MIN_OPACITY)
        curves, lines = colours(figure, f"curves-{l}"), colours(figure, f"lines-{l}")
        torch.testing.assert_close(curves[:, 3], expected, rtol=1e-9, atol=1e-12)
        faded = 1 + expected[:, None] * (curves[:, :3] - 1)  # on white, the strongest on top
        torch.testing.assert_close(lines[::2, :3], faded[expected.argsort(stable=True)], rtol=1e-9, atol=1e-12)
        assert len(expected) < 2 or expected.min() < expected.max()


def test_colours_tell_the_mode():
    model = ready(width=[4, 1])
    for i, mode in enumerate(("n", "s", "ns", "0")):
        model.symbolic_fun[0].set_edge(i, 0, "sin")
        model.set_mode(0, i, 0, mode)
    kinds = {"light": ["black", "red", "purple"], "dark": ["white", "#ff6b6b", "#c792ff"]}
    for style, of_modes in kinds.items():
        with matplotlib.rc_context({} if style == "light" else {"figure.facecolor": "black", "text.color": "white"}):
            drawn = colours(model.plot(), "curves-0")
        expected = torch.tensor([matplotlib.colors.to_rgb(name) for name in of_modes], dtype=torch.float64)
        torch.testing.assert_close(drawn[:, :3], expected)
    model.symbolic_enabled = False
    assert colours(model.plot(), "curves-0")[:, :3].tolist() == [[0.0] * 3] * 2


def test_curves_are_the_functions():
    model = ready(0.5, 0.2, **PRODUCTS)
    figure = model.plot(sample=True)
    for l in range(model.depth):
        curves, boxes, dots = (artist(figure, f"{name}-{l}") for name in ("curves", "boxes", "samples"))
        dots = torch.as_tensor(dots.get_offsets()).unflatten(0, (-1, edge_data.SAMPLES))
        for n, (i, j) in enumerate(on(model, l).nonzero().tolist()):
            curve, box = torch.as_tensor(curves.get_segments()[n]), torch.as_tensor(boxes.get_paths()[n].vertices)
            assert (curve > box.amin(0)).all() and (curve < box.amax(0)).all()
            x, y = (v[torch.linspace(0, len(v) - 1, edge_data.SAMPLES).round().long()] for v in model.get_fun(l, i, j))
            left, right = curve[0, 0], curve[-1, 0]
            torch.testing.assert_close(dots[n, :, 0], left + (x - x[0]) / (x[-1] - x[0]) * (right - left))
            height = curve[:, 1].max() - curve[:, 1].min()
            if height == 0:
                assert y.max() - y.min() <= numbers.LEVELS * torch.finfo(y.dtype).eps * y.abs().max()
                continue
            share = 1 - 2 * diagram_artists.INSET
            head = diagram_artists.HEAD - diagram_artists.INSET
            assert height == pytest.approx((right - left).item() * (share - head) / share)
            line = torch.stack([y, torch.ones_like(y)], 1)  # dots stand at a y + b
            scale, off = torch.linalg.lstsq(line, dots[n, :, 1:]).solution
            assert scale > 0
            torch.testing.assert_close(scale * y + off, dots[n, :, 1], rtol=0, atol=0.01 * height.item())
            at = (dots[n, :, 0] - left) / (right - left) * (len(curve) - 1)
            below = at.long().clamp_max(len(curve) - 2)
            level = torch.lerp(curve[below, 1], curve[below + 1, 1], at - below)
            torch.testing.assert_close(level, dots[n, :, 1], rtol=0, atol=0.02 * height.item())


def test_constant_and_singular_functions_stay_in_their_boxes():
    model = ready(width=[3, 1])
    for i, name in enumerate(("0", "1/x", "log")):
        model.symbolic_fun[0].set_edge(i, 0, name, (1.0, 0.0, 1.0, 0.0 if name != "0" else 2.0))
        model.set_mode(0, i, 0, "s")
    x = inputs(50, 3)
    x[:, 2] = x[:, 2].abs() + 0.1
    figure = model.plot(x=x, tick=True, sample=True)
    box, flat = artist(figure, "boxes-0").get_paths()[0].vertices, artist(figure, "curves-0").get_segments()[0]
    assert (flat[:, 1] == pytest.approx(box[:4, 1].mean())) and all(map(len, artist(figure, "curves-0").get_segments()))


def test_rows_that_are_not_finite_are_left_out():
    model = ready(width=[2, 1])
    x = inputs(40, 2)
    bad = torch.cat([x, torch.full((3, 2), torch.nan, dtype=torch.float64)])
    first, second = (model.plot(x=data) for data in (x, bad))
    assert torch.equal(colours(first, "curves-0"), colours(second, "curves-0"))
    with pytest.raises(ValueError, match="x has 1 rows of 4 with finite activations: expected at least 2"):
        model.plot(x=bad[-4:])


def test_curves_need_no_memory_for_all_rows():
    model = KAN([3, 2, 1])
    edges = edge_data.drawn_edges(model, inputs(20_000, 3).float(), "backward")
    assert [tuple(layer.x.shape) for layer in edges] == [(6, edge_data.POINTS), (2, edge_data.POINTS)]
    assert edges[0].sample_x.shape == (6, edge_data.SAMPLES)


# Where things are


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 14), min_size=2, max_size=4), st.sampled_from([0.5, 1.0, 2.0]), st.booleans(),
    st.none() | st.tuples(st.floats(2.5, 12), st.floats(2, 12)),
)  # fmt: skip
def test_nothing_overlaps(nodes, unit, numbers, size):
    edges = [a * b for a, b in zip(nodes, nodes[1:], strict=False)]
    shape = Shape(nodes, nodes, edges)
    width, height = (shape.width(unit, numbers), None) if size is None else size
    layout = place(shape, unit, width, height, 0.2, 0.3, numbers)
    if size is not None:
        assert layout.height == height
    for l, (boxes, side) in enumerate(zip(layout.boxes, layout.sides, strict=True)):
        assert len(boxes) == edges[l] and side > 0
        assert all(side / 2 <= x <= width - side / 2 for x, _ in boxes)
        below, above = layout.nodes[l][0][1] + layout.dot, layout.subnodes[l + 1][0][1] - layout.sign
        assert all(below < y - side / 2 and y + side / 2 < above for _, y in boxes)
        apart = (max(abs(x - u), abs(y - v)) for n, (x, y) in enumerate(boxes) for u, v in boxes[:n])
        assert min(apart, default=side) >= side * 0.999
    assert 0.2 - 1e-9 <= layout.nodes[0][0][1] - layout.dot
    assert layout.nodes[-1][0][1] + layout.sign <= layout.height - 0.3 + 1e-9


LONG = ["temperature of the water", "p", r"$\frac{a_1}{b^2}$", "particles"]


@pytest.mark.parametrize("options", [{}, {"figsize": (3, 3)}, {"figsize": (11, 4)}, {"scale": 0.25}, {"scale": 1.2},
                                     {"varscale": 2.0}])  # fmt: skip
def test_labels_are_complete_and_do_not_overlap(options):
    model = ready(width=[4, 3, 2])
    figure = model.plot(in_vars=LONG, out_vars=["free energy", "a rather long name"], title="A title", **options)
    renderer = matplotlib.backends.backend_agg.FigureCanvasAgg(figure).get_renderer()
    assert [text.replace("\n", " ") for text in names(figure)] == [
        *LONG,
        "free energy",
        "a rather long name",
        "A title",
    ]
    boxes = [t.get_window_extent(renderer) for t in figure.axes[0].texts]
    for n, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        assert not any(box.overlaps(other) for other in boxes[:n])


def test_long_names_are_broken_before_they_are_turned():
    model = ready(width=[3, 2, 1])
    long = ["temperature of the water at the inlet", "p", "a_very_long_variable_name_with_underscores"]
    figure = model.plot(in_vars=long)
    texts = [t for t in figure.axes[0].texts if t.get_gid() != "legend"]
    assert [t.get_text().replace("_\n", "_").replace("\n", " ") for t in texts] == long
    assert texts[0].get_text().count("\n") and not any(t.get_rotation() for t in texts)


@pytest.mark.parametrize("tick", [False, True])
def test_a_network_without_edges_is_drawn(tick):
    model = ready(width=[2, 2, 1])
    for layer in model.act_fun:
        layer.mask.zero_()
    figure = model.plot(tick=tick)
    assert len(artist(figure, "inputs").get_offsets()) == 2 and artist(figure, "curves-0") is None


def test_names():
    sympy = pytest.importorskip("sympy")
    model = ready(width=[3, 1])
    assert set(names(model.plot(in_vars=[sympy.Symbol("theta_1"), "b $", 3]))) == {r"$\theta_{1}$", "b $", "3"}
    assert not names(ready(width=[3, 1]).plot())
    pruned = model.prune_input(active_inputs=[0, 2])
    for chosen in (["a", "b", "c"], ["a", "c"]):
        assert names(pruned.plot(in_vars=chosen)) == ["a", "c"]


def test_ranges_beside_the_boxes():
    model = ready(width=[2, 1])
    texts = names(model.plot(tick=True))
    assert len(texts) == 8
    x = model.cache_data
    for i in (0, 1):
        assert {f"{x[:, i].min():.2g}", f"{x[:, i].max():.2g}"} < set(texts)


def test_user_figures_and_axes(tmp_path):
    model = ready(width=[2, 3, 1])
    mine = figure_module.Figure((7, 3))
    left, right = mine.subplots(1, 2)
    assert model.plot(ax=right) is mine and not left.collections and right.collections
    other = figure_module.Figure((4, 4))
    assert model.plot(fig=other) is other and other.axes[0].get_xlim() == (0, 4)
    part = figure_module.Figure((8, 4)).subfigures(1, 2)[0]
    whole = model.plot(fig=part, path=tmp_path / "part.png")
    assert whole is part.figure and part.axes[0].get_xlim() == (0, 4)
    assert tuple(model.plot(figsize=(3, 2)).get_size_inches()) == (3, 2)
    with pytest.raises(ValueError, match="fig and ax are given: expected one of them"):
        model.plot(ax=right, fig=other)


# Files, and what does not happen


@pytest.mark.parametrize("kind", ["pdf", "svg", "png"])
def test_files(kind, tmp_path):
    model, path = ready(**PRODUCTS), tmp_path / f"picture.{kind}"
    model.plot(path=path, in_vars=["a", "b", "c", "d"])
    model.plot_edge(0, 0, 0, tmp_path / f"edge.{kind}")
    plot_training({"train_loss": [1.0, 0.1]}, tmp_path / f"training.{kind}")
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"edge.{kind}", f"picture.{kind}", f"training.{kind}"]
    content = path.read_bytes()
    assert content.startswith({"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}[kind])
    if kind == "svg":
        ElementTree.fromstring(content)
        assert b"<image" not in content and b"curves-0" in content
    if kind == "pdf":
        assert b"/Subtype /Image" not in content


def test_a_folder_as_in_pykan(tmp_path):
    model = ready(width=[2, 1])
    model.plot(tmp_path / "new" / "figures")
    assert [p.name for p in (tmp_path / "new" / "figures").iterdir()] == ["kan.pdf"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    model, path = ready(width=[2, 1]), tmp_path / "picture.pdf"
    path.write_text("old")

    def fail(self, file, **options):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(figure_module.Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        model.plot(path=path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_plotting_has_no_side_effects(tmp_path, monkeypatch):
    model = ready(0.3, 0.2, **PRODUCTS)
    model.last_activations = None
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import of it would fail
    backend = dict.__getitem__(matplotlib.rcParams, "backend")
    before, data, grads = state(model), model.cache_data, [p.requires_grad for p in model.parameters()]
    model.plot(tick=True, sample=True)
    model.plot_edge(1, 0, 0, parts=True)
    plot_training({"train_loss": [1.0, 0.1]})
    assert all(map(torch.equal, state(model), before)) and model.cache_data is data
    assert model.last_activations is None and model.last_scores is None and not list(tmp_path.iterdir())
    assert [p.requires_grad for p in model.parameters()] == grads
    assert dict.__getitem__(matplotlib.rcParams, "backend") is backend


def test_no_figure_stays_open():
    plt = pytest.importorskip("matplotlib.pyplot")
    model, before = ready(width=[2, 1]), plt.get_fignums()
    for _ in range(3):
        model.plot()
        model.plot_edge(0, 0, 0)
    assert plt.get_fignums() == before


def test_figures_are_copied_and_shown():
    figure = ready(width=[2, 1]).plot()
    assert figure._repr_png_().startswith(b"\x89PNG")
    for twin in (pickle.loads(pickle.dumps(figure)), copy.deepcopy(figure)):
        assert artist(twin, "curves-0") is not None and twin._repr_png_.args[0] is twin


# One edge


@pytest.mark.parametrize("mode", ["n", "s", "ns", "0"])
def test_one_edge(mode):
    model = ready(width=[3, 2], grid=4)
    model.symbolic_fun[0].set_edge(1, 0, "sin", (2.0, 0.5, -1.0, 0.25))
    model.set_mode(0, 1, 0, mode, 0.5)
    figure = model.plot_edge(0, 1, 0, parts=True)
    (axes,) = figure.axes
    x, y = (torch.as_tensor(v) for v in artist(figure, "function").get_data())
    alone = model.copy()
    alone.act_fun[0].mask[[0, 2]] = 0.0
    if mode == "0":
        alone.set_mode(0, 1, 0, "n")
    torch.testing.assert_close(y, alone(x[:, None].expand(-1, 3))[:, 0], rtol=1e-9, atol=1e-12)
    assert len(artist(figure, "knots").get_segments()) == 5
    labels = [line.get_label() for line in axes.get_lines()]
    formula = "-1 f(2 x + 0.5) + 0.25,  f = sin"
    numeric = ["base function", "spline"]
    kinds = {"n": ["numeric", *numeric], "s": [formula, "numeric, off"], "0": ["off", *numeric]}
    assert labels == (kinds | {"ns": ["numeric + symbolic", *numeric, formula]})[mode]
    if "n" in mode:
        parts = sum(torch.as_tensor(line.get_ydata()) for line in axes.get_lines()[1:])
        torch.testing.assert_close(parts, y, rtol=1e-9, atol=1e-12)


def test_the_share_outside_the_grid():
    model = KAN([1, 1], grid=3)
    x = torch.linspace(-2, 2, 200)[:, None]
    figure = model.plot_edge(0, 0, 0, x=x)
    outside = (x.abs() > 1).float().mean() * 100
    assert figure.axes[0].get_xlabel() == f"input, {outside:.2g} % of it outside the grid"
    points = artist(figure, "function").get_xdata()
    assert min(points) == -2 and max(points) == 2
    assert artist(figure, "grid range") is not None and len(artist(figure, "data").get_segments()) == 200


# A training


def test_training_curves():
    model = KAN([2, 1])
    x = inputs(50, 2).float()
    data = (x, x.square().sum(1, keepdim=True))
    results = model.fit(data, steps=6, lamb=1e-3, grid_sizes=[3, 6], progress=False, callback=lambda n, r: n == 4)
    assert results["grid"] == [3, 3, 3, 6, 6]
    figure = plot_training(results, title="A training")
    losses, penalty = figure.axes
    assert {line.get_label(): list(line.get_ydata()) for line in losses.get_lines() if line.get_gid() is None} == {
        "train": results["train_loss"], "test": results["test_loss"]
    }  # fmt: skip
    assert list(penalty.get_lines()[0].get_ydata()) == results["reg"]
    assert [line.get_xdata()[0] for line in losses.get_lines() if line.get_gid() == "grid"] == [3]
    assert [t.get_text() for t in losses.texts] == ["grid 3", "6"]
    assert "stopped: by the callback at step 4" in penalty.get_xlabel().replace("\n", " ")


def test_training_curves_of_anything():
    spread = [10.0**-n for n in range(6)]
    (axes,) = plot_training({"train_loss": spread, "test_loss": spread, "reg": [0.0] * 6}).axes
    assert axes.get_yscale() == "log"
    losses, accuracy = plot_training({"train_loss": [1.0, -2.0, float("nan")], "accuracy": [0.1, 0.5, 0.9]}).axes
    assert losses.get_yscale() == accuracy.get_yscale() == "linear" and accuracy.get_ylabel() == "accuracy"
    for empty in ({}, {"train_loss": []}):
        with pytest.raises(ValueError, match="results has the train_loss .*: expected the results of fit"):
            plot_training(empty)


# Errors


WRONG = [
    ({"metric": "sideways"}, "metric='sideways': expected one of 'forward_n', 'forward_u', 'backward'"),
    ({"scale": 0}, "scale=0: expected a number above 0"),
    ({"beta": -1}, "beta=-1: expected a finite number, at least 0"),
    ({"max_edges": 0}, "max_edges=0: expected an integer, at least 1"),
    ({"figsize": (3, -1)}, "figsize[1]=-1: expected a finite number, at least 0"),
    ({"in_vars": ["a"]}, "in_vars=['a']: expected a list of 2 names"),
    ({"in_vars": "ab"}, "in_vars='ab': expected a list of 2 names"),
    ({"out_vars": [r"$\nosuchthing$"]}, "expected text that matplotlib can set"),
    ({"folder": "figures", "path": "a.pdf"}, "folder='figures' and path='a.pdf' are given: expected one of them"),
    ({"path": "picture.xyz"}, "path='picture.xyz': expected a file whose suffix is one of"),
    ({"x": torch.ones(5, 3)}, "x has shape [5, 3]: expected [..., 2]"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[next(iter(options)) for options, _ in WRONG])
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ready(width=[2, 1]).plot(**options)


def test_without_data():
    model = KAN([2, 1])
    for call in (model.plot, lambda: model.plot_edge(0, 0, 0)):
        with pytest.raises(ValueError, match="x=None: expected data, since this model has seen none yet"):
            call()
    with pytest.raises(IndexError, match="j=1: expected an integer from 0 to 0"):
        model.plot_edge(0, 0, 1, x=inputs(5, 2).float())


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    model = ready(width=[2, 1])
    for call in (model.plot, lambda: model.plot_edge(0, 0, 0), lambda: plot_training({"train_loss": [1.0]})):
        with pytest.raises(ImportError, match=r"plots need matplotlib .*: pip install matplotlib"):
            call()
