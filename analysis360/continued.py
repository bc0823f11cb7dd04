"""Stored continuations under the titles and groups of their prompts: as texts, and as a number a metric.

Continuations are stored a distinct prompt; what is told of is a line of the prompts, of which several may share one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from analysis360.parts import Rows
from analysis360.scorers.cache import Cached
from analysis360.scorers.repetition import repetition
from analysis360.series import Checkpoint
from analysis360.tasks import Unit
from analysis360.tasks.bold import Asked, Bold
from analysis360.tasks.bold.anonymous import anonymous
from analysis360.tasks.bold.measures import Metric
from analysis360.tasks.bold.prompts import DOMAINS, Line

Floats = NDArray[np.float64]
SCORED: Mapping[str, str] = MappingProxyType(
    {
        "continuation": "the continuation",
        "paper": "prompt and continuation without names",
        "whole": "prompt and continuation as they are",
    }
)
TEXTS = tuple(SCORED)
"""What may be scored."""
REPETITION = Metric("repetition", "repetition", "repetition", domains=DOMAINS)
EMPTY = Metric("empty", "empty", "empty", domains=DOMAINS)
"""Whether nothing was written, or blanks alone: such a text has no number of any scorer."""
AT_A_TIME = 400_000
"""Texts that are held at once."""


@dataclass(frozen=True)
class Written:
    """What one checkpoint wrote after every distinct prompt, all [samples, distinct prompts]."""

    text: NDArray[np.object_]
    """The continuation; None where it is not stored."""
    prompt: NDArray[np.object_]
    """The prompt as it was asked."""
    repetition: Floats

    @property
    def empty(self) -> Floats:
        """1 where nothing was written, or blanks alone; 0 where something was, NaN where nothing is stored."""
        known = [np.nan if text is None else float(not text.strip()) for text in self.text.ravel()]
        return np.array(known, np.float64).reshape(self.text.shape)


@dataclass(frozen=True)
class Continued:
    """The stored rows of a task, the lines that are told of, and what is told of them."""

    checkpoints: Sequence[Checkpoint]
    lines: Sequence[Line]
    """The prompts that are told of, under every title."""
    task: Bold
    rows: Rows
    """The stored continuations of the task's units, in order."""
    text: str
    """One of TEXTS."""
    metrics: Sequence[Metric]
    """REPETITION among them."""
    scorers: Sequence[Cached]

    @cached_property
    def _units(self) -> tuple[list[Unit], list[list[int]]]:
        """The task's units, and the places of each checkpoint's."""
        units = self.task.units()
        places: dict[str, list[int]] = {}
        for i, unit in enumerate(units):
            places.setdefault(unit.checkpoint.name, []).append(i)
        return units, [places.get(checkpoint.name, []) for checkpoint in self.checkpoints]

    @cached_property
    def _offsets(self) -> dict[tuple[str, ...], int]:
        """Distinct prompts before those of each set."""
        sizes: dict[tuple[str, ...], int] = {}
        for asked in self.task.plan[0][1]:
            sizes[asked.distinct.parts] = len(asked.distinct.prompts)
        starts = np.cumsum([0, *sizes.values()])
        return dict(zip(sizes, starts.tolist(), strict=False))

    @cached_property
    def distinct(self) -> NDArray[np.int64]:
        """[lines] the distinct prompt of each."""
        found = {
            prompt: self._offsets[asked.distinct.parts] + i
            for asked in self.task.plan[0][1]
            for i, prompt in enumerate(asked.distinct.prompts)
        }
        return np.array([found[line.prompt] for line in self.lines], np.int64)

    @cached_property
    def samples(self) -> int:
        """Continuations of each prompt."""
        return 1 + max(asked.sample for asked in self.task.plan[0][1])

    def written(self, k: int) -> Written:
        """What is stored of the k-th checkpoint."""
        size = sum(len(a.distinct.prompts) for a in self.task.plan[0][1] if a.sample == 0)
        text, prompt = (np.full((self.samples, size), None, object) for _ in range(2))
        repeated = np.full((self.samples, size), np.nan)
        units, places = self._units
        for table, pieces in self.rows.read(("position", "prompt", "text", "ids"), places[k]):
            ids = repetition(table["ids"].to_pylist())
            texts, prompts = (table[name].to_numpy() for name in ("text", "prompt"))
            position = table["position"].to_numpy()
            for piece in pieces:
                asked: Asked = units[piece.unit].chunk  # type: ignore[assignment]  # they are ours
                some = slice(piece.offset, piece.offset + piece.rows)
                there = asked.sample, self._offsets[asked.distinct.parts] + position[some]
                text[there], prompt[there], repeated[there] = texts[some], prompts[some], ids[some]
        return Written(text, prompt, repeated)

    def scored(self, written: Written, sample: int) -> list[str | None]:
        """[lines] what is scored of a checkpoint's sample; None where it is not stored."""
        texts = written.text[sample][self.distinct]
        if self.text == "continuation":
            return list(texts)
        prompts = written.prompt[sample][self.distinct]
        whole = [None if text is None else prompt + text for prompt, text in zip(prompts, texts, strict=True)]
        if self.text == "whole":
            return whole
        return [None if t is None else anonymous(line, t) for line, t in zip(self.lines, whole, strict=True)]

    @cached_property
    def told_of(self) -> dict[str, NDArray[np.bool_]]:
        """[lines] whether each metric tells of it."""
        told = {
            metric.name: np.array([metric.tells_of(line.domain, line.group) for line in self.lines], bool)
            for metric in self.metrics
        }
        return told | {EMPTY.name: np.ones(len(self.lines), bool)}

    def numbers(
        self, written: Sequence[Written], tell: Callable[[int], None] = lambda _: None
    ) -> dict[str, Floats]:
        """[checkpoints, samples, lines] what each metric says of every text; NaN where it says nothing.

        `tell` hears how many texts of a scorer are done (see `to_score`).
        """
        shape = len(written), self.samples, len(self.lines)
        texts = np.array(
            [self.scored(one, sample) for one in written for sample in range(self.samples)], object
        ).reshape(shape)
        empty = np.array([one.empty[:, self.distinct] for one in written]).reshape(shape)
        repeated = np.array([one.repetition[:, self.distinct] for one in written]).reshape(shape)
        found = {REPETITION.name: repeated, EMPTY.name: empty}
        scored = ~np.isnan(empty) if self.text == "whole" else empty == 0
        for scorer in self.scorers:
            metrics = self._metrics_of(scorer)
            wanted = scored & np.any([self.told_of[metric.name] for metric in metrics], axis=0)
            scores = scorer.score(texts[wanted].tolist(), tell)
            for metric in metrics:
                numbers = np.full(shape, np.nan)
                numbers[wanted] = scores[:, scorer.columns.index(metric.column)]
                found[metric.name] = np.where(self.told_of[metric.name], numbers, np.nan)
        return found

    def _metrics_of(self, scorer: Cached) -> list[Metric]:
        return [metric for metric in self.metrics if metric.scorer == scorer.scorer.name]

    @property
    def to_score(self) -> int:
        """Texts that all scorers together are given, at most, for all checkpoints."""
        told = [np.any([self.told_of[m.name] for m in self._metrics_of(one)], axis=0) for one in self.scorers]
        return len(self.checkpoints) * self.samples * sum(int(lines.sum()) for lines in told)

    def blocks(self) -> Iterator[range]:
        """Checkpoints whose texts are held together."""
        step = max(1, AT_A_TIME // max(1, len(self.lines) * self.samples))
        for start in range(0, len(self.checkpoints), step):
            yield range(start, min(start + step, len(self.checkpoints)))
