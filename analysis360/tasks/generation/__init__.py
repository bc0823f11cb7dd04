"""Generation of toxic text: prompts that invite it, continued by every checkpoint and judged by a classifier.

Which prompts, how they are continued and what judges is data: a TOML file a task, `toxigen.toml` or one's own. What
is stored is what BOLD stores, a row a distinct prompt, and is judged when it is read.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from analysis360.corpora import Corpus
from analysis360.errors import SelectionError
from analysis360.tasks.bold import Bold
from analysis360.tasks.bold.prompts import Line, Prompts

SHIPPED = Path(__file__).parent
FILTER = "profanity-filter"
"""What may judge beside a model."""
NAME = re.compile(r"[a-z0-9_-]+")
"""Of a task: its results lie in a folder of that name."""
TAKEN = (
    "memorization",
    "perplexity",
    "leaderboard",
    "code",
    "bold",
    "panels",
    "prompts",
    "scores",
    "lm-eval",
)


@dataclass(frozen=True)
class Generation:
    """A task as its file describes it."""

    name: str
    """Of the task, and of the folder of its results."""
    dataset: str
    """Where the prompts are, a set of them a split: on the Hub, `name` or `name:configuration`, or in a folder."""
    model: str
    """The classifier, by its id on the Hub or its folder."""
    labels: tuple[str, ...]
    """Any of them makes a text toxic."""
    new_tokens: int
    """Ids of a continuation, at most."""
    threshold: float = 0.5
    """Probability of a label from which it holds."""
    field: str = "text"
    """Of a record, that holds the prompt."""
    newline: str = ""
    """What stands for a line break in the prompts; nothing if empty."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None

    def prompts(self, sets: Sequence[Corpus]) -> Prompts:
        """The prompts of some sets: each is a title of its own, so that intervals resample prompts."""
        lines = []
        for corpus in sets:
            for document in corpus.documents:
                prompt = document.text.replace(self.newline, "\n") if self.newline else document.text
                lines.append(Line(self.name, corpus.name, prompt, prompt))
        return Prompts(tuple(lines), self.dataset, apart="group")


@dataclass(frozen=True)
class Continuations(Bold):
    """The task: which prompts, under which checkpoints; its results stand under its own name."""

    name: str = "generation"


def read_generation(task: str | Path, **instead: Any) -> Generation:
    """The task of a file, or a shipped one by name; `instead` has values in place of the file's.

    Raises SelectionError naming the key that is wrong.
    """
    path, known = Path(task), sorted(file.stem for file in SHIPPED.glob("*.toml"))
    if str(task) in known:
        path = SHIPPED / f"{task}.toml"
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        reason = f"{path} cannot be read: {error.strerror}"
        raise SelectionError(f"task {task}: expected {', '.join(known)} or a TOML file; {reason}") from None
    except ValueError as error:
        raise SelectionError(f"task {task}: expected {', '.join(known)} or a TOML file: {error}") from None
    flat = {**table, **_section(table, "sampling", path), **_section(table, "scorer", path)}
    for section in ("sampling", "scorer"):
        flat.pop(section, None)
    known_keys = {field.name: field for field in fields(Generation)}
    if unknown := sorted(flat.keys() - known_keys):
        raise SelectionError(f"{path}: no key {', '.join(unknown)}; expected some of {', '.join(known_keys)}")
    flat |= instead
    needed = ["name", "dataset", "model", "new_tokens", *([] if flat.get("model") == FILTER else ["labels"])]
    if missing := [key for key in needed if key not in flat]:
        raise SelectionError(f"{path}: key {', '.join(missing)} is missing")
    for key, value in flat.items():
        _check(key, value, path)
    name = flat["name"]
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in TAKEN:
        taken = ", ".join(TAKEN)
        raise SelectionError(
            f"{path}: name {name!r}: expected small letters, digits, _ and -, and none of {taken}"
        )
    return Generation(**{**flat, "labels": tuple(flat.get("labels", ()))})


def _check(key: str, value: Any, path: Path) -> None:
    """Raises SelectionError where a value is not of its key's kind. What sampling allows is checked by `Sampling`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits, expected = {
        "labels": (
            isinstance(value, list | tuple) and all(isinstance(one, str) for one in value),
            'names in brackets, such as ["toxic"]',
        ),
        "new_tokens": (number and value == int(value) and value >= 1, "a whole number, at least 1"),
        "top_k": (number and value == int(value) and value >= 1, "a whole number, at least 1"),
        "threshold": (number and 0 < value <= 1, "a probability"),
        "temperature": (number, "a number"),
        "top_p": (number, "a number"),
    }.get(key, (isinstance(value, str), "text in quotes"))
    if not fits:
        raise SelectionError(f"{path}: {key} is {value!r}; expected {expected}")


def _section(table: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    found = table.get(name, {})
    if not isinstance(found, dict):
        raise SelectionError(f"{path}: expected a section [{name}], found {found!r}")
    return found
