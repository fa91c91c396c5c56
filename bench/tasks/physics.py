"""The tutorials Physics 1 to 4 and Community 1."""

import torch

from . import minimise


def lagrangian(kan, seed: int = 0) -> dict:
    """Physics 1: a relativistic mass under a constant force: the Lagrangian of its motion is -sqrt(1 - v^2) + q."""
    from kan.compiler import kanpiler

    symbols = kan.sympy.symbols("q v")
    model = kanpiler(symbols, symbols[1] ** 2, grid=10)
    torch.manual_seed(seed)
    q, v = torch.rand(200, 1) * 4 - 2, torch.rand(200, 1) * 1.6 - 0.8
    x, acceleration = torch.cat([q, v], 1), (1 - v**2) ** 1.5
    model.get_act(x)
    model.perturb(mode="all", mag=0.1)
    model.update_grid(x)

    def error():
        slope = kan.batch_jacobian(model, x, create_graph=True)
        hessian = kan.batch_hessian(model, x, create_graph=True)
        # d/dt dL/dv = dL/dq
        found = (slope[:, :1] - hessian[:, 1:, 0] * v) / hessian[:, 1:, 1]
        return (acceleration - found).square().mean()

    before = error().item()
    loss = minimise(kan, model, error, 12)
    speeds, values = (torch.as_tensor(part) for part in model.get_fun(0, 1, 0))
    # a line is no matter: c v is the derivative of c q by the time
    terms = torch.stack([torch.sqrt(1 - speeds**2), speeds, torch.ones_like(speeds)], 1)
    found = torch.linalg.lstsq(terms, values[:, None]).solution
    bend = values - terms[:, 1:] @ found[1:, 0]
    share = ((bend - terms[:, 0] * found[0, 0]).std() / bend.std()).item()
    return {"loss": loss, "error of the Lagrangian": share, "before": before}


def conserved(kan, model, x, flow, weight: float = 0.0) -> torch.Tensor:
    """The mean square cosine of the model's gradient and the flow: 0 where the model is conserved."""
    slope = kan.batch_jacobian(model, x, create_graph=True)
    cosine = (slope * flow).sum(1) / (slope.norm(dim=1) * flow.norm(dim=1))
    penalty = model.reg("edge_forward_spline_n", 1.0, 2.0, 1.0, 0.0) if weight else 0.0
    return cosine.square().mean() + weight * penalty


def conservation_law(kan, seed: int = 0) -> dict:
    """Physics 2A: a harmonic oscillator conserves x^2 + p^2, or a function of it."""
    model = kan.KAN(width=[2, 1], grid=1, seed=42 + seed)  # with more intervals most starts end elsewhere, at 0.1
    x = torch.rand(300, 2) * 2 - 1
    flow = torch.stack([x[:, 1], -x[:, 0]], 1)
    loss = minimise(kan, model, lambda: conserved(kan, model, x, flow), 20)
    model(x)
    model.plot()
    model.auto_symbolic()
    formula, (q, p) = model.symbolic_formula()
    factors = [float(formula[0].expand().coeff(variable, 2)) for variable in (q, p)]
    return {"loss": loss, "names": model.symbolic_fun[0].funs_name, "factors": factors}


def conservation_law_in_2d(kan, seed: int = 0) -> dict:
    """Physics 2B: two oscillators: a conserved quantity by multiplication nodes."""
    model = kan.KAN(width=[4, [0, 2], 1], seed=12 + seed, base_fun="identity")
    x = torch.rand(200, 4) * 2 - 1
    flow = torch.stack([x[:, 1], -x[:, 0], x[:, 3], -x[:, 2]], 1)
    model.update_grid_from_samples(x)
    minimise(kan, model, lambda: conserved(kan, model, x, flow, 1e-2), 5)
    loss = minimise(kan, model, lambda: conserved(kan, model, x, flow), 8)
    turned = x.clone()  # along the flow by an angle
    angle = torch.tensor(0.3)
    for i in (0, 2):
        turned[:, i] = x[:, i] * angle.cos() + x[:, i + 1] * angle.sin()
        turned[:, i + 1] = x[:, i + 1] * angle.cos() - x[:, i] * angle.sin()
    inside = (turned.abs() < 1).all(1)
    y, after = model(x)[inside], model(turned)[inside]
    return {"loss": loss, "change along the flow": ((y - after).std() / y.std()).item()}


