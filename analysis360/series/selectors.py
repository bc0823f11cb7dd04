"""Selectors: text that picks checkpoints or chunks out of an ordered list of names."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Sequence
from typing import SupportsIndex

from analysis360.errors import SelectionError

Selector = str | SupportsIndex | slice | Iterable[str | int]


def select(selector: Selector, names: Sequence[str], *, what: str = "checkpoint") -> list[int]:
    """Positions of the selected `names`, in the order of `names`, each once.

    A selector is a comma-separated list of items. An item is a position (`0`, `-1`), a name
    (`ckpt_100`), or a Python slice whose ends are positions or names (`0:360:36`, `35:360:36`,
    `step1000:step5000`; as in Python the stop is left out). Integers, slices and lists of
    integers and names are taken as they are.

    Raises SelectionError for an unknown name, a position out of range, a malformed item, and an
    empty or reversed slice.
    """
    if not names:
        raise SelectionError(f"no {what} to select from: the series lists none")
    chosen: set[int] = set()
    for item in _items(selector):
        chosen.update(_resolve(item, names, what))
    if not chosen:
        raise SelectionError(
            f"{what} selector {selector!r} is empty; expected for example 0:{len(names)} or -1"
        )
    return sorted(chosen)


def _items(selector: Selector) -> list[str | int | slice]:
    if isinstance(selector, str):
        return [part.strip() for part in selector.split(",")]
    if isinstance(selector, slice):
        return [selector]
    if isinstance(selector, bool):
        raise SelectionError(f"selector {selector!r}: expected a position, a name or a slice")
    if isinstance(selector, SupportsIndex):  # numpy's integers too
        return [operator.index(selector)]
    return list(selector)


def _resolve(item: str | int | slice, names: Sequence[str], what: str) -> Iterable[int]:
    if isinstance(item, slice):
        start, stop = (
            _position(end, names, what, slicing=True) if isinstance(end, str) else end
            for end in (item.start, item.stop)
        )
        return _slice(slice(start, stop, item.step), str(item), names, what)
    if isinstance(item, str) and ":" in item:
        parts = item.split(":")
        if len(parts) > 3:
            raise SelectionError(
                f"{what} selector {item!r}: expected start:stop:step, found {len(parts)} parts"
            )
        start, stop = (_position(part, names, what, slicing=True) if part else None for part in parts[:2])
        step = _integer(parts[2], item, what) if len(parts) == 3 and parts[2] else None
        return _slice(slice(start, stop, step), item, names, what)
    return [_position(item, names, what)]


def _slice(item: slice, shown: str, names: Sequence[str], what: str) -> range:
    if item.step is not None and item.step <= 0:
        raise SelectionError(f"{what} selector {shown!r}: the step must be positive, found {item.step}")
    picked = range(*item.indices(len(names)))
    if not picked:
        raise SelectionError(
            f"{what} selector {shown!r} is empty or reversed: {len(names)} {what}s, {names[0]} to {names[-1]}"
        )
    return picked


def _integer(text: str, shown: str, what: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise SelectionError(f"{what} selector {shown!r}: expected an integer step, found {text!r}") from None


def _position(item: str | int, names: Sequence[str], what: str, *, slicing: bool = False) -> int:
    """The position an item means; inside a slice a position may lie beyond the end, as in Python."""
    text = str(item).strip()
    if text in names:
        return names.index(text)
    try:
        position = int(text)
    except ValueError:
        close = difflib.get_close_matches(text, names, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise SelectionError(
            f"unknown {what} {text!r}: the series has {len(names)}, {names[0]} to {names[-1]}{hint}"
        ) from None
    if slicing:
        return position
    if not -len(names) <= position < len(names):
        raise SelectionError(
            f"{what} {position} is out of range: the series has {len(names)}, 0 to {len(names) - 1}"
        )
    return position % len(names)
