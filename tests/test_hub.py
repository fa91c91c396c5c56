"""fastkan.compat.hub, safetensors and Hugging Face's accelerate: models come back equal, whatever was done to them."""

import copy
import io
import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from fastkan import KAN, KANLinear, replace_linear
from fastkan.network import checkpoint
from support.model_kinds import MODELS, data, perturb, pruned, symbolic


def package(name: str):
    return pytest.importorskip(name, reason=f"{name.partition('.')[0]} is not installed")


def hub():
    package("huggingface_hub")
    from fastkan.compat import hub

    return hub


def refined() -> KAN:
    """Another grid for each layer, some parameters fixed, classes."""
    model = KAN([5, 3, 2], grid=[3, 6], dropout=0.5)
    model.act_fun[1].linear.extend_grid(12)
    model.act_fun[0].linear.coef.requires_grad_(False)
    model.classes = ["no", "yes"]
    return model


def multiplying() -> KAN:
    return KAN([5, [2, 2], 2], mult_arity=[[], [2, 3], []], base_fun=nn.GELU(), affine_trainable=True)


KINDS = {
    "pruned": pruned,
    "symbolic": symbolic,
    "refined": refined,
    "multiplying": multiplying,
    "fourier": lambda: KAN([5, 3, 2], grid=7, family="fourier"),
}


def of_hub(model: KAN) -> KAN:
    """The same as the Hub's class."""
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    return hub().KAN.load(file, base_fun=checkpoint.given_base_funs(model))


def check_equal(model: nn.Module, expected: nn.Module, x: torch.Tensor) -> None:
    """Equal tensors, trained parameters and outputs, in evaluation mode."""
    state, wanted = model.state_dict(), expected.state_dict()
    assert state.keys() == wanted.keys() and all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert torch.equal(model.eval()(x), expected.eval()(x))


# The Hub


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_the_model_back(kind, dtype, tmp_path):
    model = of_hub(perturb(KINDS[kind]().to(dtype)))
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, base_fun=checkpoint.given_base_funs(model))
    assert isinstance(again, hub().PyTorchModelHubMixin) and not again.training
    assert checkpoint.trainable(again) == checkpoint.trainable(model) and again.classes == model.classes
    assert again.config() == model.config()
    check_equal(again, model, data().to(dtype))


def test_the_card_and_config_describe_the_present_model(tmp_path):
    model = hub().KAN([5, 4, 2], grid=3, seed=3)
    model = model.refine(9).prune_node(active_neurons_id=[[0, 1]])
    assert isinstance(model, hub().KAN)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["width"] == [[5, 0], [2, 0], [2, 0]] and config["grid"] == [9, 9]
    card = (tmp_path / "README.md").read_text()
    assert "library_name: fastkan" in card and "from fastkan.compat.hub import KAN" in card
    model.save_pretrained(tmp_path, config={"grid": 4})
    assert json.loads((tmp_path / "config.json").read_text()) == {"grid": 4}
    check_equal(hub().KAN.from_pretrained(tmp_path), model, data().float())


def test_arguments_of_the_shape_are_refused(tmp_path):
    hub().KAN([2, 1], grid=3).save_pretrained(tmp_path)
    for argument in ({"grid": 5}, {"map_location": "cpu"}, {"seed": 4}):
        (name,) = argument
        with pytest.raises(TypeError, match=f"{name}=.*: expected one of base_fun, device, backend; the shape is in"):
            hub().KAN.from_pretrained(tmp_path, **argument)
    again = hub().KAN.from_pretrained(tmp_path, backend="reference", device="cpu")
    assert again.act_fun[0].linear.backend == "reference"


def test_files_that_are_missing_or_of_another_kind(tmp_path):
    hub().KAN([2, 1]).save_pretrained(tmp_path)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="model.pt.*: expected a file of KAN.save"):
        hub().KAN.from_pretrained(tmp_path)
    (tmp_path / "model.pt").unlink()
    with pytest.raises(FileNotFoundError, match="model.pt"):
        hub().KAN.from_pretrained(tmp_path)


