"""The task: a checkpoint writes programs, and a sandbox judges them.

Stored of each problem are the texts that were written, so that they can be judged again without a model.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from analysis360.digests import digest_of
from analysis360.engines import Engine, Prompt, Sampling
from analysis360.errors import EngineError, SelectionError
from analysis360.series import Checkpoint
from analysis360.tasks import Unit
from analysis360.tasks.code.problems import ProblemSet
from analysis360.tasks.code.prompts import Style
from analysis360.tasks.code.sandbox import Limits, Verdict, run
from analysis360.tasks.code.walls import sandbox_version
from analysis360.text import Text, cut

SLICE = 512
"""Programs a unit, about: what an interrupted run loses."""


@dataclass(frozen=True)
class Settings:
    """Everything of ours that changes a verdict, beside the questions."""

    samples: int = 1
    """Programs a problem."""
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    """Least probability that the ids drawn from hold together."""
    new_tokens: int = 512
    """Ids a program may take."""
    seed: int = 0
    """Of the draws; each program has a stream of its own."""
    dtype: str = "float32"
    """Compute dtype."""
    engine: str = "torch"
    """Engine kind."""
    limits: Limits = field(default_factory=Limits)
    task_version: int = 1

    def __post_init__(self) -> None:
        for name in ("samples", "new_tokens"):
            if getattr(self, name) < 1:
                raise SelectionError(
                    f"{name.replace('_', ' ')}: expected at least 1, found {getattr(self, name)}"
                )
        if not self.temperature >= 0:
            raise SelectionError(f"temperature: expected 0 or more, found {self.temperature:g}")
        if not 0 < self.top_p <= 1:
            raise SelectionError(f"top p: expected more than 0 and at most 1, found {self.top_p:g}")
        if self.samples > 1 and self.temperature == 0:
            raise SelectionError(
                f"{self.samples} samples at temperature 0 are the same; give a temperature, such as 0.8, or 1 sample"
            )


@dataclass(frozen=True)
class Questions:
    """The problems of a benchmark, asked in one way."""

    problems: ProblemSet
    style: Style

    @property
    def name(self) -> str:
        """Benchmark and prompt: `mbpp/docstring`."""
        return f"{self.problems.name}/{self.style.name}"

    @cached_property
    def prompts(self) -> list[str]:
        """What a model is given of each problem."""
        return self.style.prompts(self.problems)

    @cached_property
    def digest(self) -> str:
        """Of everything that is asked and of how it is judged."""
        judged = [[p.task_id, p.head, p.test, p.names] for p in self.problems.problems]
        return digest_of([self.prompts, self.style.stops, judged])

    def __len__(self) -> int:
        return len(self.problems.problems)


@dataclass(frozen=True)
class Asked:
    """Questions as the ids of one tokenizer: what a unit is of."""

    questions: Questions
    text: Text

    @property
    def name(self) -> str:
        """Benchmark and prompt."""
        return self.questions.name

    @cached_property
    def digest(self) -> str:
        """Of the questions and of the way they become ids."""
        return digest_of([self.questions.digest, self.text.digest])

    @cached_property
    def ids(self) -> list[tuple[int, ...]]:
        """The prompts."""
        return [tuple(row.tolist()) for row in self.text.encode(self.questions.prompts)]


@dataclass(frozen=True)
class Code:
    """The task: which questions, under which checkpoints."""

    plan: Sequence[tuple[Checkpoint, Sequence[Asked]]]
    how: Settings
    limit: int | None = None
    """Problems of each benchmark, the first ones; all, if left out."""
    workers: int | None = None
    """Programs that are judged at a time; as many as there are processors, if left out."""

    name = "code"
    schema_version = "code/1"
    noun = "problems"
    data_noun = "benchmark"

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self.how)

    def describe(self, checkpoint: Checkpoint) -> dict[str, str]:
        """What judged, and how text became ids."""
        texts = next((several for one, several in self.plan if one == checkpoint), ())
        judge = f"Python {platform.python_version()}, {sandbox_version()}"
        return {"judge": judge, "tokenizer": ", ".join({one.text.digest for one in texts})}

    def units(self) -> list[Unit]:
        """Slices of what is asked of each checkpoint."""
        step = max(1, SLICE // self.how.samples)
        return [
            replace(whole, start=start, stop=min(start + step, whole.stop))
            for whole in self.wholes()
            for start in range(0, whole.stop, step)
        ]

    def wholes(self) -> list[Unit]:
        """What is asked of each checkpoint: a unit a benchmark."""
        return [
            Unit(checkpoint, asked, 0, min(size, self.limit or size), self.how.samples)
            for checkpoint, several in self.plan
            for asked in several
            for size in [len(asked.questions)]
        ]

    def run(self, engine: Engine, units: Sequence[Unit]) -> list[pa.Table]:
        """Ask and judge units of one checkpoint (see `table_of`)."""
        asked = [(asked_of(unit), range(unit.start, unit.stop)) for unit in units]
        prompts = [prompt for one, some in asked for prompt in self._prompts(one, some)]
        written = engine.complete(prompts)
        if len(written) != len(prompts):
            raise EngineError(f"expected {len(prompts)} completions, found {len(written)}")
        texts = iter(zip(prompts, written, strict=True))
        tables = []
        for one, some in asked:
            samples = [[_text(one, *next(texts)) for _ in range(self.how.samples)] for _ in some]
            tables.append(judge(one.questions, some, samples, self.how.limits, self.workers))
        return tables

    def _prompts(self, asked: Asked, positions: range) -> list[Prompt]:
        """Each problem `samples` times."""
        how, eos = self.how, asked.text.eos
        ends = () if eos is None else (eos,)
        return [
            Prompt(
                asked.ids[position],
                how.new_tokens,
                ends,
                asked.questions.style.stops,
                Sampling(how.temperature, how.top_p, None, seed_of(how.seed, problem.task_id, sample)),
            )
            for position in positions
            for problem in [asked.questions.problems.problems[position]]
            for sample in range(how.samples)
        ]


def asked_of(unit: Unit) -> Asked:
    """The questions of a unit of this task."""
    assert isinstance(unit.chunk, Asked)
    return unit.chunk


def _text(asked: Asked, prompt: Prompt, ids: Sequence[int]) -> str:
    """What the whole says beyond the prompt: of ids alone some tokenizers lose a leading space."""
    kept = ids[:-1] if ids and ids[-1] in prompt.stop_ids else ids
    before, whole = (asked.text.decode(some) for some in (prompt.ids, [*prompt.ids, *kept]))
    text = whole[len(before) :] if whole.startswith(before) else asked.text.decode(kept)
    return cut(text, prompt.stop)


def seed_of(seed: int, task_id: str, sample: int) -> int:
    """The seed of one program's draws, in [0, 2^63): of these three alone, whatever else is asked."""
    digest = hashlib.sha256(f"{seed}/{task_id}/{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def judge(
    questions: Questions,
    positions: Sequence[int],
    samples: Sequence[Sequence[str]],
    limits: Limits | None = None,
    workers: int | None = None,
) -> pa.Table:
    """Judge the texts of each position, [problems][samples]: a row a problem (see `table_of`). Raises SandboxError.

    What no file can hold of a text, half a character of UTF-16, is a question mark.
    """
    samples = [[text.encode(errors="replace").decode() for text in texts] for texts in samples]
    problems = [questions.problems.problems[position] for position in positions]
    programs = [
        problem.program(text) for problem, texts in zip(problems, samples, strict=True) for text in texts
    ]
    verdicts = iter(run(programs, limits, workers))
    return table_of(positions, samples, [[next(verdicts) for _ in texts] for texts in samples])


def rescore(
    table: pa.Table, questions: Questions, limits: Limits | None = None, workers: int | None = None
) -> pa.Table:
    """Judge stored texts again, without a model. Raises SandboxError."""
    return judge(questions, table["position"].to_pylist(), table["samples"].to_pylist(), limits, workers)


def table_of(
    positions: Sequence[int], samples: Sequence[Sequence[str]], verdicts: Sequence[Sequence[Verdict]]
) -> pa.Table:
    """A row a problem: position, and lists of one item a program: samples (texts cut at the stops), passed, verdict."""
    return pa.table(
        {
            "position": pa.array(np.array(positions, np.int32)),
            "samples": pa.array(samples, pa.list_(pa.string())),
            "passed": pa.array([[v.passed for v in some] for some in verdicts], pa.list_(pa.bool_())),
            "verdict": pa.array([[str(v) for v in some] for some in verdicts], pa.list_(pa.string())),
        }
    )
