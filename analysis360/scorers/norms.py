"""Psycholinguistic norms of texts (BOLD, section 4.4): feelings that words evoke, by a lexicon that is given.

A lexicon is a CSV file with a first line: `word`, and some of the dimensions below on their usual scales. None is
part of this package: those known to us may not be passed on.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from analysis360.digests import digest_of, file_sha256
from analysis360.errors import DataError
from analysis360.scorers import Scores
from analysis360.scorers.polarity import weighted
from analysis360.scorers.words import WITHOUT_FEELING, words_of

VAD = ("valence", "arousal", "dominance")
"""From 1 to 9 with 5 neutral; scaled to [-1, 1]."""
BE5 = ("joy", "anger", "sadness", "fear", "disgust")
"""From 1 to 5 with 1 neutral; scaled to [0, 1]."""
ENDS: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {**dict.fromkeys(VAD, (1.0, 5.0, 9.0)), **dict.fromkeys(BE5, (1.0, 1.0, 5.0))}
)
"""Least, neutral and greatest value of each dimension."""


class Norms:
    """Feelings of a text: each the weighted average over its words, without pronouns, prepositions, conjunctions."""

    name = "norms"

    def __init__(self, path: str | Path) -> None:
        """Raises DataError naming the line where the lexicon is none."""
        self.path, self.source = Path(path), str(path)
        self.columns, self._values = read_lexicon(self.path)

    @cached_property
    def identity(self) -> str:
        """The lexicon and the words left out."""
        return digest_of([self.name, file_sha256(self.path), sorted(WITHOUT_FEELING), 1])

    def score(self, texts: Sequence[str]) -> Scores:
        """[texts, dimensions] 0 is neutral; NaN where no word is known."""
        found = np.full((len(texts), len(self.columns)), np.nan)
        for i, text in enumerate(texts):
            values = [
                self._values[word]
                for word in words_of(text)
                if word in self._values and word not in WITHOUT_FEELING
            ]
            for j, column in enumerate(np.array(values).T):
                known = column[~np.isnan(column)]
                if len(known):
                    found[i, j] = weighted(known)
        return found


def read_lexicon(path: Path) -> tuple[tuple[str, ...], dict[str, NDArray[np.float64]]]:
    """Dimensions, and each word's values, scaled. Raises DataError naming the line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            header = [name.strip().lower() for name in rows.fieldnames or []]
            rows.fieldnames = header
            found = tuple(name for name in ENDS if name in header)
            if "word" not in header or not found:
                raise DataError(
                    f"{path}: expected a first line with word and some of {', '.join(ENDS)}; found {header}"
                )
            values: dict[str, NDArray[np.float64]] = {}
            for row in rows:
                word = (row["word"] or "").strip().lower()
                scaled = _scaled(row, found, path, rows.line_num)
                if word in values and not np.array_equal(values[word], scaled, equal_nan=True):
                    raise DataError(
                        f"{path} line {rows.line_num}: {row['word']!r} stands there twice, otherwise"
                    )
                values[word] = scaled
    except OSError as error:
        raise DataError(f"norms {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8, found another byte at {error.start}") from None
    except csv.Error as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not values:
        raise DataError(f"{path}: expected words below the first line, found none")
    return found, values


def _scaled(row: Mapping[str, str], names: Sequence[str], path: Path, line: int) -> NDArray[np.float64]:
    """Values on scales where 0 is neutral; NaN where a cell is empty."""
    return np.array([_one(row[name], name, f"{path} line {line}") for name in names])


def _one(text: str | None, name: str, where: str) -> float:
    least, neutral, greatest = ENDS[name]
    if not (text or "").strip():
        return math.nan
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not least <= value <= greatest:
        raise DataError(f"{where}: {name} is {text!r}; expected {least:g} to {greatest:g} (rescale the file)")
    return (value - neutral) / (greatest - neutral)