def test_a_base_function_without_a_name_is_given_again(tmp_path):
    model = hub().KAN([2, 1], base_fun=torch.tanh)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="base_fun=None: expected the base function"):
        hub().KAN.from_pretrained(tmp_path)
    check_equal(hub().KAN.from_pretrained(tmp_path, base_fun=torch.tanh), model, torch.rand(5, 2))


def test_push_and_pull(tmp_path, monkeypatch):
    """With a folder in place of the Hub."""
    import huggingface_hub.hub_mixin as mixin

    class Api:
        def __init__(self, **options):
            pass

        def create_repo(self, repo_id, **options):
            return type("Url", (), {"repo_id": repo_id})

        def upload_folder(self, *, repo_id, folder_path, **options):
            (tmp_path / repo_id).parent.mkdir(exist_ok=True)
            Path(folder_path).rename(tmp_path / repo_id)
            return f"https://huggingface.co/{repo_id}"

    asked = []

    def download(repo_id, filename, **options):
        asked.append((filename, options["revision"], options["token"]))
        return str(tmp_path / repo_id / filename)

    def download_by_name(*, repo_id, filename, **options):
        return download(repo_id, filename, **options)

    monkeypatch.setattr(mixin, "HfApi", Api)
    monkeypatch.setattr(mixin, "hf_hub_download", download_by_name)
    monkeypatch.setattr(hub(), "hf_hub_download", download)
    model = of_hub(perturb(symbolic()))
    assert model.push_to_hub("someone/network") == "https://huggingface.co/someone/network"
    monkeypatch.chdir("/")  # where no folder has that name
    again = hub().KAN.from_pretrained("someone/network", revision="v1", token="secret")
    assert asked == [("config.json", "v1", "secret"), ("model.pt", "v1", "secret")]
    check_equal(again, model, data().float())


def test_copies_and_subclasses(tmp_path):
    class Named(hub().KAN):
        def __init__(self, *arguments, name: str = "", **options):
            super().__init__(*arguments, **options)
            self.name = name

    model = of_hub(perturb(symbolic()))
    for twin in (copy.deepcopy(model), model.copy(), pickle.loads(pickle.dumps(model))):
        assert type(twin) is type(model)
        check_equal(twin, model, data().float())
    named = Named([5, 2], name="first")
    named.save_pretrained(tmp_path)
    again = Named.from_pretrained(tmp_path)
    assert type(again) is Named and again._hub_mixin_info.model_card_data.library_name == "fastkan"
    check_equal(again, named, data().float())


def test_a_module_of_the_user_with_the_mixin(tmp_path):
    """Layers by replace_linear and a KAN, in the Hub's own format: the grids of the file are taken."""
    mixin = hub().PyTorchModelHubMixin

    class Net(nn.Module, mixin):
        def __init__(self, width: int = 6):
            super().__init__()
            self.body = replace_linear(nn.Sequential(nn.Linear(5, width), nn.Linear(width, 5)))
            self.kan = KAN([5, [2, 1], 2])

    Net.forward = lambda self, x: self.kan(self.body(x))
    torch.manual_seed(0)
    model = Net(7)
    model.kan = model.kan.refine(8)
    model.kan.fix_symbolic(0, 1, 0, "sin", fit_params_bool=False, verbose=False)
    model.kan.remove_edge(0, 0, 0)
    model.body[0].extend_grid(9)
    perturb(model).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    check_equal(Net.from_pretrained(tmp_path), model, data().float())


# safetensors


@pytest.mark.parametrize("kind", MODELS)
def test_safetensors(kind, tmp_path):
    safetensors = package("safetensors.torch")
    torch.manual_seed(0)
    model, fresh = perturb(MODELS[kind]()), MODELS[kind]()
    safetensors.save_model(model, tmp_path / "model.safetensors")
    assert safetensors.load_model(fresh, tmp_path / "model.safetensors") == (set(), [])
    check_equal(fresh, model, data().float())


