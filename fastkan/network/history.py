"""History: the states that a model has been through, to go back to; nothing is kept unless asked.

    model = KAN([2, 5, 1], history=True)  # in memory, or history="folder"
    model.fit(dataset)                    # 0.0 => fit => 0.1
    model = model.prune()                 # 0.1 => prune => 0.2
    model.keep("before I try things")     # 0.2 => before I try things => 0.3
    print(model.history)
    model = model.rewind("0.1")           # 0.1 => rewind => 1.1

Numbers are pykan's: round.state, a rewind starts a new round. A state is what KAN.save writes.
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
from typing import NamedTuple

from ..arguments import integer
from . import checkpoint

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
    """A step: the model went from state `before` (None at the start) to state `id` by `what`."""

    id: str
    before: str | None
    what: str


class History:
    """A log of steps, with the state after each.

    Args:
        folder: where states are kept, as files `id`.pt and history.json; made where it is missing. Models with the same
            folder share it. None: in memory, as bytes; copies of the model, and what prune or refine make of it, take
            a history of their own along.
        max_bytes: of the states together; beyond it the oldest are dropped, but never the newest. By default 256 MiB in
            memory, and without bound in a folder.

    Steps are the methods in STEPS; with pykan's log_history=False a call is not logged. A model that is given another
    model's history begins a new round of it.

    It goes along with deepcopy, pickle and torch.save of its model, but not into a state dict or the file of KAN.save.
    `now` is the state that the model was in after the last step.
    """

    model_class: type  # of the models that checkout returns; set by the file of that class

    def __init__(self, folder: str | os.PathLike | None = None, *, max_bytes: int | None = None):
        self.folder = None if folder is None else os.fspath(folder)
        default = MAX_BYTES if folder is None else None
        self.max_bytes = default if max_bytes is None else integer("max_bytes", max_bytes, 0)
        self.now: str | None = None
        self._entries: list[Entry] = []
        self._states: dict[str, bytes] = {}

    # What there is

    @property
    def entries(self) -> list[Entry]:
        """Every step, from the first to the last; also of those whose states were dropped."""
        if self.folder is None:
            return list(self._entries)
        try:
            with open(os.path.join(self.folder, LOG), encoding="utf-8") as file:
                entries = [Entry(*entry) for entry in json.load(file)]
            return [entry for entry in entries if re.fullmatch(r"\d+\.\d+", entry.id)]  # they become names of files
        except FileNotFoundError:
            return []

    @property
    def ids(self) -> list[str]:
        """The states that can be checked out, in the order in which they were kept."""
        return [entry.id for entry in self.entries if self._size(entry.id) is not None]

    def __str__(self) -> str:
        return "\n".join(" => ".join(part for part in (e.before, e.what, e.id) if part) for e in self.entries)

    def __call__(self, k: int | str = "all") -> None:
        """Print the last k steps, or "all" of them."""
        lines = str(self).splitlines()
        print("\n".join(lines if k == "all" else lines[-k:] if k else []))

    def find(self, name: str) -> str:
        """The state of this number, or the last that was kept under this label. ValueError names those there are."""
        entries = self.entries
        found = [entry.id for entry in entries if name in (entry.id, entry.what)]
        if not found:
            raise ValueError(f"model_id={name!r}: expected one of {', '.join(self.ids)}, or the label of one")
        chosen = name if name in found else found[-1]
        if self._size(chosen) is None:
            kept = ", ".join(self.ids)
            raise ValueError(f"model_id={name!r} was dropped, for max_bytes={self.max_bytes}: expected one of {kept}")
        return chosen

    # What is kept

    def add(self, model, what: str, new_round: bool = False) -> str:
        """Keep the state of the model after the step `what`; returns its number."""
        entries = self.entries
        number = self._next(entries, new_round)
        self._write(model, number)
        entries.append(Entry(number, self.now, what))
        self._log(entries)
        self.now = number
        self._bound(entries)
        return number

    def checkout(self, name: str, **options):
        """A model in the state of this number or label, with a history that goes on from there.

        options: those of KAN.load. So a History of a folder brings back what an earlier session has left there.
        """
        number = self.find(name)
        file = self._path(number) if self.folder is not None else io.BytesIO(self._states[number])
        model = self.model_class.load(file, **options)
        model._history = self.branch(number)
        return model

    def branch(self, now: str | None) -> "History":
        """A history with the same past, for a model that is in state `now` of it, or in none."""
        made = copy.copy(self)
        made._entries, made._states, made.now = list(self._entries), dict(self._states), now
        return made

    def _next(self, entries: list[Entry], new_round: bool) -> str:
        """The number of a new state: the next of its round, or with the present one's in a new round."""
        numbers = [tuple(map(int, entry.id.split("."))) for entry in entries]
        if not numbers:
            return "0.0"
        if new_round or self.now is None:
            state = int(self.now.split(".")[1]) if self.now else 0
            return f"{1 + max(numbers)[0]}.{state}"
        here = int(self.now.split(".")[0])
        return f"{here}.{1 + max((state for number, state in numbers if number == here), default=-1)}"

    def _path(self, number: str) -> str:
        return os.path.join(self.folder, f"{number}.pt")

    def _size(self, number: str) -> int | None:
        """In bytes; None where the state was dropped."""
        if self.folder is None:
            return len(self._states[number]) if number in self._states else None
        path = self._path(number)
        return os.path.getsize(path) if os.path.exists(path) else None

    def _write(self, model, number: str) -> None:
        if self.folder is None:
            file = io.BytesIO()
            checkpoint.save(model, file)
            self._states[number] = file.getvalue()
        else:
            os.makedirs(self.folder, exist_ok=True)
            checkpoint.save(model, self._path(number))

    def _log(self, entries: list[Entry]) -> None:
        if self.folder is None:
            self._entries = entries
        else:
            with checkpoint.replaced(os.path.join(self.folder, LOG)) as file:
                file.write(json.dumps(entries, indent=0).encode())

    def _bound(self, entries: list[Entry]) -> None:
        if self.max_bytes is None:
            return
        kept = [(entry.id, size) for entry in entries if (size := self._size(entry.id)) is not None]
        total = sum(size for _, size in kept)
        for number, size in kept[:-1]:
            if total <= self.max_bytes:
                return
            total -= size
            if self.folder is None:
                del self._states[number]
            else:
                os.remove(self._path(number))


