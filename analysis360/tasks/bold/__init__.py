"""BOLD: prompts about groups of people, continued by every checkpoint (Dhamala et al. 2021, arXiv:2101.11718).

What is stored is a row a distinct prompt: the ids of its continuation and their text, so that it can be scored again
without a model. `prompts` reads what is published, `encoding` makes ids of it, `anonymous` takes names away. Scores
are no part of this room: see `scorers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import pyarrow as pa

from analysis360.digests import counter_seed, digest_of
from analysis360.engines import Engine, Prompt, Sampling
from analysis360.errors import SelectionError
from analysis360.series import Checkpoint
from analysis360.tasks import Unit
from analysis360.tasks.bold.encoding import Encoder
from analysis360.tasks.bold.prompts import Distinct

TASK = "bold"
SCHEMA_VERSION = "bold/1"
SLICE = 512
"""Prompts a unit, at most: what an interrupted run loses."""
NEW_TOKENS = 20
"""As the published code of Analysis360 asks for."""
TOP_K, TOP_P = 40, 0.95
"""As the paper drew from GPT-2 (appendix A.2.2); it states no temperature, so 1."""
SCHEMA = pa.schema(
    [
        ("position", pa.int32()),
        ("prompt", pa.string()),
        ("ids", pa.list_(pa.int32())),
        ("text", pa.string()),
        ("ended", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Settings:
    """Everything of ours that changes a continuation; prompts and tokenizer are told by the content of each set."""

    dtype: str = "float32"
    """Compute dtype."""
    engine: str = "torch"
    """Engine kind."""
    new_tokens: int = NEW_TOKENS
    """Ids asked for, at most; EOS ends a continuation."""
    temperature: float = 1.0
    """0 is greedy."""
    top_k: int | None = TOP_K
    top_p: float = TOP_P
    seed: int = 0
    """Of all draws: each has a seed of its own, from this one, its prompt and the number of the sample."""
    task_version: int = 1

    def __post_init__(self) -> None:
        if self.new_tokens < 1:
            raise SelectionError(f"new tokens: expected at least 1, found {self.new_tokens}")
        self.sampling("", 0)

    @classmethod
    def greedy(cls, **how: Any) -> Settings:
        """The same without draws, whatever the seed."""
        return cls(**{**how, "seed": 0}, temperature=0.0, top_k=None, top_p=1.0)

    def sampling(self, prompt: str, sample: int) -> Sampling:
        """How a prompt is continued, whatever else is asked."""
        seed = counter_seed(self.seed, prompt, sample) if self.temperature else 0
        return Sampling(self.temperature, self.top_p, self.top_k, seed)


@dataclass(frozen=True)
class Asked:
    """One sample of a set of prompts, as a tokenizer reads them."""

    distinct: Distinct
    sample: int
    """The number of the sample, from 0."""
    text: str
    """The tokenizer's content."""

    @property
    def name(self) -> str:
        """The domains, and the number of the sample."""
        return f"{self.distinct.name}/{self.sample}"

    @cached_property
    def digest(self) -> str:
        """Of prompts, sample and tokenizer."""
        return digest_of([self.distinct.prompts, self.sample, self.text])


@dataclass(frozen=True)
class Bold:
    """The task: which prompts, under which checkpoints."""

    plan: Sequence[tuple[Checkpoint, Sequence[Asked]]]
    """What is asked of each checkpoint."""
    how: Settings
    limit: int | None = None
    """Prompts of each group, the first ones; all where None."""
    encoders: Mapping[str, Encoder] = field(default_factory=dict)
    """By the tokenizer's content."""
    source: str = ""
    """Where the prompts are from."""

    name = TASK
    schema_version = SCHEMA_VERSION
    noun, data_noun = "continuations", "set of prompts"

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self.how)

    def describe(self, checkpoint: Checkpoint) -> dict[str, str]:
        """How prompts became ids: provenance of every continuation."""
        asked = next(sets for one, sets in self.plan if one == checkpoint)
        encoder = self.encoders[asked[0].text]
        return {**encoder.describe(), "prompts": self.source}

    def units(self) -> list[Unit]:
        """Slices of each checkpoint's sets."""
        return [
            Unit(checkpoint, asked, start, min(start + SLICE, size))
            for checkpoint, sets in self.plan
            for asked in sets
            for size in [asked.distinct.first(self.limit)]
            for start in range(0, size, SLICE)
        ]

    def run(self, engine: Engine, units: Sequence[Unit]) -> list[pa.Table]:
        """Continue the prompts of units of one checkpoint: a row each, of SCHEMA."""
        sets: list[Asked] = [unit.chunk for unit in units]  # type: ignore[misc]  # they are ours
        encoder = self.encoders[sets[0].text]
        texts = [
            asked.distinct.prompts[unit.start : unit.stop] for asked, unit in zip(sets, units, strict=True)
        ]
        prompts = [
            self._prompt(encoder, prompt, asked.sample)
            for asked, some in zip(sets, texts, strict=True)
            for prompt in some
        ]
        made = iter(engine.complete(prompts))
        return [
            _table(encoder, unit.start, some, list(islice(made, len(some))))
            for unit, some in zip(units, texts, strict=True)
        ]

    def _prompt(self, encoder: Encoder, prompt: str, sample: int) -> Prompt:
        eos = () if encoder.text.eos is None else (encoder.text.eos,)
        return Prompt(
            encoder.ids(prompt), self.how.new_tokens, eos, sampling=self.how.sampling(prompt, sample)
        )


def _table(encoder: Encoder, start: int, prompts: Sequence[str], made: Sequence[tuple[int, ...]]) -> pa.Table:
    eos = encoder.text.eos
    columns = {
        "position": range(start, start + len(prompts)),
        "prompt": [encoder.asked(prompt) for prompt in prompts],
        "ids": made,
        "text": [encoder.continuation(prompt, ids) for prompt, ids in zip(prompts, made, strict=True)],
        "ended": [ids[-1:] == (eos,) for ids in made],
    }
    return pa.table({name: list(values) for name, values in columns.items()}, SCHEMA)
