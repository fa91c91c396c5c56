"""Random sequences of public operations, after each of which a model computes the formula of its tensors."""

import copy
import io
import os

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test
from torch import nn

from fastkan import KAN, KANLinear
from fastkan.nn import KANSequential
from support import definition
from support.state_machine import INPUTS, ROUNDINGS, ROWS, Machine, normal, of_kind, seeds, whole, wide
from support.tiers import long

# Sequences of each machine: without the variable, always the same ones.
MANY = os.environ.get("FASTKAN_TEST_SEQUENCES")
SETTINGS = settings(
    stateful_step_count=12 if MANY is None else 25, deadline=None,
    derandomize=MANY is None, suppress_health_check=list(HealthCheck), print_blob=False,
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore")
degrees = st.sampled_from([1, 2, 3, 3, 5])
continuations = st.sampled_from(["zero", "linear", "clamp"])


class LayerMachine(Machine):
    """A KANLinear, or several as a KANSequential."""

    @initialize(
        sizes=st.sampled_from([[4], [1], [4, 2], [2, 3, 1]]), degree=degrees, grid=st.integers(1, 6),
        scaled=st.booleans(), bias=st.booleans(), outside=continuations, base=st.sampled_from(["silu", nn.Tanh, None]),
        dtype=st.sampled_from([torch.float32, torch.float64]), backend=st.sampled_from([None, "reference"]),
        grid_eps=st.sampled_from([0.0, 0.02, 1.0]), seed=seeds,
    )  # fmt: skip
    def make(self, sizes, degree, grid, scaled, bias, outside, base, dtype, backend, grid_eps, seed):
        widths = [INPUTS, *sizes]
        layers = [
            KANLinear(
                i, o, grid, degree, scale_noise=2.0, enable_standalone_scale_spline=scaled, base_activation=base,
                bias=bias, outside=outside, grid_eps=grid_eps, dtype=dtype, backend=backend,
                generator=torch.Generator().manual_seed(seed),
            )
            for i, o in zip(widths, sizes, strict=False)
        ]  # fmt: skip
        self.begin(layers[0] if len(layers) == 1 else KANSequential(*layers))

    def entering(self, at: int, rows: int = 40):
        """What enters layer `at`."""
        x = self.data(rows)
        with torch.no_grad():
            for layer in self.layers[:at]:
                x = layer(x)
        return x

    @rule(pick=seeds, kind=st.sampled_from(["rows", "constant", "binary", "loader", "one row", "integers"]))
    def update_grid(self, pick, kind):
        at = pick % len(self.layers)
        layer, x = self.layers[at], self.entering(at)
        x = of_kind(x, kind)
        source = [(part, 0) for part in x.split(7)] if kind == "loader" else x
        if any(part[0] is layer and part[1] == "coef" for part in self.parts):
            try:
                layer.update_grid(source)
            except RuntimeError:
                return
        layer.update_grid(source)
        assert not layer.outside_share(x).any()
        if self.parts:
            return
        before = definition.linear(layer, x).detach()
        layer.update_grid(source)  # now the new splines are the old ones
        with torch.no_grad():
            eps = torch.finfo(self.dtype).eps
            self.agree(
                [layer(x)],
                lambda read: [before if read is definition.exact else definition.linear(layer, x, read)],
                eps,
            )

    @whole
    @rule(pick=seeds, factor=st.integers(1, 3))
    def extend_grid(self, pick, factor):
        layer = self.layers[pick % len(self.layers)]
        if layer.grid_size * factor > 12:
            return
        low, high = layer.grid[:, layer.spline_order], layer.grid[:, -layer.spline_order - 1]
        x = torch.lerp(low, high, torch.rand(30, len(low), dtype=torch.float64)).to(self.dtype)
        before = definition.edges(layer, x).detach()
        layer.extend_grid(layer.grid_size * factor)
        self.agree(
            [definition.edges(layer, x)],
            lambda read: [before if read is definition.exact else definition.edges(layer, x, read)],
        )

    @whole
    @rule(pick=seeds, size=st.integers(1, 9), seed=seeds)
    def set_grid(self, pick, size, seed):
        layer = self.layers[pick % len(self.layers)]
        functions = size + layer.spline_order
        knots = normal(seed, functions + layer.spline_order + 1).sort().values
        coef = normal(seed, layer.in_features, functions, layer.out_features)
        layer.set_grid(knots, coef)
        assert layer.grid_size == size and torch.equal(layer.coef, coef.to(self.dtype))

    @whole
    @rule(pick=seeds, seed=seeds, how=st.sampled_from(["data", "set", "item", "grad"]))
    def views(self, pick, seed, how):
        layer = self.layers[pick % len(self.layers)]
        names = ["spline_weight", *(["spline_scaler"] if layer.spline_scale is not None else [])]
        for name in names:
            value = normal(seed, *getattr(layer, name).shape, dtype=self.dtype)
            if how == "data":
                getattr(layer, name).data = value
            elif how == "set":
                setattr(layer, name, nn.Parameter(value))
            elif how == "item":
                getattr(layer, name).data[0] = value[0]
            else:
                getattr(layer, name).grad = value
                assert torch.equal(getattr(layer, name).grad, value)
            if how in ("data", "set"):
                assert torch.equal(getattr(layer, name), value)


class NetworkMachine(Machine):
    """A KAN, with products, symbolic edges, pruned inputs and layers that are added."""

    @initialize(
        width=st.sampled_from([[3, 2], [3, 4, 1], [3, [2, 1], 2], [3, [1, 1], [1, 1]], [3, 2, 2, 1]]),
        grid=st.integers(1, 4), degree=st.sampled_from([2, 3]), arity=st.sampled_from([2, 3]),
        base=st.sampled_from(["silu", "zero", torch.tanh]),
        outside=continuations, options=st.fixed_dictionaries({
            "affine_trainable": st.booleans(), "sparse_init": st.booleans(), "sb_trainable": st.booleans(),
            "symbolic_enabled": st.sampled_from([True, True, False]), "history": st.booleans(),
        }),
        dtype=st.sampled_from([torch.float32, torch.float64]), backend=st.sampled_from([None, "reference"]), seed=seeds,
    )  # fmt: skip
    def make(self, width, grid, degree, arity, base, outside, options, dtype, backend, seed):
        self.begin(
            KAN(
                width, grid, degree, arity, scale_base_mu=0.5, base_fun=base, outside=outside, dtype=dtype,
                backend=backend, seed=seed, **options,
            )
        )  # fmt: skip

    @property
    def exact(self) -> float:
        return torch.finfo(self.dtype).eps

    def trains(self, name: str, p) -> bool:
        if not name.endswith("affine"):
            return super().trains(name, p)
        expected = self.flags.setdefault(name, True)
        if not self.model.symbolic_enabled:  # nobody looks at the mask
            return p.requires_grad
        return expected and bool(self.model.symbolic_fun[int(name.split(".")[1])].edge_mask.any())

    def edge(self, pick: int) -> tuple[int, int, int]:
        model = self.model
        l = pick % model.depth
        return l, pick // 7 % model.width_in[l], pick // 31 % model.width_out[l + 1]

    def functions(self, l: int, x):
        """Of all edges of layer l, [N, I, O]."""
        numeric, symbolic = self.model.act_fun[l], self.model.symbolic_fun[l]
        found = definition.edges(numeric.linear, x) * numeric.edge_mask.double()
        return (found + definition.functions(symbolic, x) if self.model.symbolic_enabled else found).detach()

    # Grids

    @rule(kind=st.sampled_from(["rows", "constant", "binary", "one row"]))
    def update_grid(self, kind):
        x = of_kind(self.data(40), kind)
        try:
            self.model.update_grid_from_samples(x)
        except RuntimeError:
            assert any(name == "coef" for _, name, _ in self.parts)
            return
        if not self.parts and self.dtype.itemsize > 2:
            before = copy.deepcopy(self.model)
            self.model.update_grid_from_samples(x)  # now the new splines are the old ones
            with torch.no_grad():
                self.agree([self.model(x)], lambda read: [definition.value(before, x, read)], 16 * self.exact)

    @whole
    @rule(factor=st.integers(1, 3))
    def refine(self, factor):
        sizes = [layer.num * factor for layer in self.model.act_fun]
        if max(sizes) > 9:
            return
        refined = self.model.refine(sizes)
        for old, new in zip(self.model.act_fun, refined.act_fun, strict=True):
            low, high = old.grid[:, old.k], old.grid[:, -old.k - 1]
            x = torch.lerp(low, high, torch.rand(30, len(low), dtype=torch.float64)).to(self.dtype)
            before = definition.edges(old.linear, x).detach()
            self.agree(
                [definition.edges(new.linear, x)],
                lambda read: [before if read is definition.exact else definition.edges(old.linear, x, read)],  # noqa: B023
            )
        self.replace(refined)

    # Shape

    @whole
    @rule(pick=seeds, sums=st.booleans(), count=st.integers(1, 2))
    def expand_width(self, pick, sums, count):
        model, x = self.model, self.data()
        if model.depth < 2 or sum(model.width_in) > 16:
            return
        before = copy.deepcopy(model)
        model.expand_width(1 + pick % (model.depth - 1), count, sums, 1 + pick % 3)
        self.reshaped()
        self.kept(before, x)

    @whole
    @rule()
    def expand_depth(self):
        before, x = copy.deepcopy(self.model), self.data()
        if self.model.depth > 3:
            return
        self.model.expand_depth()
        self.reshaped()
        self.kept(before, x)

    def reshaped(self) -> None:
        """Parameters are new, and train if those of the same names did."""
        self.optimizer = self.average = None

    @whole
    @rule(pick=seeds)
    def swap(self, pick):
        model, x, before = self.model, self.data(), copy.deepcopy(self.model)
        if model.depth < 2:
            return
        l = 1 + pick % (model.depth - 1)
        n_sum, n_mult = model.width[l]
        start, count = (0, n_sum) if n_sum else (n_sum, n_mult)
        model.swap(l, start + pick // 3 % count, start + pick // 11 % count)
        self.reshaped()
        self.kept(before, x)

    @whole
    @rule(mode=st.sampled_from(["all", "non-intrusive", "minimal"]), size=st.sampled_from([0.5, 1.0]))
    def perturb(self, mode, size):
        before, x = copy.deepcopy(self.model), self.data()
        self.model.perturb(size, mode)
        if mode == "non-intrusive":
            self.kept(before, x)

    @whole
    @rule(pick=seeds, how=st.sampled_from(["nodes", "inputs", "scores", "edges", "count"]))
    def prune(self, pick, how):
        model, x = self.model, self.data(30)
        if how == "inputs":
            keep = [i for i in range(model.width_in[0]) if i != pick % model.width_in[0]]
            if not keep:
                return
            cut = copy.deepcopy(model)
            cut.remove_node(0, pick % model.width_in[0], "up")
            self.replace(model.prune_input(active_inputs=keep))
        elif how == "nodes":
            cut, keep = copy.deepcopy(model), []
            for l in range(1, model.depth):
                gone = {(pick + l) % model.width_in[l]} if model.width_in[l] > 1 else set()
                keep.append([i for i in range(model.width_in[l]) if i not in gone])
                for i in gone:
                    cut.remove_node(l, i, "up")
            self.replace(model.prune_node(mode="manual", active_neurons_id=keep))
        else:
            try:
                if how == "scores":
                    self.replace(model.prune(0.02, 0.05, x=x))
                elif how == "edges":
                    model.prune_edge(0.05, x=x)
                else:
                    model.prune_edge(count=4, x=x)
            except ValueError as error:
                assert "expected" in str(error)
            return
        self.kept(cut, x)

    # Edges

    def one_edge(self, pick: int, change) -> None:
        """change(l, i, j) leaves the functions of all other edges bitwise unchanged."""
        l, i, j = self.edge(pick)
        x = normal(pick, ROWS, self.model.width_in[l])
        before = self.functions(l, x)
        change(l, i, j)
        after = self.functions(l, x)
        after[:, i, j] = before[:, i, j]
        assert torch.equal(before, after)

    @rule(pick=seeds, mode=st.sampled_from(["n", "s", "ns", "0"]), mask=st.sampled_from([None, 0.5]))
    def set_mode(self, pick, mode, mask):
        self.one_edge(pick, lambda *edge: self.model.set_mode(*edge, mode, mask))

    @rule(pick=seeds)
    def remove_edge(self, pick):
        self.one_edge(pick, self.model.remove_edge)

    @rule(pick=seeds, mode=st.sampled_from(["all", "up", "down"]))
    def remove_node(self, pick, mode):
        l = pick % (self.model.depth + 1)
        self.model.remove_node(l, pick // 5 % self.model.width_in[l], mode)

    @rule(
        pick=seeds,
        name=st.sampled_from(["sin", "x^2", "tanh", "x", "gaussian", "0"]),
        fit=st.sampled_from([False, False, True]),
    )
    def fix_symbolic(self, pick, name, fit):
        if fit:
            self.model.get_act(self.data(30))
        try:
            self.one_edge(pick, lambda *edge: self.model.fix_symbolic(*edge, name, fit_params_bool=fit, verbose=False))
        except ValueError as error:
            assert "expected" in str(error) and fit

    @rule(pick=seeds, every=st.sampled_from([False, False, True]))
    def unfix_symbolic(self, pick, every):
        if every:
            self.model.unfix_symbolic_all()
        else:
            self.one_edge(pick, self.model.unfix_symbolic)

    @whole
    @rule(threshold=st.sampled_from([0.0, 0.9]), undo=st.booleans(), chance=st.integers(0, 3))
    def auto_symbolic(self, threshold, undo, chance):
        if chance or self.dtype.itemsize == 2:
            return
        self.model.get_act(self.data(30))
        before, x = copy.deepcopy(self.model), self.data()
        try:
            report = self.model.auto_symbolic(lib=["x", "x^2", "sin"], verbose=0, r2_threshold=threshold)
        except ValueError as error:
            assert "expected" in str(error)
        else:
            if not undo:
                return
            report.undo()
        self.kept(before, x)

    @rule(
        pick=seeds, branch=st.booleans(), how=st.sampled_from(["item", "data", "numpy", "set", "multiply"]),
        value=st.sampled_from([0.0, 1.0, 0.5, -1.0]),
    )  # fmt: skip
    def mask(self, pick, branch, how, value):
        l, i, j = self.edge(pick)
        layer, at = (self.model.act_fun[l], (i, j)) if branch else (self.model.symbolic_fun[l], (j, i))
        mask = layer.edge_mask
        if how == "item":
            layer.mask[at] = value
        elif how == "data":
            mask.data[at] = value
        elif how == "numpy" and self.dtype.itemsize > 2:
            mask.numpy()[at] = value
        elif how == "set":
            layer.mask = torch.full_like(mask, value)
        else:
            layer.mask *= value

    @rule(pick=seeds, name=st.sampled_from(["sin", "x^2", "tanh", "0"]), seed=seeds)
    def name(self, pick, name, seed):
        l, i, j = self.edge(pick)
        layer = self.model.symbolic_fun[l]
        layer.funs_name[j][i] = name
        layer.affine.data[j, i] = normal(seed, 4).to(layer.affine)

    @rule(enabled=st.booleans())
    def symbolic_branch(self, enabled):
        self.model.symbolic_enabled = enabled

    @rule(pick=seeds, name=st.sampled_from(["node_bias", "node_scale", "subnode_bias", "subnode_scale"]), seed=seeds)
    def maps(self, pick, name, seed):
        p = getattr(self.model, name)[pick % self.model.depth]
        p.data.copy_(normal(seed, *p.shape))

    @rule(
        pick=seeds,
        name=st.sampled_from(["coef", "scale_base", "scale_sp"]),
        how=st.sampled_from(["data", "set"]),
        seed=seeds,
    )
    def views(self, pick, name, how, seed):
        layer = self.model.act_fun[pick % self.model.depth]
        if name == "scale_base" and layer.linear.base_weight is None:
            return
        value = normal(seed, *getattr(layer, name).shape, dtype=self.dtype)
        try:
            if how == "set":
                setattr(layer, name, value)
            else:
                getattr(layer, name).data = value
        except RuntimeError:
            assert self.parts
            return
        if not self.parts:
            assert torch.equal(getattr(layer, name), value)

    @rule(base=st.sampled_from(["silu", "identity", torch.sin]))
    def base_fun(self, base):
        if all(layer.linear.base_weight is not None for layer in self.model.act_fun):
            self.model.base_fun = base

    # Training, files, properties

    @wide
    @rule(
        opt=st.sampled_from(["LBFGS", "Adam", "LM"]), lamb=st.sampled_from([0.0, 1e-2]), move=st.booleans(),
        batch=st.sampled_from([-1, 8]), grow=st.booleans(),
    )  # fmt: skip
    def fit(self, opt, lamb, move, batch, grow):
        model, x = self.model, self.data(24)
        if not any(p.requires_grad for p in model.parameters()) or (move and self.parts):
            return
        y = torch.sin(x[:, :1]).expand(-1, model.width_in[-1]).contiguous()
        sizes = (
            [[min(8, layer.num + n) for layer in model.act_fun] for n in range(2)] if grow and not self.parts else None
        )
        try:
            found = model.fit(
                (x, y), opt, 2, lamb=lamb, update_grid=move, batch=batch, lr=0.01 if opt == "Adam" else 1.0,
                grid_sizes=sizes, progress=False,
            )  # fmt: skip
        except ValueError as error:
            assert "expected" in str(error)
            return
        if opt != "Adam" and batch == -1 and found["stopped"] is None:
            with torch.no_grad():
                loss = torch.tensor([[found["train_loss"][-1]]], dtype=torch.float64)
                right = [
                    (definition.value(model, x, r) - y).square().mean().sqrt().view(1, 1)
                    for r in (definition.exact, definition.rounded(self.exact))
                ]
                off = ROUNDINGS * (float((right[0] - right[1]).abs()) + self.exact * float(1 + right[0]))
                assert abs(float(loss - right[0])) <= off, (loss, right, off)

    @whole
    @rule(how=st.sampled_from(["save", "history", "copy"]))
    def file(self, how):
        model, x = self.model, self.data()
        if how == "save":
            base = copy.deepcopy([layer.base_fun for layer in model.act_fun])
            model.save(file := io.BytesIO())
            file.seek(0)
            made = KAN.load(file, base_fun=base, backend=model.act_fun[0].linear.backend)
        elif how == "history":
            made = model.rewind(model.keep("here"))
        else:
            made = model.copy()
        with torch.no_grad():
            self.agree([made(x)], lambda read: [definition.value(model, x, read)])
        assert made.state_dict().keys() == model.state_dict().keys()
        assert all(torch.equal(t, model.state_dict()[name]) for name, t in made.state_dict().items())
        assert made.config() == model.config() and repr(made) == repr(model)
        self.replace(made)

    @wide
    @rule(x_seed=seeds)
    def activations(self, x_seed):
        model, x = self.model, self.data(20)
        model.get_act(x)
        at = x[:, model.input_id].double()
        with torch.no_grad():
            self.agree([model.acts[-1]], lambda read: [definition.value(model, x, read)])
            for l in range(model.depth):
                at = model.acts[l]
                right = self.functions(l, at)
                self.agree(
                    [model.spline_postacts[l].permute(0, 2, 1), model.edge_actscale[l].T],
                    lambda read: [right, right.std(0)] if read is definition.exact else [  # noqa: B023
                        r := self.functions(l, read(at)), r.std(0) + self.exact * r.abs().mean(0)  # noqa: B023
                    ],
                    4 * self.exact,
                )  # fmt: skip
            scores = [model.feature_score, *model.node_scores, *model.edge_scores]
        assert all(bool(score.isfinite().all()) for score in scores)
        assert bool(model.reg(lamb_coef=1.0, lamb_coefdiff=1.0).isfinite())


@pytest.mark.parametrize("sequences", [12, *long(int(MANY or 40))])
@pytest.mark.parametrize("machine", [LayerMachine, NetworkMachine])
def test_sequences(machine, sequences):
    run_state_machine_as_test(machine, settings=settings(SETTINGS, max_examples=sequences))
