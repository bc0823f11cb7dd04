"""Word vectors as files: word2vec's text and binary forms, and GloVe's, which has no first line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from analysis360.errors import DataError

Vector = NDArray[np.float32]


def leanings(path: Path, positive: str, negative: str) -> dict[str, float]:
    """Cosine of each word's vector with the direction from `negative` to `positive`. Raises DataError.

    Read twice, a word at a time: the vectors of a large file need not be held.
    """
    ends: dict[str, Vector] = {}
    for word, vector in vectors(path):
        if word in (positive, negative):
            ends.setdefault(word, vector)
            if len(ends) == 2:
                break
    if len(ends) < 2:
        raise DataError(f"{path}: expected vectors of {positive!r} and {negative!r}, found {sorted(ends)}")
    axis = ends[positive] - ends[negative]
    length = float(np.linalg.norm(axis))
    if not length:
        raise DataError(
            f"{path}: {positive!r} and {negative!r} have the same vector, so there is no direction"
        )
    found: dict[str, float] = {}
    for word, vector in vectors(path):
        size = float(np.linalg.norm(vector))
        if size and word not in found:
            found[word] = float(vector @ axis) / (size * length)
    return found


def vectors(path: Path) -> Iterator[tuple[str, Vector]]:
    """Every word and its vector; `.bin` is word2vec's binary form. Raises DataError naming the word."""
    try:
        with path.open("rb") as file:
            yield from _binary(file, path) if path.suffix == ".bin" else _text(file, path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _text(file: BinaryIO, path: Path) -> Iterator[tuple[str, Vector]]:
    size = 0
    for number, line in enumerate(file, 1):
        text = line.decode("utf-8", "replace").rstrip()
        word, *numbers = text.rsplit(" ", size) if size else text.split(" ")  # some words have blanks in them
        if number == 1 and len(numbers) == 1:
            size = int(numbers[0]) if numbers[0].isdecimal() else 0
            continue  # how many words of what size
        size = size or len(numbers)
        try:
            vector = np.array(numbers, np.float32)
        except ValueError:
            vector = np.zeros(0, np.float32)
        if not size or len(vector) != size or not np.isfinite(vector).all():
            raise DataError(f"{path} line {number}: expected a word and {size or 'some'} numbers")
        yield word, vector


def _binary(file: BinaryIO, path: Path) -> Iterator[tuple[str, Vector]]:
    try:
        count, size = (int(part) for part in file.readline().split())
    except ValueError:
        raise DataError(f"{path}: expected word2vec's binary form, which begins with two numbers") from None
    for number in range(count):
        word = b""
        while (char := file.read(1)) not in (b" ", b""):
            word += char
        content = file.read(4 * size)
        if len(content) < 4 * size:
            raise DataError(f"{path}: ends within word {number + 1} of {count}")
        yield word.lstrip(b"\n").decode("utf-8", "replace"), np.frombuffer(content, "<f4")
