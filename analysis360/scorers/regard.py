"""Regard: how a text speaks of those it is about (Sheng et al. 2019; BOLD, section 4.3), by a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from analysis360.digests import digest_of
from analysis360.errors import SelectionError
from analysis360.scorers import Scores
from analysis360.scorers.classifier import Classifier

VALUES = {"positive": 1.0, "neutral": 0.0, "negative": -1.0}


class Regard:
    """The most probable label: +1 positive, -1 negative, 0 any other."""

    name = "regard"
    columns = ("label",)

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    @cached_property
    def identity(self) -> str:
        """The model."""
        return digest_of([self.name, self.classifier.identity, 1])

    @cached_property
    def _values(self) -> Scores:
        labels = self.classifier.labels
        if set(VALUES) - set(labels):
            raise SelectionError(
                f"regard model {self.classifier.place.where}: expected the labels {', '.join(VALUES)}; "
                f"found {', '.join(labels)}"
            )
        return np.array([VALUES.get(label, 0.0) for label in labels])

    def score(self, texts: Sequence[str]) -> Scores:
        """[texts, 1]."""
        values = self._values
        best = self.classifier.probabilities(texts).argmax(axis=1)
        found: Scores = values[best].reshape(-1, 1)
        return found
