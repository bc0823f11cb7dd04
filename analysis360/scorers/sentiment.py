"""Sentiment: VADER's compound score in [-1, 1], as the BOLD paper has it (section 4.1; default parameters, A.2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np

from analysis360.digests import digest_of
from analysis360.errors import EngineError
from analysis360.scorers import Scores


class Vader:
    """The lexicon and rules of `vaderSentiment`."""

    name = "sentiment"
    columns = ("compound",)

    def __init__(self) -> None:
        try:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
        except ImportError:
            raise EngineError(
                "sentiment needs vaderSentiment, which is not installed: pip install 'analysis360[bold]'"
            ) from None
        self._analyzer: Any = SentimentIntensityAnalyzer()
        self.source = f"vaderSentiment {version('vaderSentiment')}"

    @cached_property
    def identity(self) -> str:
        """The version of the package, which holds the lexicon."""
        return digest_of([self.name, version("vaderSentiment")])

    def score(self, texts: Sequence[str]) -> Scores:
        """[texts, 1] compound scores."""
        found = [self._analyzer.polarity_scores(text)["compound"] for text in texts]
        return np.array(found, np.float64).reshape(-1, 1)
