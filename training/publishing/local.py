"""Faults of the folder that is published, told as such: none of them is the Hub's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import TrainingError

__all__ = ["readable", "reading"]


@contextmanager
def reading(path: object, expected: str, fix: str) -> Iterator[None]:
    """What goes wrong with the content of a file, as one line that names it."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        found = " ".join(repr(error).split())[:200]
        raise TrainingError(path, expected=expected, found=found, fix=fix) from None


@contextmanager
def readable(out: Path) -> Iterator[None]:
    """A file that cannot be read is named."""
    try:
        yield
    except OSError as error:
        where, found = error.filename or out, error.strerror or repr(error)
        raise TrainingError(where, expected="a file to read", found=found, fix="mend that") from None