def parse(history) -> History | None:
    """None or False: none; True: one in memory; a path: one in this folder; a History: itself."""
    if history is None or history is False:
        return None
    if history is True:
        return History()
    if isinstance(history, History):
        return history
    if isinstance(history, str | os.PathLike):
        return History(history)
    raise TypeError(f"history={history!r}: expected True, a folder, a History, or None for none")


def _get(model) -> History | None:
    return model.__dict__.get("_history")


def _set(model, history) -> None:
    found = parse(history)
    if found is not None:
        found = found if found.now is None else found.branch(None)  # that another model has been through
        found.add(model, "start")
    model._history = found


attached = property(_get, _set, doc="The History, or None. May be set: True, a folder, a History, or None for none.")


def keep(model, label: str = "keep") -> str:
    """Keep the model as it now is under this label; returns the number of the state, for rewind and checkout.

    A model without a history gets one in memory.
    """
    if not isinstance(label, str) or not label.strip():
        raise TypeError(f"label={label!r}: expected a text")
    if model.history is None:
        model.history = True
    return model.history.add(model, label)


def log_history(model, method_name: str) -> None:
    """keep, where the model has a history; nothing otherwise. pykan's name."""
    if model.history is not None:
        model.keep(method_name)


def checkout(model, model_id: str):
    """A copy of the model as it was at state model_id, "round.state" or a label of keep; the model stays.

    States hold no base function without a name: the copy has those of the model for them.

    What is done to the copy is logged as a branch from there.
    """
    return _at(model, model_id)


def rewind(model, model_id: str):
    """As checkout, but the copy starts a new round of the history: "0.1" rewound is "1.1"; the model stays."""
    found = _at(model, model_id)
    found.history.add(found, "rewind", new_round=True)
    return found


def _at(model, model_id: str):
    history = model.history
    if history is None:
        raise RuntimeError("the model has no history: expected KAN(..., history=True), or a folder, before the steps")
    base = copy.deepcopy(checkpoint.given_base_funs(model))  # loading writes to those that have state
    backend = model.act_fun[0].linear.backend
    found = history.checkout(model_id, base_fun=base, device=model.device, backend=backend)
    found.train(model.training)
    found.cache_data = model.cache_data
    return found


def log_steps(cls: type) -> None:
    """Make the methods STEPS of a class of models log what they have done, where the model has a history."""
    for name in STEPS:
        setattr(cls, name, logged(getattr(cls, name)))


def logged(step: Callable) -> Callable:
    """The step of a model as a method that its history logs, if it has one, when it has succeeded.

    A step that returns a model is a step of that one. Steps within steps are not logged on their own, nor is one that
    is called with pykan's log_history=False.
    """

    @functools.wraps(step)
    def method(model, *args, log_history: bool = True, **options):
        outermost = not getattr(_running, "step", False)
        _running.step = True
        try:
            result = step(model, *args, **options)
        finally:
            _running.step = not outermost
        changed = result if isinstance(result, type(model)) else model
        history = _get(changed)
        if outermost and log_history and history is not None:
            try:
                history.add(changed, step.__name__)
            except OSError as error:  # what was trained for hours is not lost with it
                warnings.warn(f"the state after {step.__name__} was not kept: {error}", RuntimeWarning, stacklevel=2)
        return result

    return method
