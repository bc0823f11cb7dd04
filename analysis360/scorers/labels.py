"""Whether any of some labels of a text classifier holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from analysis360.digests import digest_of
from analysis360.errors import SelectionError
from analysis360.scorers import Scores
from analysis360.scorers.classifier import Classifier


@dataclass(frozen=True)
class AnyLabel:
    """The greatest probability of the labels."""

    classifier: Classifier
    labels: tuple[str, ...]

    name = "any label"
    columns = ("probability",)

    @cached_property
    def identity(self) -> str:
        """The model, and the labels."""
        return digest_of([self.name, self.classifier.identity, sorted(self.labels), 1])

    def score(self, texts: Sequence[str]) -> Scores:
        """[texts, 1] in [0, 1]. Raises SelectionError where the model lacks a label."""
        known = self.classifier.labels
        if missing := sorted(set(self.labels) - set(known)):
            raise SelectionError(
                f"classifier {self.classifier.place.where}: expected the labels {', '.join(missing)}; "
                f"found {', '.join(known)}"
            )
        used = [known.index(label) for label in self.labels]
        found: Scores = self.classifier.probabilities(texts)[:, used].max(axis=1, keepdims=True)
        return found