def black_hole(kan, seed: int = 0, *, kind: str) -> dict:
    """Physics 3: the time t' = t + f(r) in which space around a black hole is flat, Painleve's and Gullstrand's."""
    from kan.MLP import MLP

    if kind == "KAN":
        model = kan.KAN(width=[1, 1], grid=5, grid_range=[1.2, 3], seed=1 + seed)
    else:
        model = MLP(width=[1, 8, 8, 1], seed=seed)
    torch.manual_seed(0)
    radius = torch.linspace(1.2, 3, 100)[:, None]
    direction = torch.nn.functional.normalize(torch.randn(100, 3), dim=1)
    x = torch.cat([torch.rand(100, 1), radius * direction], 1)

    def metric(x):  # Schwarzschild's, with 2M = 1
        n = x[:, 1:] / radius
        g = torch.zeros(len(x), 4, 4)
        g[:, 0, 0] = 1 - 1 / radius[:, 0]
        g[:, 1:, 1:] = -(torch.eye(3) + n[:, :, None] * n[:, None, :] / (radius - 1)[:, :, None])
        return g

    def transform(x):
        return torch.cat([x[:, :1] + model(x[:, 1:].norm(dim=1, keepdim=True)), x[:, 1:]], 1)

    def curvature():
        back = torch.linalg.inv(kan.batch_jacobian(transform, x, create_graph=True, mode="vector"))
        return ((back.mT @ metric(x) @ back)[:, 1:, 1:] + torch.eye(3)).square().mean()

    loss = minimise(kan, model, curvature, 10)
    slope = kan.batch_jacobian(model, radius)[:, 0].abs()
    truth = radius[:, 0].sqrt() / (radius[:, 0] - 1)
    return {"loss": loss, "error of the slope": ((slope - truth).abs() / truth).median().item()}


def neo_hookean(rows: int, spread: float, seed: int):
    """Deformations F [rows, 3, 3], and the stress mu (F F^T - 1) + lambda log|F|; mu and lambda of E = 1, nu = 0.2."""
    mu, lame = 1 / (2 * 1.2), 0.2 / (1.2 * 0.6)
    torch.manual_seed(seed)
    f = torch.eye(3) + (torch.rand(rows, 3, 3) * 2 - 1) * spread
    stress = mu * (f @ f.mT - torch.eye(3)) + lame * torch.linalg.det(f).abs().log()[:, None, None] * torch.eye(3)
    return f, stress, mu, lame


NAMES = "F11 F12 F13 F21 F22 F23 F31 F32 F33"


def constitutive_law(kan, seed: int = 0) -> dict:
    """Physics 4A: from the linear law to the formula mu (F11^2 + F12^2 + F13^2 - 1) + lambda log|F|, |F| given beside
    the nine."""
    from kan.compiler import kanpiler

    f, stress, mu, lame = neo_hookean(500, 0.3, seed)
    names = kan.sympy.symbols(NAMES)
    linear = 2 * mu * (names[0] - 1) + lame * (names[0] + names[4] + names[8] - 3)
    model, flat = kanpiler(names, linear), f.reshape(500, 9)
    kan.np.random.seed(0)
    dataset = kan.create_dataset_from_data(flat, stress[:, :1, 0])
    model.get_act(flat)
    model.perturb()
    losses = model.fit(dataset, steps=5)["train_loss"]
    determinant = kan.sympy.Matrix(3, 3, names).det()
    dataset = kan.augment_input(names, [determinant], dataset)
    model = kan.KAN(width=[10, 1], grid=3, k=3, seed=seed)
    model.fit(dataset, steps=15, lamb=1e-5)
    model = model.prune_input(threshold=2e-2)
    model.fit(dataset, steps=10)
    model.plot(in_vars=["|F|", *map(str, names)], out_vars=["$P_{11}$"], varscale=0.75)
    model.auto_symbolic(lib=["x", "x^2", "log", "exp", "sin"])
    loss = model.fit(dataset, steps=40)["test_loss"][-1]
    return {"test loss": loss, "inputs": [int(i) for i in model.input_id], "linear losses": losses,
            "names": model.symbolic_fun[0].funs_name}  # fmt: skip


