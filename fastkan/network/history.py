"""History: a record of the states of a model, to go back to; nothing is recorded unless asked.

    model = KAN([2, 5, 1], history=True)  # in memory, or history="folder"
    model.fit(dataset)                    # 0.0 => fit => 0.1
    model = model.prune()                 # 0.1 => prune => 0.2
    model.keep("before I try things")     # 0.2 => before I try things => 0.3
    print(model.history)
    model = model.rewind("0.1")           # 0.1 => rewind => 1.1

Numbers are pykan's: round.state, a rewind starts a new round. States are stored as by KAN.save.
"""

import copy
import functools
import io
import json
import os
import re
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from ..arguments import integer
from . import checkpoint

if TYPE_CHECKING:
    from .model import KAN

Model = TypeVar("Model", bound="KAN")
# Methods of KAN that change a model, or return a changed one.
STEPS = (
    "fit", "refine", "initialize_from_another_model", "prune", "prune_node", "prune_edge", "prune_input", "remove_edge",
    "remove_node", "fix_symbolic", "unfix_symbolic", "unfix_symbolic_all", "auto_symbolic", "expand_depth",
    "expand_width", "perturb", "swap", "auto_swap", "auto_swap_l", "module",
)  # fmt: skip
MAX_BYTES = 1 << 28
LOG = "history.json"
_running = threading.local()


class Entry(NamedTuple):
    """A step: `what` took the model from state `before` (None at the start) to state `id`."""

    id: str
    before: str | None
    what: str


class History:
    """A log of steps, with the state after each.

    Args:
        folder: for the states, as files `id`.pt and history.json; created where it is missing. Models with the same
            folder share it. None: in memory, as bytes; copies of the model, and the results of prune or refine, get
            a history of their own.
        max_bytes: limit on the total size of the states; the oldest are dropped, never the newest. By default 256 MiB
            in memory, unlimited in a folder.

    Steps are the methods in STEPS; with pykan's log_history=False a call is not logged. Setting another model's
    history on a model begins a new round of it.

    deepcopy, pickle and torch.save of a model include its history; a state dict and the file of KAN.save do not.
    `now` is the state of the model after the last step.
    """

    model_class: Any  # the class of models that checkout returns; set by model.py

    def __init__(self, folder: str | os.PathLike | None = None, *, max_bytes: int | None = None):
        self.folder = None if folder is None else os.fspath(folder)
        default = MAX_BYTES if folder is None else None
        self.max_bytes = default if max_bytes is None else integer("max_bytes", max_bytes, 0)
        self.now: str | None = None
        self._entries: list[Entry] = []
        self._states: dict[str, bytes] = {}

    # Reading

    @property
    def entries(self) -> list[Entry]:
        """Every step, from the first to the last, also steps whose states were dropped."""
        if self.folder is None:
            return list(self._entries)
        try:
            with open(os.path.join(self.folder, LOG), encoding="utf-8") as file:
                entries = [Entry(*entry) for entry in json.load(file)]
            return [entry for entry in entries if re.fullmatch(r"\d+\.\d+", entry.id)]  # ids become file names
        except FileNotFoundError:
            return []

    @property
    def ids(self) -> list[str]:
        """The states that can be checked out, the oldest first."""
        return [entry.id for entry in self.entries if self._size(entry.id) is not None]

    def __str__(self) -> str:
        return "\n".join(" => ".join(part for part in (e.before, e.what, e.id) if part) for e in self.entries)

    def __call__(self, k: int | str = "all") -> None:
        """Print the last k steps, or "all" of them."""
        lines = str(self).splitlines()
        print("\n".join(lines if isinstance(k, str) else lines[-k:] if k else []))

    def find(self, name: str) -> str:
        """The number of the state with this number, or the last with this label. ValueError lists the states."""
        entries = self.entries
        matches = [entry.id for entry in entries if name in (entry.id, entry.what)]
        if not matches:
            raise ValueError(f"model_id={name!r}: expected one of {', '.join(self.ids)}, or the label of one")
        number = name if name in matches else matches[-1]
        if self._size(number) is None:
            ids = ", ".join(self.ids)
            raise ValueError(f"model_id={name!r} was dropped, for max_bytes={self.max_bytes}: expected one of {ids}")
        return number

    # Writing

    def add(self, model: "KAN", what: str, new_round: bool = False) -> str:
        """Record the state of the model after the step `what`; returns its number."""
        entries = self.entries
        number = self._next(entries, new_round)
        self._write(model, number)
        entries.append(Entry(number, self.now, what))
        self._write_entries(entries)
        self.now = number
        self._drop_oldest(entries)
        return number

    def checkout(self, name: str, **options) -> "KAN":
        """A model in the state of this number or label, with a history that continues from there.

        options: of KAN.load. With a folder, this also restores models of an earlier session.
        """
        number = self.find(name)
        file = self._path(number) if self.folder is not None else io.BytesIO(self._states[number])
        model = self.model_class.load(file, **options)
        self.branch(number).attach(model)
        return model

    def attach(self, model: "KAN") -> None:
        """Make this the model's history without recording its present state."""
        model.__dict__["_history"] = self

    def branch(self, now: str | None) -> "History":
        """A history with the same past, for a model in state `now` of it, or None for a new model."""
        new = copy.copy(self)
        new._entries, new._states, new.now = list(self._entries), dict(self._states), now
        return new

    def _next(self, entries: list[Entry], new_round: bool) -> str:
        """The number of a new state: the next of its round, or the present state's in a new round."""
        numbers = [tuple(map(int, entry.id.split("."))) for entry in entries]
        if not numbers:
            return "0.0"
        if new_round or self.now is None:
            state = int(self.now.split(".")[1]) if self.now else 0
            return f"{1 + max(numbers)[0]}.{state}"
        here = int(self.now.split(".")[0])
        return f"{here}.{1 + max((state for number, state in numbers if number == here), default=-1)}"

    def _path(self, number: str) -> str:
        return os.path.join(self.folder or "", f"{number}.pt")

    def _size(self, number: str) -> int | None:
        """The size of a state in bytes; None where it was dropped."""
        if self.folder is None:
            return len(self._states[number]) if number in self._states else None
        path = self._path(number)
        return os.path.getsize(path) if os.path.exists(path) else None

    def _write(self, model: "KAN", number: str) -> None:
        if self.folder is None:
            file = io.BytesIO()
            checkpoint.save(model, file)
            self._states[number] = file.getvalue()
        else:
            os.makedirs(self.folder, exist_ok=True)
            checkpoint.save(model, self._path(number))

    def _write_entries(self, entries: list[Entry]) -> None:
        if self.folder is None:
            self._entries = entries
        else:
            with checkpoint.atomic_write(os.path.join(self.folder, LOG)) as file:
                file.write(json.dumps(entries, indent=0).encode())

    def _drop_oldest(self, entries: list[Entry]) -> None:
        """Drop the oldest states beyond max_bytes."""
        if self.max_bytes is None:
            return
        sizes = [(entry.id, size) for entry in entries if (size := self._size(entry.id)) is not None]
        total = sum(size for _, size in sizes)
        for number, size in sizes[:-1]:
            if total <= self.max_bytes:
                return
            total -= size
            if self.folder is None:
                del self._states[number]
            else:
                os.remove(self._path(number))


