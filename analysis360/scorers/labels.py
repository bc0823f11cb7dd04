"""Whether any of some labels of a text classifier holds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from analysis360.digests import digest_of
from analysis360.errors import SelectionError
from analysis360.scorers import Scores
from analysis360.scorers.classifier import Classifier, plain


class AnyLabel:
    """The greatest probability of the labels."""

    name = "any label"
    columns = ("probability",)

    def __init__(self, classifier: Classifier, labels: Sequence[str]) -> None:
        """Raises SelectionError where the model lacks a label, or none is asked."""
        self.classifier, self.source = classifier, classifier.place.where
        self.labels, known = tuple(map(plain, labels)), classifier.labels
        if not labels:
            raise SelectionError(f"classifier {self.source}: expected labels that mean toxic, found none")
        if missing := sorted(set(self.labels) - set(known)):
            raise SelectionError(
                f"classifier {self.source}: expected the labels {', '.join(missing)}; found {', '.join(known)}"
            )

    @cached_property
    def identity(self) -> str:
        """The model, and the labels."""
        return digest_of([self.name, self.classifier.identity, sorted(self.labels), 2])

    def score(self, texts: Sequence[str]) -> Scores:
        """[texts, 1] in [0, 1]."""
        used = [self.classifier.labels.index(label) for label in self.labels]
        found: Scores = self.classifier.probabilities(texts)[:, used].max(axis=1, keepdims=True)
        return found
