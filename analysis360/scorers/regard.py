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
        """Raises SelectionError where the model has other labels."""
        self.classifier, self.source = classifier, classifier.place.where
        if set(VALUES) - set(classifier.labels):
            raise SelectionError(
                f"regard model {self.source}: expected the labels {', '.join(VALUES)}; "
                f"found {', '.join(classifier.labels)}"
            )
        self._values = np.array([VALUES.get(label, 0.0) for label in classifier.labels])

    @cached_property
    def identity(self) -> str:
        """The model."""
        return digest_of([self.name, self.classifier.identity, 1])

    def score(self, texts: Sequence[str]) -> Scores:
        """[texts, 1]."""
        best = self.classifier.probabilities(texts).argmax(axis=1)
        found: Scores = self._values[best].reshape(-1, 1)
        return found