def parse(history: "History | str | os.PathLike | bool | None") -> History | None:
    """A History in memory for True, in a folder for a path, itself for a History; None for None or False."""
    if history is None or history is False:
        return None
    if history is True:
        return History()
    if isinstance(history, History):
        return history
    if isinstance(history, str | os.PathLike):
        return History(history)
    raise TypeError(f"history={history!r}: expected True, a folder, a History, or None for none")


def get_history(model: "KAN") -> History | None:
    return model.__dict__.get("_history")


def set_history(model: "KAN", value: History | str | os.PathLike | bool | None) -> None:
    """Give the model a History, see parse, and record its present state."""
    history = parse(value)
    if history is not None:
        history = history if history.now is None else history.branch(None)  # it belongs to another model
        history.add(model, "start")
    model.__dict__["_history"] = history


def keep(model: "KAN", label: str = "keep") -> str:
    """Record the model's present state under this label; returns its number, for rewind and checkout.

    A model without a history gets one in memory.
    """
    if not isinstance(label, str) or not label.strip():
        raise TypeError(f"label={label!r}: expected a text")
    if model.history is None:
        model.history = History()
    return cast(History, model.history).add(model, label)


def log_history(model: "KAN", method_name: str) -> None:
    """keep, where the model has a history; nothing otherwise. pykan's name."""
    if model.history is not None:
        model.keep(method_name)


def checkout(model: Model, model_id: str) -> Model:
    """A copy of the model in state model_id, "round.state" or a label of keep; the model stays.

    Base functions without a name are not part of a state: the copy has those of the model.

    Steps of the copy are logged as a branch from there.
    """
    history = model.history
    if history is None:
        raise RuntimeError("the model has no history: expected KAN(..., history=True), or a folder, before the steps")
    base = copy.deepcopy(checkpoint.given_base_funs(model))  # loading writes to base functions with state
    backend = model.act_fun[0].linear.backend
    copied: Any = history.checkout(model_id, base_fun=base, device=model.device, backend=backend)
    copied.train(model.training)
    copied.cache_data = model.cache_data
    return copied


def rewind(model: Model, model_id: str) -> Model:
    """As checkout, but the copy starts a new round of the history: "0.1" becomes "1.1"; the model stays."""
    copied = checkout(model, model_id)
    cast(History, copied.history).add(copied, "rewind", new_round=True)
    return copied


def log_steps(cls: type) -> None:
    """Make the methods STEPS of a class of models log their calls in the model's history, if it has one."""
    for name in STEPS:
        setattr(cls, name, logged(getattr(cls, name)))


def logged(step: Callable) -> Callable:
    """The step of a model as a method that records it in the model's history, if it has one, after success.

    A step that returns a model is recorded for that model. Steps inside steps, and calls with pykan's
    log_history=False, are not recorded.
    """

    @functools.wraps(step)
    def method(model: "KAN", *args, log_history: bool = True, **options):
        outermost = not getattr(_running, "step", False)
        _running.step = True
        try:
            result = step(model, *args, **options)
        finally:
            _running.step = not outermost
        changed = result if isinstance(result, type(model)) else model
        history = get_history(changed)
        if outermost and log_history and history is not None:
            try:
                history.add(changed, step.__name__)
            except OSError as error:  # a full disk must not cost the result of a long training
                warnings.warn(f"the state after {step.__name__} was not saved: {error}", RuntimeWarning, stacklevel=2)
        return result

    return method
