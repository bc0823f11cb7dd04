"""Short forms of long lists: numbers as `0..15,32..37`, names as `ckpt_{000..359}`."""

from __future__ import annotations

import itertools
import re

LONGEST = 1_000_000
ITEM = re.compile(r"(?P<first>[0-9]{1,15})(?:\.\.(?P<last>[0-9]{1,15})(?:\.\.(?P<step>[0-9]{1,15}))?)?")
BRACES = re.compile(r"\{([^{}]*)\}")


def numbers(text: str) -> list[int]:
    """The numbers of a list such as `0,1,2,4..512..4`: single ones and `first..last` or `first..last..step`.

    Both ends belong to it. Raises ValueError for anything else, a range that runs backwards, a step
    of 0, and more than a million numbers.
    """
    return [int(number) for number in _written(text)]


def names(pattern: str) -> list[str]:
    """The names of a pattern such as `ckpt_{000..359}` or `step{0,1,2,1000..143000..1000}`.

    As in a shell, numbers in braces are padded with zeros to the width of the ends where one of
    them is. Several braces give every combination, the last varying fastest. Raises ValueError.
    """
    pieces = BRACES.split(pattern)
    if any(brace in piece for piece in pieces[::2] for brace in "{}"):
        raise ValueError(f"{pattern!r}: a brace is not closed")
    choices = [[piece] if i % 2 == 0 else _written(piece) for i, piece in enumerate(pieces)]
    size = 1
    for choice in choices:
        size *= len(choice)
        if size > LONGEST:
            raise ValueError(f"{pattern!r} stands for more than {LONGEST:,} names")
    return ["".join(parts) for parts in itertools.product(*choices)]


def _written(text: str) -> list[str]:
    found: list[str] = []
    for item in text.split(","):
        match = ITEM.fullmatch(item.strip())
        if match is None:
            raise ValueError(f"{text!r}: expected numbers such as 0,1,4..512 or 0..1000..100")
        first, last, step = match["first"], match["last"] or match["first"], int(match["step"] or 1)
        if step == 0 or int(last) < int(first):
            raise ValueError(f"{text!r}: expected a range that ascends by 1 or more, found {item.strip()}")
        between = range(int(first), int(last) + 1, step)
        if len(found) + len(between) > LONGEST:
            raise ValueError(f"{text!r} holds more than {LONGEST:,} numbers")
        padded = any(len(end) > 1 and end.startswith("0") for end in (first, last))
        width = max(len(first), len(last)) if padded else 0
        found += [f"{number:0{width}d}" for number in between]
    return found
