"""Findings: one record for everything that is wrong with a release, or that its reader should know."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Severity = Literal["error", "note"]
Value = TypeVar("Value", bound=Hashable)
SHOWN_RUNS = 6
LONGEST_VALUE = 80


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be (`error`), or that one should know (`note`)."""

    severity: Severity
    kind: str
    """A short stable id, such as `duplicate-weights`."""
    where: str
    """Checkpoint, chunk or file, for people."""
    expected: str
    found: str
    advice: str
    """What to do."""
    names: tuple[str, ...] = ()
    """Every checkpoint or chunk it is about, for programs."""


def runs(chosen: Iterable[str], order: Sequence[str], most: int = SHOWN_RUNS) -> str:
    """Names, those that follow one another in the order joined: `a to c, e, and 3 more`."""
    place = {name: i for i, name in enumerate(order)}
    joined: list[list[str]] = []
    for name in chosen:
        if joined and place.get(name, -1) == place.get(joined[-1][-1], -3) + 1:
            joined[-1].append(name)
        else:
            joined.append([name])
    shown = [run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in joined[:most]]
    rest = sum(len(run) for run in joined[most:])
    return ", ".join(shown) + (f", and {rest} more" if rest else "")


def shown(value: Any) -> str:
    """A value of somebody's config, on one short line and without control characters."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def printable(text: str) -> str:
    """Text from elsewhere, with what could steer a terminal written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def common(values: Iterable[Value]) -> Value:
    """The most common value; of several, the first."""
    return Counter(values).most_common(1)[0][0]


def apart(values: Mapping[str, Value]) -> dict[Value, list[str]]:
    """The names that depart from the most common value, by their value."""
    if not values:
        return {}
    usual = common(values.values())
    found: dict[Value, list[str]] = {}
    for name, value in values.items():
        if value != usual:
            found.setdefault(value, []).append(name)
    return found


def grouped(values: Mapping[str, Value]) -> list[tuple[Value, list[str]]]:
    """Runs of equal values, in order: (value, names)."""
    found: list[tuple[Value, list[str]]] = []
    for name, value in values.items():
        if found and found[-1][0] == value:
            found[-1][1].append(name)
        else:
            found.append((value, [name]))
    return found