def test_safetensors_of_layers_in_another_model(tmp_path):
    """Grids are those of the file; two places share a layer."""
    safetensors = package("safetensors.torch")

    def transformer():
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        model = replace_linear(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False))
        last = KANLinear(8, 8)
        return nn.Sequential(model, last, last)

    model, fresh = transformer(), transformer()
    replaced = [module for module in model.modules() if isinstance(module, KANLinear)]
    assert len(replaced) == 3
    for size, layer in enumerate(replaced, 7):
        layer.extend_grid(size)
    safetensors.save_model(perturb(model), tmp_path / "model.safetensors")
    safetensors.load_model(fresh, tmp_path / "model.safetensors")
    assert fresh[1] is fresh[2]
    check_equal(fresh, model, torch.rand(2, 3, 8))


def test_safetensors_of_another_width(tmp_path):
    safetensors = package("safetensors.torch")
    safetensors.save_model(pruned(), tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"has width \[3, 3, 2\]: expected \[5, 4, 2\]"):
        safetensors.load_model(KAN([5, 4, 2]), tmp_path / "model.safetensors")


# accelerate


def layers_and_a_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(replace_linear(nn.Sequential(nn.Linear(5, 6), nn.ReLU())), KAN([6, [2, 1], 1], seed=0))


@pytest.fixture
def accelerators():
    """A function that makes an Accelerator, as in a new process."""
    accelerate = package("accelerate")
    from accelerate.state import AcceleratorState

    def make(**options):
        AcceleratorState._reset_state(reset_partial_state=True)
        return accelerate.Accelerator(cpu=True, **options)

    yield make
    AcceleratorState._reset_state(reset_partial_state=True)


def prepared(accelerator, model: nn.Module):
    x = data(32).float()
    rows = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x[:, :1].sin()), batch_size=8)
    return accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-2), rows)


def one_epoch(accelerator, model, optimizer, rows) -> None:
    for x, y in rows:
        optimizer.zero_grad()
        accelerator.backward((model(x) - y).square().mean())
        optimizer.step()


def test_accelerate_trains_as_without_it(accelerators):
    accelerator, plain = accelerators(), layers_and_a_network()
    model, optimizer, rows = prepared(accelerator, layers_and_a_network())
    one_epoch(accelerator, model, optimizer, rows)
    own = torch.optim.AdamW(plain.parameters(), lr=1e-2)
    for x, y in rows:
        own.zero_grad()
        (plain(x) - y).square().mean().backward()
        own.step()
    check_equal(accelerator.unwrap_model(model), plain, data().float())


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("safe", [True, False])
def test_accelerate_continues_from_its_files(precision, safe, accelerators, tmp_path):
    """In the same process and in a new one, whose model gets the grids and symbolic edges of the file."""
    accelerator, model = accelerators(mixed_precision=precision), layers_and_a_network()
    model[0][0].extend_grid(9)
    model[1].fix_symbolic(0, 0, 0, "sin", fit_params_bool=False, verbose=False)
    parts = prepared(accelerator, model)
    one_epoch(accelerator, *parts)
    accelerator.save_state(tmp_path, safe_serialization=safe)
    saved = copy.deepcopy(model.state_dict())
    one_epoch(accelerator, *parts)
    expected = copy.deepcopy(model.state_dict())
    assert not torch.equal(saved["0.0.coef"], expected["0.0.coef"])
    accelerator.load_state(tmp_path)
    one_epoch(accelerator, *parts)
    fresh = layers_and_a_network()
    fresh[0][0].extend_grid(9)  # before its optimizer is made
    again = accelerators(mixed_precision=precision)
    parts = prepared(again, fresh)
    again.load_state(tmp_path)
    one_epoch(again, *parts)
    for found in (model.state_dict(), fresh.state_dict()):
        assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)
