"""A model as hypothesis sees it: whatever is done to it in public, it computes the formula of its present tensors.

Machine has what may be done to any module of KAN layers. After every operation values and gradients are compared with
definition.value, which knows nothing but the tensors. Results may be off by ROUNDINGS times what a random error of one
rounding in every number that the formula reads changes, since a number is read, and a result rounded, a few tens of
times at most.
"""

import copy
import io
import pickle
from collections import OrderedDict

import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.utils import parametrize, prune
from torch.optim.swa_utils import AveragedModel

from fastkan import KANLinear
from support import definition

ROUNDINGS, PROBES = 32, 2
INPUTS, ROWS = 3, 12
LARGEST, FARTHEST, NARROWEST = 10.0, 100.0, 1e-2  # parameters, knots and grid ranges are kept where rounding is small
seeds = st.integers(0, 999)
whole = precondition(lambda self: not self.parts)  # torch copies no module with computed parameters
# torch.func takes no module with backward hooks, and prune's hook would leave a transform's tensor behind.
functional = precondition(
    lambda self: (
        not any(m._backward_hooks for m in self.model.modules())
        and not any(kind == "pruned" for _, _, kind in self.parts)
    )
)
wide = precondition(lambda self: self.dtype.itemsize > 2)


def of_kind(x: Tensor, kind: str) -> Tensor:
    """Rows with a constant or a binary column, one row alone, or integers."""
    if kind == "constant":
        x[:, 0] = 0.25
    elif kind == "binary":
        x[:, -1] = (x[:, -1] > 0).to(x)
    elif kind == "one row":
        return x[:1]
    elif kind == "integers":
        return x.round()
    return x


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def gradients(y: Tensor, by: list[Tensor], u: Tensor) -> tuple[Tensor | None, ...]:
    """Of <y, u>; prune's products are of the last forward pass, and are asked for more than once."""
    return torch.autograd.grad(y, by, u, allow_unused=True, retain_graph=True)


def watch(module, args, output=None) -> None:
    """A hook that does nothing."""


