"""What metrics.jsonl says of a run: the loss of each chunk in the order of training, and what was abandoned."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.errors import TrainingError

__all__ = ["History", "Stay", "chunk_losses", "finished", "read_history"]


@dataclass
class Stay:
    """Training on one chunk, from its first step to its last."""

    chunk: int
    position: Any
    """Where in the schedule; None where the metrics do not say."""
    first: int
    """The first step."""
    losses: list[float] = field(default_factory=list)
    """Loss of each step, in nats."""
    targets: list[int] = field(default_factory=list)
    """Targets of each step; 0 where the metrics do not say."""
    step: int = 0
    """The last step."""
    tokens: int | None = None
    """Targets of the run up to there."""
    seconds: float = 0.0
    """Of its steps together."""
    spike: tuple[float, int] | None = None
    """The largest spike and its step."""

    @property
    def mean(self) -> float:
        """Mean loss of a target: the last step of a chunk may have fewer. Of a step where targets are not known."""
        weights = self.targets if all(count > 0 for count in self.targets) else [1] * len(self.losses)
        return math.fsum(a * b for a, b in zip(self.losses, weights, strict=True)) / sum(weights)


@dataclass
class History:
    """The steps and the events of a run."""

    fields: list[str] = field(default_factory=list)
    """Fields of a step, in the order in which they first appear."""
    stays: list[Stay] = field(default_factory=list)
    """In the order of training; what was abandoned is not among them."""
    abandoned: list[dict[str, Any]] = field(default_factory=list)
    """Chunks that were given up, as the metrics tell it."""
    steps: int = 0
    """Lines that are steps, those of abandoned and unfinished chunks as well."""


def read_history(path: Path) -> History | None:
    """The metrics of a run; None where there are none. A last line that was cut short is left out.

    Raises TrainingError naming the file and the line.
    """
    if not path.is_file():
        return None
    history = History()
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if not text.endswith(b"\n"):
                break
            try:
                line = json.loads(text)
                _add_event(history, line) if "event" in line else _add_step(history, line)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                where, fix = f"{path}, line {number}", "mend the line or bring the file back"
                raise TrainingError(
                    where, expected="a step or an event", found=repr(error), fix=fix
                ) from None
    return history if history.steps else None


def _add_step(history: History, line: dict[str, Any]) -> None:
    place, stays = (line["chunk"], line.get("position")), history.stays
    step, tokens = int(line["step"]), line.get("tokens")
    last, before = (stays[-1].step, stays[-1].tokens) if stays else (-1, 0)
    if not stays or (stays[-1].chunk, stays[-1].position) != place:
        stays.append(Stay(*place, first=step))
    stay = stays[-1]
    stay.losses.append(math.nan if line["loss"] is None else float(line["loss"]))
    stay.step, stay.tokens = step, None if tokens is None else int(tokens)
    known = step == last + 1 and before is not None and stay.tokens is not None
    stay.targets.append((stay.tokens or 0) - (before or 0) if known else 0)
    stay.seconds += float(line.get("seconds") or 0.0)
    if line.get("spike") is not None:
        stay.spike = max(stay.spike or (-math.inf, 0), (float(line["spike"]), step))
    history.fields += [name for name in line if name not in history.fields]
    history.steps += 1


def _add_event(history: History, line: dict[str, Any]) -> None:
    """An abandoned chunk is taken back, steps and all, should they still be there."""
    if line["event"] != "abandoned":
        return
    history.abandoned.append(line)
    place, stays = (line["chunk"], line.get("position")), history.stays
    if stays and (stays[-1].chunk, stays[-1].position) == place:
        stays.pop()


def finished(history: History | None, order: Sequence[Any]) -> list[Stay | None]:
    """Training on the chunk at each position of the order; None where the metrics do not have it."""
    found: list[Stay | None] = []
    stays = list(history.stays) if history else []
    for chunk in order:
        start = next((index for index, stay in enumerate(stays) if stay.chunk == chunk), None)
        found.append(None if start is None else stays[start])
        stays = stays if start is None else stays[start + 1 :]
    return found


def chunk_losses(history: History | None, order: Sequence[Any]) -> list[float | None]:
    """Mean loss of the chunk at each position of the order; None where the metrics do not have it."""
    return [None if stay is None else stay.mean for stay in finished(history, order)]
