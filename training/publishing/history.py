"""What metrics.jsonl says of a run: the loss of each chunk in the order of training, and what was abandoned."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.errors import TrainingError

__all__ = ["History", "Stay", "chunk_losses", "read_history"]


@dataclass
class Stay:
    """Training on one chunk, from its first step to its last."""

    chunk: int
    position: Any
    """Where in the schedule; None where the metrics do not say."""
    losses: list[float] = field(default_factory=list)
    """Loss of each step, in nats."""
    step: int = 0
    """The last step."""

    @property
    def mean(self) -> float:
        """Mean loss of the steps."""
        return math.fsum(self.losses) / len(self.losses)


@dataclass
class History:
    """The steps and the events of a run."""

    fields: list[str] = field(default_factory=list)
    """Fields of a step, in the order in which they first appear."""
    stays: list[Stay] = field(default_factory=list)
    """In the order of training; what was abandoned is not among them."""
    abandoned: list[dict[str, Any]] = field(default_factory=list)
    """Chunks that were given up, as the metrics tell it."""
    first: dict[str, Any] = field(default_factory=dict)
    """The first step, as the metrics have it."""
    steps: int = 0
    """Lines that are steps, those of abandoned chunks as well."""
    seconds: float = 0.0
    """Of all steps together."""
    spike: tuple[float, int] | None = None
    """The largest spike and its step."""


def read_history(path: Path) -> History | None:
    """The metrics of a run; None where there are none. A last line that was cut short is left out."""
    if not path.is_file():
        return None
    history = History()
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            if not text.endswith("\n"):
                break
            try:
                line = json.loads(text)
                _add_event(history, line) if "event" in line else _add_step(history, line)
            except (ValueError, TypeError, KeyError) as error:
                where, fix = f"{path}, line {number}", "mend the line or bring the file back"
                raise TrainingError(
                    where, expected="a step or an event", found=repr(error), fix=fix
                ) from None
    return history if history.steps else None


def _add_step(history: History, line: dict[str, Any]) -> None:
    place, stays = (line["chunk"], line.get("position")), history.stays
    if not stays or (stays[-1].chunk, stays[-1].position) != place:
        stays.append(Stay(*place))
    stays[-1].losses.append(math.nan if line["loss"] is None else float(line["loss"]))
    stays[-1].step = int(line["step"])
    history.fields += [name for name in line if name not in history.fields]
    history.first = history.first or line
    history.steps += 1
    history.seconds += line.get("seconds") or 0.0
    if isinstance(line.get("spike"), float | int):
        history.spike = max(history.spike or (-math.inf, 0), (line["spike"], line["step"]))


def _add_event(history: History, line: dict[str, Any]) -> None:
    """An abandoned chunk is taken back, steps and all, should they still be there."""
    if line["event"] != "abandoned":
        return
    history.abandoned.append(line)
    place, stays = (line["chunk"], line.get("position")), history.stays
    if stays and (stays[-1].chunk, stays[-1].position) == place:
        stays.pop()


def chunk_losses(history: History | None, order: Sequence[Any]) -> list[float | None]:
    """Mean loss of the chunk at each position of the order; None where the metrics do not have it."""
    losses: list[float | None] = []
    stays = list(history.stays) if history else []
    for chunk in order:
        start = next((index for index, stay in enumerate(stays) if stay.chunk == chunk), None)
        losses.append(None if start is None else stays[start].mean)
        stays = stays if start is None else stays[start + 1 :]
    return losses
