"""KAN for the Hugging Face Hub: save_pretrained, from_pretrained and push_to_hub. Needs huggingface_hub.

A folder has the file of KAN.save, config.json with the shape, for readers and the Hub's counts, and a model card.
"""

import os
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin, hf_hub_download

from ..network import model

FILE = "model.pt"
# The arguments of from_pretrained that are KAN.load's.
OPTIONS = ("base_fun", "device", "backend")
CARD = """---
{{ card_data }}
---

A Kolmogorov-Arnold network of [fastkan]({{ repo_url }}): `pip install fastkan huggingface_hub`, then

```python
from fastkan.compat.hub import KAN

model = KAN.from_pretrained("{{ repo_id | default('the name of this repository', true) }}")
```
"""


class KAN(
    PyTorchModelHubMixin,
    model.KAN,
    library_name="fastkan",
    repo_url="https://github.com/fastkan/fastkan",
    docs_url="https://fastkan.github.io/fastkan/",
    tags=["kolmogorov-arnold-network"],
    model_card_template=CARD,
):
    """fastkan.KAN with the methods of huggingface_hub's PyTorchModelHubMixin.

    from_pretrained(folder or repository) gives the model as it was saved, also after pruning, refinement and with
    symbolic edges, in evaluation mode. It takes load's base_fun, device and backend, and the arguments of
    huggingface_hub: revision, token, cache_dir, ...; the shape is in the file, and an argument for it is a TypeError.
    No code of a file runs. save_pretrained(folder) and push_to_hub(repository) are those of huggingface_hub.

    A fastkan.KAN becomes one of these by its file: `model.save(path)`, then `KAN.load(path)`.
    """

    def save_pretrained(self, save_directory: str | Path, *, config: Any = None, **options: Any) -> str | None:
        """Write the folder; see huggingface_hub. config: the contents of config.json, by default the present shape."""
        return super().save_pretrained(save_directory, config=self.config() if config is None else config, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory / FILE)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None, cache_dir: str | Path | None, force_download: bool,
        local_files_only: bool, token: str | bool | None, config: dict | None = None, **options: Any,
    ) -> "KAN":  # fmt: skip
        """config: of config.json, whose entries the mixin has added to options."""
        defaults = config or {}
        given = {name: value for name, value in options.items() if value not in (None, defaults.get(name))}
        for name, value in given.items():
            if name not in OPTIONS:
                raise TypeError(f"{name}={value!r}: expected one of {', '.join(OPTIONS)}; the shape is in the file")
        if os.path.isdir(model_id):
            path = os.path.join(model_id, FILE)
        else:
            path = hf_hub_download(
                model_id, FILE, revision=revision, cache_dir=cache_dir, force_download=force_download,
                local_files_only=local_files_only, token=token,
            )  # fmt: skip
        loaded = cls.load(path, **given)
        loaded.eval()
        return loaded
