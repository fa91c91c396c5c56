"""Steps: the history of a model in pykan's files, history.txt and a checkpoint for every state."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ...network import KAN
from ...network.checkpoint import atomic_write
from ...network.history import Entry, History
from . import checkpoint

if TYPE_CHECKING:
    from .model import MultKAN

LOG = "history.txt"


class Steps(History):
    """A History in a folder, in pykan's format: state a.b is a.b_config.yml, a.b_state and a.b_cache_data."""

    # narrower than in History, whose folder may be None
    folder: str  # pyright: ignore[reportIncompatibleVariableOverride]
    model_class: "type[MultKAN]"  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, folder: str | os.PathLike):
        super().__init__(folder)

    @classmethod
    def new(cls, folder: str | os.PathLike) -> "Steps":
        """An empty history; history.txt in the folder is overwritten."""
        steps = cls(folder)
        os.makedirs(folder, exist_ok=True)
        steps._write_entries([])
        return steps

    @property
    def entries(self) -> list[Entry]:
        path = Path(self.folder, LOG)
        if not path.exists():
            return []
        entries = []
        for line in path.read_text(encoding="utf-8").splitlines():
            parts = line.split(" => ")
            if len(parts) in (2, 3) and re.fullmatch(r"\d+\.\d+", parts[-1]):
                before, what = parts[:-1] if len(parts) == 3 else (None, parts[0])
                entries.append(Entry(parts[-1], before, what))
        return entries

    def __str__(self) -> str:
        return _text(self.entries)

    def add(self, model: KAN, what: str, new_round: bool = False) -> str:
        before, number = self.now, super().add(model, "init" if what == "start" else what, new_round)
        if new_round:
            print(f"rewind to model version {before}, renamed as {number}")
        else:
            print(f"saving model version {number}")
        return number

    def checkout(self, name: str, **options) -> "MultKAN":
        """The model in the state of this number or label, with a history that continues from there."""
        number = self.find(name)
        model, _ = checkpoint.read(self._path(number), **options)
        new = self.model_class.from_kan(model, self.folder, number)
        self.branch(number).attach(new)
        return new

    def _path(self, number: str) -> str:
        return os.path.join(self.folder, number)

    def _size(self, number: str) -> int | None:
        path = f"{self._path(number)}_state"
        return os.path.getsize(path) if os.path.exists(path) else None

    def _write(self, model: KAN, number: str) -> None:
        os.makedirs(self.folder, exist_ok=True)
        checkpoint.save_checkpoint(model, self._path(number), number)

    def _write_entries(self, entries: list[Entry]) -> None:
        with atomic_write(os.path.join(self.folder, LOG)) as file:
            file.write((_text(entries) + "\n").encode())


def _text(entries: list[Entry]) -> str:
    lines, last = [], None
    for entry in entries:
        number = entry.id.split(".")[0]
        if number != last:
            lines.append(f"### Round {number} ###")
            last = number
        lines.append(" => ".join(part for part in (entry.before, entry.what, entry.id) if part))
    return "\n".join(lines)
