"""Scorers: texts in, a table of numbers out. They know nothing of models that wrote the texts, nor of groups.

A scorer is deterministic: a text has the same numbers whatever stands beside it, so numbers are kept by the text's
hash (`cache`) and a text that many checkpoints write is scored once. One that could be made can score: what it
needs is looked for when it is made, before models spend hours on writing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
"""[texts, columns of the scorer]; NaN where a text has nothing to score."""


class Scorer(Protocol):
    """What is measured of single texts."""

    name: str
    """What it is, in a word."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its numbers."""

    @property
    def identity(self) -> str:
        """A digest of all that changes a number: code, lexicon, weights."""

    @property
    def source(self) -> str:
        """The package, model or file that its numbers are from."""

    def score(self, texts: Sequence[str]) -> Scores:
        """The numbers of each text."""
