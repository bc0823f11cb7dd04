"""Leaderboard: the tasks of lm-eval, asked of every checkpoint.

lm-eval decides what is asked and how answers are judged (`questions`, `outcomes`); prompts become ids once a sweep
(`encoding`), and what prompts begin with in common is read once a checkpoint (`adapter`, `engines.trees`). What is
stored is a row a question; means and their errors derive from them.

This room's first door opens without lm-eval: stored results are read where it is not installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from analysis360.engines import Engine
from analysis360.series import Checkpoint
from analysis360.tasks import Data, Unit

if TYPE_CHECKING:
    from analysis360.tasks.leaderboard.adapter import EngineLM
    from analysis360.tasks.leaderboard.questions import QuestionSet

TASK = "leaderboard"
SCHEMA_VERSION = "leaderboard/1"
SLICE = 256
"""Questions a unit, at most: what an interrupted run loses of a long task."""
SHOTS_SEED = 1234
"""Of the examples, where a task draws them: lm-eval's own."""


@dataclass(frozen=True)
class Settings:
    """Everything of ours that changes an answer; what is asked is told by the content of each question set."""

    dtype: str = "float32"
    """Compute dtype."""
    engine: str = "torch"
    """Engine kind."""
    seed: int = SHOTS_SEED
    """Of the examples, and of samples where a task draws any."""
    task_version: int = 1


@dataclass(frozen=True)
class Leaderboard:
    """The task: which questions, under which checkpoints."""

    plan: Sequence[tuple[Checkpoint, Sequence[Data]]]
    """The question sets of each checkpoint."""
    how: Settings
    limit: int | None = None
    """Questions of each set, the first ones; all where None."""
    models: Mapping[str, EngineLM] = field(default_factory=dict)
    """What asks the engine, by the digest of the tokenizer."""

    name = TASK
    schema_version = SCHEMA_VERSION
    noun, data_noun = "questions", "task"

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self.how)

    def describe(self, checkpoint: Checkpoint) -> dict[str, str]:
        """Versions, and how text becomes ids: provenance of every answer."""
        import lm_eval

        texts = {
            getattr(questions, "text", "")
            for one, sets in self.plan
            for questions in sets
            if one == checkpoint
        }
        encoder = next(self.models[text].encoder for text in texts)
        return {
            "lm-eval": lm_eval.__version__,
            "tokenizer": encoder.text.digest,
            "add_bos": str(encoder.text.add_bos),
            "prefix_token_id": encoder.text.told_prefix,
            "window": str(encoder.window),
        }

    def units(self) -> list[Unit]:
        """Slices of each checkpoint's question sets."""
        return [
            Unit(checkpoint, questions, start, min(start + SLICE, self.asked(questions)))
            for checkpoint, sets in self.plan
            for questions in sets
            for start in range(0, self.asked(questions), SLICE)
        ]

    def asked(self, questions: Any) -> int:
        """Questions of a set that are asked."""
        return int(questions.size if self.limit is None else min(self.limit, questions.size))

    def run(self, engine: Engine, units: Sequence[Unit]) -> list[pa.Table]:
        """Ask the questions of units of one checkpoint: a row each (see `outcomes.SCHEMA`)."""
        from analysis360.tasks.leaderboard.outcomes import outcome_table

        sets: list[QuestionSet] = [unit.chunk for unit in units]  # type: ignore[misc]  # they are ours
        model = self.models[sets[0].text]
        model.engine = engine
        asked = [one.requests(unit.start, unit.stop) for one, unit in zip(sets, units, strict=True)]
        answers = iter(_answers(model, [request for some in asked for request in some]))
        return [
            outcome_table(one, unit.start, unit.stop, list(islice(answers, sum(_repeats(r) for r in some))))
            for one, unit, some in zip(sets, units, asked, strict=True)
        ]


def _repeats(request: Any) -> int:
    return int(request.repeats or 1)


def _answers(model: EngineLM, requests: Sequence[Any]) -> list[Any]:
    """What the model answers to requests of all kinds, each as often as it repeats, in order."""
    repeated = [request for request in requests for _ in range(_repeats(request))]
    by_kind: dict[str, list[int]] = {}
    for i, request in enumerate(repeated):
        by_kind.setdefault(request.request_type, []).append(i)
    found: list[Any] = [None] * len(repeated)
    for kind, places in by_kind.items():
        ask = getattr(model, kind)
        for place, answer in zip(places, ask([repeated[i] for i in places]), strict=True):
            found[place] = answer
    return found