class Half(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2

    def right_inverse(self, weight: Tensor) -> Tensor:
        return 2 * weight


PARTS = {
    "half": lambda layer, name: parametrize.register_parametrization(layer, name, Half()),
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "pruned": lambda layer, name: prune.l1_unstructured(layer, name, amount=0.5),
}
WRITES = {
    "copy_": lambda t, new: t.copy_(new),
    "data": lambda t, new: setattr(t, "data", new.clone()),
    "data.copy_": lambda t, new: t.data.copy_(new),
    "numpy": lambda t, new: t.detach().numpy().__setitem__(..., new.numpy()),
    "set_": lambda t, new: t.set_(new.clone()),
}
BASES = [nn.Tanh, torch.sin, "silu", "identity", nn.Identity(), nn.PReLU, None]


class Machine(RuleBasedStateMachine):
    """`begin` sets the model."""

    model: nn.Module

    def begin(self, model: nn.Module) -> None:
        self.model, self.parts, self.handles, self.saved, self.flags = model, [], [], [], {}
        self.average = self.optimizer = None
        self.compiled = self.normed = False
        self.seed = 0

    # Comparisons

    @property
    def layers(self) -> list[KANLinear]:
        return [m for m in self.model.modules() if isinstance(m, KANLinear)]

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def data(self, rows: int = ROWS) -> Tensor:
        """Other rows each time, in and beyond the first grid range, on no knot."""
        self.seed += 1
        return normal(self.seed, rows, INPUTS, dtype=self.dtype)

    def agree(self, found: list[Tensor | None], formula, eps: float | None = None) -> None:
        """found is formula(reader), a list of tensors or None for zeros, to rounding.

        A result whose terms cancel may be off by the rounding of its terms, which are about as large as other results.
        """
        eps = torch.finfo(self.dtype).eps if eps is None else eps
        right = formula(definition.exact)
        probes = [formula(definition.rounded(eps, seed)) for seed in range(PROBES)]
        assert len(found) == len(right)
        cancelled = 4 * eps * max((float(t.abs().max()) for t in right if t is not None and t.numel()), default=0.0)
        for n, (mine, true, *near) in enumerate(zip(found, right, *probes, strict=True)):
            if mine is None and true is None:
                continue
            if true is None or not true.numel():
                assert not mine.any()
                continue
            mine = torch.zeros_like(true) if mine is None else mine.detach().double()
            assert mine.shape == true.shape
            off = max(float((t - true).abs().max()) for t in near)
            allowed = ROUNDINGS * (off + eps * float(true.abs().max())) + cancelled
            error = float((mine - true).abs().max())
            assert error <= allowed, f"result {n} is off by {error:.3g}, {allowed:.3g} are allowed"

    def check(self, call=None, x: Tensor | None = None, model=None, eps: float | None = None) -> None:
        """The values of a call, by default of the model."""
        model = self.model if model is None else model
        x = self.data() if x is None else x
        with torch.no_grad():
            y = (model if call is None else call)(x)
            rows = x.reshape(-1, x.shape[-1])
            assert y.dtype == self.dtype or torch.is_autocast_enabled("cpu")
            self.agree([y], lambda read: [definition.value(model, rows, read).reshape(*x.shape[:-1], y.shape[-1])], eps)

    @invariant()
    def the_formula(self) -> None:
        """Values, and gradients by x and all parameters."""
        self.tame()
        assert repr(self.model)
        if min(layer.spline_order for layer in self.layers) < 2:  # whose slopes jump
            self.check()
            return
        x = self.data().requires_grad_()
        y = self.model(x)  # which looks at masks, by which symbolic edges take a gradient
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        u = normal(self.seed, *y.shape)

        def formula(read) -> list[Tensor | None]:
            at = x.detach().double().requires_grad_()
            right = definition.value(self.model, at, read)
            return [right, *gradients(right, [at, *parameters], read(u))]

        self.agree([y, *gradients(y, [x, *parameters], u.to(y))], formula)

    @invariant()
    def what_trains(self) -> None:
        for name, p in self.model.named_parameters():
            expected = self.trains(name, p)
            assert p.requires_grad == expected, f"{name}.requires_grad is {p.requires_grad}: expected {expected}"
            assert p.is_leaf and not p.is_inference()

    def trains(self, name: str, p: Tensor) -> bool:
        """Whether a parameter should take a gradient: as when it was first seen, or freeze has left it."""
        return self.flags.setdefault(name, p.requires_grad)

    def tame(self) -> None:
        """Replace extreme numbers by moderate ones."""
        with torch.no_grad():
            for p in self.model.parameters():
                if not bool((p.abs() <= LARGEST).all()):
                    p.copy_(p.nan_to_num().clamp(-LARGEST, LARGEST))
            for layer in self.layers:
                ends = layer.grid[:, [layer.spline_order, -layer.spline_order - 1]]
                if float(layer.grid.abs().max()) > FARTHEST or float(ends.diff().min()) < NARROWEST:
                    even = torch.linspace(-2, 2, layer.grid.shape[1], dtype=torch.float64)
                    layer.grid.copy_(even.expand_as(layer.grid))

    def kept(self, before: nn.Module, x: Tensor, eps: float | None = None) -> None:
        """The model's function at x is that of `before`, to rounding."""
        with torch.no_grad():
            self.agree([self.model(x)], lambda read: [definition.value(before, x, read)], eps)

    def replace(self, model: nn.Module) -> None:
        self.model, self.average, self.optimizer, self.handles = model, None, None, []

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.model.named_parameters()) | dict(self.model.named_buffers())

    def other(self, seed: int) -> nn.Module:
        """A model of the same shape with other numbers and uneven knots."""
        model = copy.deepcopy(self.model)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.3 * torch.randn(p.shape, generator=generator).to(p))
            for layer in [m for m in model.modules() if isinstance(m, KANLinear)]:
                steps = 0.1 + torch.rand(layer.grid.shape, generator=generator, dtype=torch.float64)
                layer.grid.copy_(2 * steps.cumsum(1) - steps.sum(1, keepdim=True))
        return model

    # Calls

    @rule(shape=st.sampled_from(["1-D", "3-D", "strided", "transposed", "expanded", "empty", "float64", "bfloat16"]))
    def forward(self, shape):
        x = self.data()
        if any(isinstance(m, nn.PReLU) for m in self.model.modules()) and "float" in shape:  # takes its own type alone
            return
        x = {
            "1-D": lambda: x[0], "3-D": lambda: x.view(2, 6, INPUTS), "strided": lambda: x.repeat(1, 3)[::2, ::3],
            "transposed": lambda: x.T.contiguous().T, "expanded": lambda: x[:1].expand(5, -1),
            "empty": lambda: x[:0], "float64": x.double, "bfloat16": x.bfloat16,
        }[shape]()  # fmt: skip
        self.check(x=x, eps=max(torch.finfo(dtype).eps for dtype in (x.dtype, self.dtype)))

    @functional
    @rule(seed=seeds)
    def transforms(self, seed):
        if min(layer.spline_order for layer in self.layers) < 3:
            return
        x = self.data(2)
        with torch.no_grad():
            self.agree([vmap(self.model)(x)], lambda read: [definition.value(self.model, x, read)])
        u = normal(seed, self.model(x).shape[1])

        def of(call):
            return lambda at: (call(at[None])[0] * u.to(at)).sum()

        def formula(read):
            right = of(lambda at: definition.value(self.model, at, read))
            at = x[0].double()
            return [torch.func.grad(right)(at), torch.autograd.functional.hessian(right, at)]

        mine = of(self.model)
        self.agree([torch.func.grad(mine)(x[0]), torch.func.hessian(mine)(x[0])], formula)
        tangent = normal(seed + 1, *x.shape, dtype=self.dtype)

        def along(read):
            right = torch.func.jvp(
                lambda at: definition.value(self.model, at, read), (x.double(),), (tangent.double(),)
            )
            return [right[1]]

        self.agree([torch.func.jvp(self.model, (x,), (tangent,))[1]], along)

    @rule(seed=seeds)
    def autocast(self, seed):
        with torch.autocast("cpu", torch.bfloat16):
            self.check(eps=max(torch.finfo(torch.bfloat16).eps, torch.finfo(self.dtype).eps))

    @precondition(lambda self: not self.compiled and not self.handles)
    @rule(chance=st.integers(0, 9), backend=st.sampled_from(["eager", "aot_eager"]), seed=seeds)
    def compile(self, chance, backend, seed):
        if chance:
            return
        self.compiled = True
        torch._dynamo.reset()
        compiled = torch.compile(self.model, backend=backend)
        self.check(compiled)
        with torch.no_grad():
            for p in self.model.parameters():
                p.data.mul_(0.9)
        self.check(compiled)
        torch._dynamo.reset()

    @whole
    @rule(seed=seeds)
    def inference_mode(self, seed):
        with torch.inference_mode():
            self.check()
            copied = copy.deepcopy(self.model)
            self.check(model=copied)
            copied.load_state_dict(self.other(seed).state_dict())
            for layer in [m for m in copied.modules() if isinstance(m, KANLinear)]:
                layer.update_grid(normal(seed, 50, layer.in_features, dtype=self.dtype))
                layer.extend_grid(layer.grid_size + 1)
            self.check(model=copied)
        with torch.no_grad():
            self.check(model=copied)

    @whole
    @functional
    @rule(seed=seeds)
    def other_tensors(self, seed):
        other = self.other(seed)
        theirs = dict(other.named_parameters()) | dict(other.named_buffers())
        self.check(lambda x: functional_call(self.model, theirs, (x,)), model=other)
        models = [self.model, other]
        state, x = stack_module_state(models), self.data()
        with torch.no_grad():
            for base in (self.model, copy.deepcopy(self.model).to("meta")):
                y = vmap(lambda p, b: functional_call(base, (p, b), (x,)))(*state)  # noqa: B023
                self.agree(list(y), lambda read: [definition.value(model, x, read) for model in models])

    # Training

    @wide
    @rule(opt=st.sampled_from(["SGD", "Adam", "LBFGS", "same"]), seed=seeds)
    def train(self, opt, seed):
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        if not parameters:
            return
        ids = {id(p) for p in parameters}
        if self.optimizer is None or opt != "same" or {id(p) for p in self.optimizer.param_groups[0]["params"]} != ids:
            name = "SGD" if opt == "same" else opt
            self.optimizer = getattr(torch.optim, name)(parameters, lr=0.01)
        x = self.data()
        y = torch.sin(x.sum(1, keepdim=True))
        grads = []

        def closure():
            self.optimizer.zero_grad()
            loss = (self.model(x) - y).square().mean()
            if loss.requires_grad:
                loss.backward()
            grads.append([None if p.grad is None else p.grad.clone() for p in parameters])
            return loss

        before = [p.detach().clone() for p in parameters]
        self.optimizer.step(closure)
        if isinstance(self.optimizer, torch.optim.SGD):
            for p, old, grad in zip(parameters, before, grads[-1], strict=True):
                assert torch.equal(p, old if grad is None else old.add(grad, alpha=-0.01))

    @rule(to_none=st.booleans())
    def zero_grad(self, to_none):
        self.model.zero_grad(set_to_none=to_none)

    @rule(training=st.booleans())
    def set_training(self, training):
        self.model.train(training)

    @precondition(lambda self: not self.parts)
    @rule(pick=seeds)
    def freeze(self, pick):
        named = list(self.model.named_parameters())
        name, p = named[pick % len(named)]
        if self.trains(name, p) or not self.flags[name]:  # else its edges are off
            self.flags[name] = not self.flags[name]
            p.requires_grad_(self.trains(name, p))

    @rule(pick=seeds, kind=st.sampled_from(["forward", "before", "backward"]))
    def listen(self, pick, kind):
        modules = [m for m in self.model.modules() if not isinstance(m, nn.ModuleList | nn.ParameterList)]
        module = modules[pick % len(modules)]
        add = {
            "forward": module.register_forward_hook, "before": module.register_forward_pre_hook,
            "backward": module.register_full_backward_hook,
        }[kind]  # fmt: skip
        self.handles.append(add(watch))

    @precondition(lambda self: self.handles)
    @rule()
    def stop_listening(self):
        self.handles.pop().remove()

    # Numbers are written

    @whole
    @rule(how=st.sampled_from(sorted(WRITES)), seed=seeds)
    def write(self, how, seed):
        with torch.no_grad():
            for mine, theirs in zip(self.tensors().values(), self.tensors_of(self.other(seed)).values(), strict=True):
                if mine.dtype != torch.bfloat16 or how != "numpy":
                    WRITES[how](mine, theirs.detach())

    def tensors_of(self, model: nn.Module) -> dict[str, Tensor]:
        return dict(model.named_parameters()) | dict(model.named_buffers())

    @rule(pick=seeds, seed=seeds, how=st.sampled_from(["set", "data", "copy_", "single", "move"]))
    def knots(self, pick, seed, how):
        layer = self.layers[pick % len(self.layers)]
        generator = torch.Generator().manual_seed(seed)
        grid = torch.rand(layer.grid.shape, generator=generator, dtype=torch.float64).add(0.1).cumsum(1)
        grid = 4 * grid / grid[:, -1:] - 2
        if how == "set":
            layer.grid = grid.float()
        elif how == "data":
            layer.grid.data = grid
        elif how == "copy_":
            layer.grid.copy_(grid)
        elif how == "single":
            layer.grid[0] = grid[0]
        else:
            layer.grid.data.mul_(1.1).add_(0.05)

    @rule(pick=seeds, outside=st.sampled_from(["zero", "linear", "clamp"]))
    def continuation(self, pick, outside):
        self.layers[pick % len(self.layers)].outside = outside

    @rule(pick=seeds, base=st.sampled_from(BASES))
    def base(self, pick, base):
        layer = self.layers[pick % len(self.layers)]
        if layer.base_weight is not None:
            layer.base_activation = nn.PReLU(dtype=self.dtype) if base is nn.PReLU else base
            self.renamed("base_activation")

    # State

    @whole
    @rule()
    def save_state(self):
        self.saved = [*self.saved[-1:], copy.deepcopy(self.model.state_dict())]

    @precondition(lambda self: self.saved and not self.parts)
    @rule(pick=seeds, assign=st.booleans())
    def load_state(self, pick, assign):
        state = copy.deepcopy(self.saved[pick % len(self.saved)])
        try:
            self.model.load_state_dict(state, assign=assign)
        except RuntimeError:
            assert self.changed(state)
            return
        found = self.model.state_dict()
        assert found.keys() == state.keys()
        assert all(torch.equal(t, state[name].to(t)) for name, t in found.items())

    def changed(self, state: dict[str, Tensor]) -> bool:
        """Whether a state dict is of another shape, so that it can't be loaded."""
        mine = self.model.state_dict()
        return mine.keys() != state.keys() or any(t.shape != state[name].shape for name, t in mine.items())

    @precondition(lambda self: not self.parts)
    @rule(seed=seeds, share=st.floats(0, 1), how=st.sampled_from(["lerp", "mean"]))
    def average_states(self, seed, share, how):
        mine, theirs = self.model.state_dict(), self.other(seed).state_dict()
        if how == "lerp":
            for name, t in mine.items():
                t.lerp_(theirs[name].to(t), share) if t.is_floating_point() else None
        else:
            mean = OrderedDict((name, (t.double() + theirs[name].double()) / 2) for name, t in mine.items())
            self.model.load_state_dict(mean)

    @whole
    @rule(buffers=st.booleans())
    def start_average(self, buffers):
        self.average = AveragedModel(self.model, use_buffers=buffers)

    @precondition(lambda self: self.average is not None and not self.parts)
    @rule()
    def update_average(self):
        if self.changed(self.average.module.state_dict()):
            self.average = None
            return
        self.average.update_parameters(self.model)
        self.check(self.average, model=self.average.module)

    @whole
    @rule(how=st.sampled_from(["deepcopy", "pickle", "torch.save", "copied state"]), keep=st.booleans())
    def duplicate(self, how, keep):
        if self.normed and how in ("pickle", "torch.save"):
            return
        if how == "pickle":
            made = pickle.loads(pickle.dumps(self.model))
        elif how == "torch.save":
            torch.save(self.model, file := io.BytesIO())
            file.seek(0)
            made = torch.load(file, weights_only=False)
        else:
            made = copy.deepcopy(self.model)
        if how == "copied state":
            made = self.other(1)
            made.load_state_dict(self.model.state_dict())
        x = self.data()
        with torch.no_grad():
            y = self.model(x)
            assert torch.equal(made(x), y) and repr(made) == repr(self.model)
            for p in made.parameters() if keep else self.model.parameters():
                p.data.add_(0.0)  # nothing is shared
            old, new = (self.model, made) if keep else (made, self.model)
            for t in self.tensors_of(new).values():
                t.data.mul_(0.95) if t.is_floating_point() else None
            assert torch.equal(old(x), y)
        if keep:
            self.replace(made)

    @rule(dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    def cast(self, dtype):
        if self.parts and dtype.itemsize == 2:
            return
        before, eps = None if self.parts else copy.deepcopy(self.model), torch.finfo(self.dtype).eps
        grids = [layer.grid.clone() for layer in self.layers]
        x = self.data()
        self.model.to(dtype)
        assert all(torch.equal(layer.grid, grid) for layer, grid in zip(self.layers, grids, strict=True))
        self.optimizer = self.average = None
        if before is not None and dtype == torch.float64:
            self.kept(before, x.double(), eps)

    @whole
    @rule(seed=seeds)
    def start_again(self, seed):
        self.model.to("meta")
        assert self.model(torch.empty(5, INPUTS, device="meta", dtype=self.dtype)).is_meta
        self.model.to_empty(device="cpu")
        if hasattr(self.model, "input_id"):  # which columns prune_input has left is in no shape
            self.model.input_id = torch.arange(len(self.model.input_id))
        torch.manual_seed(seed)
        for module in self.model.modules():
            if isinstance(module, nn.PReLU):
                nn.init.constant_(module.weight, 0.25)
        for module in [self.model] if hasattr(self.model, "reset_parameters") else self.model.children():
            module.reset_parameters()
        self.optimizer = self.average = None

    # Parametrizations

    @precondition(lambda self: len(self.parts) < 2 and self.dtype.itemsize > 2)
    @rule(
        pick=seeds, kind=st.sampled_from(sorted(PARTS)), name=st.sampled_from(["coef", "base_weight", "spline_scale"])
    )
    def parametrize(self, pick, kind, name):
        layer = self.layers[pick % len(self.layers)]
        p = layer._parameters.get(name)
        if p is not None and (kind != "weight_norm" or bool((p != 0).all())):  # no direction has the norm 0
            PARTS[kind](layer, name)
            self.parts.append((layer, name, kind))
            self.normed |= kind == "weight_norm"  # whose hook for state dicts stays, and can't be pickled
            self.renamed(name)

    def renamed(self, part: str) -> None:
        """What a parameter of this name is computed from, or it itself again, are new parameters."""
        self.flags = {name: flag for name, flag in self.flags.items() if part not in name}
        self.optimizer = self.average = None

    @precondition(lambda self: self.parts)
    @rule()
    def bake(self):
        layer, name, kind = self.parts.pop()
        if kind == "pruned":
            prune.remove(layer, name)
        else:
            parametrize.remove_parametrizations(layer, name)
        self.renamed(name)