def constitutive_law_with_prior(kan, seed: int = 0) -> dict:
    """Physics 4B: P12 = mu sum_k F1k F2k, from the linear law mu (F12 + F21): widened by multiplication nodes, and
    trained."""
    from kan.compiler import kanpiler

    f, stress, mu, _ = neo_hookean(300, 0.5, seed)
    names = kan.sympy.symbols(NAMES)
    model = kanpiler(names, mu * (names[1] + names[3]), grid=3)
    kan.np.random.seed(0)
    dataset = kan.create_dataset_from_data(f.reshape(300, 9), stress[:, :1, 1])
    model.get_act(dataset)
    linear = (model(dataset["test_input"]) - dataset["test_label"]).square().mean().sqrt().item()
    model.expand_depth()
    model.expand_width(1, 3, sum_bool=False, mult_arity=2)
    model.perturb(mode="all")
    model.fit(dataset, steps=20)
    loss = model.fit(dataset, steps=20, update_grid=False)["test_loss"][-1]
    return {"test loss": loss, "linear": linear}


def constitutive_law_without_prior(kan, seed: int = 0) -> dict:
    """Physics 4C: the same from a network that starts at random, and lines alone on its edges, of the six entries that
    matter."""
    f, stress, _, _ = neo_hookean(300, 0.5, seed)
    x, y = f[:, :2].reshape(300, 6), stress[:, :1, 1]
    kan.np.random.seed(0)
    dataset = kan.create_dataset_from_data(x, y)
    model = kan.KAN(width=[6, [0, 3], 1], base_fun="identity", grid=1, k=1, noise_scale=0.0, seed=2 + seed)
    splines = model.fit(dataset, steps=25, update_grid=False)["test_loss"][-1]
    model.auto_symbolic(lib=["x"])
    return {"test loss": model.fit(dataset, steps=20)["test_loss"][-1], "splines' test loss": splines}


def navier_stokes(kan, seed: int = 0) -> dict:
    """Community 1: flow between two plates by the residuals of the Navier-Stokes equations, with degree 5 for 10."""
    torch.manual_seed(0)
    width, height, viscosity = 10.0, 2.0, 0.01
    x = torch.cartesian_prod(torch.linspace(0, width, 12), torch.linspace(0, height, 6))
    model = kan.KAN(width=[2, 3, 3, 3], grid=5, k=5, grid_eps=1.0, seed=seed)
    model.update_grid_from_samples(x)
    walls, inlet, outlet = (x[:, 1] == 0) | (x[:, 1] == height), x[:, 0] == 0, x[:, 0] == width

    def residuals():
        u, v, p = model(x).T
        slope = kan.batch_jacobian(model, x, create_graph=True, mode="vector")
        hessians = [kan.batch_hessian(lambda at, i=i: model(at)[:, [i]], x, create_graph=True) for i in range(2)]
        bend = torch.stack([hessian.diagonal(dim1=1, dim2=2).sum(1) for hessian in hessians], 1)
        flow = torch.stack([u, v], 1)
        inertia = (slope[:, :2] * flow[:, None]).sum(2)
        momentum = inertia + slope[:, 2] - viscosity * bend
        inside = (slope[:, 0, 0] + slope[:, 1, 1]).square().mean() + momentum.square().sum(1).mean()
        border = flow[walls].square().sum(1).mean() + (u[inlet] - 1).square().mean() + p[outlet].square().mean()
        return inside + border

    before = residuals().item()
    loss = minimise(kan, model, residuals, 8)
    model(x)
    model.plot(beta=10)
    return {"loss": loss, "before": before}
