"""Discovery: which branches of a repository are checkpoints, in which order, and what is missing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from analysis360.errors import SeriesError
from analysis360.series.ranges import names
from analysis360.series.records import Revisions

LONGEST_NAME = 100
MOST_REPEATS = 4
MOST_CHOICES = 4
DEEPEST = 8
SHOWN = 6
DIGITS = re.compile(r"[0-9]+")
NUMBER = re.compile(r"[0-9]{1,18}")
Labels = dict[str, int]
Key = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Found:
    """A branch that holds a checkpoint."""

    name: str
    """Name of the checkpoint: that of its branch; where `main` stands in, the name the branch would have."""
    branch: str
    """Branch to read."""
    revision: str
    """Commit SHA of the branch."""
    labels: Labels
    """Values of the groups of the rule; a group that the name lacks is left out."""


@dataclass(frozen=True)
class Listing:
    """The checkpoints of a repository, and how they differ from what was expected."""

    found: tuple[Found, ...]
    """In series order."""
    missing: tuple[str, ...] = ()
    """Names that were expected and are not there, in the order they were expected."""
    surplus: tuple[str, ...] = ()
    """Names that are there and were not expected, in series order. They are in `found` too."""
    duplicates: tuple[tuple[str, ...], ...] = ()
    """Branches of the same labels; the first of each is used."""
    other: tuple[str, ...] = ()
    """Branches that are no checkpoints by the rule, sorted."""
    expected: int | None = None
    """Checkpoints expected; None when that is not known."""
    names: tuple[str, ...] = ()
    """Names expected, in order."""

    def notes(self) -> list[str]:
        """One line for everything a reader should know; none when all is as expected."""
        notes = []
        if self.missing:
            what = f"{len(self.missing)} of {self.expected} expected checkpoints are not listed"
            notes.append(f"{what}: {_runs(self.missing, self.names)}")
        if self.surplus:
            what = f"{len(self.surplus)} checkpoints are listed that were not expected"
            notes.append(f"{what}: {_runs(self.surplus, [found.name for found in self.found])}")
        if self.expected not in (None, len(self.found)) and not (self.missing or self.surplus):
            notes.append(f"{len(self.found)} checkpoints are listed; {self.expected} were expected")
        notes += [
            f"branches {', '.join(same)} are one checkpoint by their numbers; {same[0]} is used"
            for same in self.duplicates
        ]
        notes += [f"{f.name} is read from {f.branch}" for f in self.found if f.name != f.branch]
        if other := [name for name in self.other if name != "main"]:
            notes.append(f"{len(other)} branches are no checkpoints of this series: {_few(other)}")
        return notes


def discover(branches: Mapping[str, str], rule: Revisions) -> Listing:
    """The checkpoints among `branches`, name to commit SHA, by the rule of a manifest.

    With an empty rule the branches of the most common form count, and where no name has a number
    `main` alone; a rule without groups names one branch. Nothing is guessed over: what is missing,
    surplus, named twice or no checkpoint is reported. Raises SeriesError where the rule is malformed.
    """
    if rule.single:
        return _single(branches, rule.revision or "main")
    pattern = compiled(rule.revision or pattern_of(branches))
    if not pattern.groupindex:
        return _single(branches, rule.revision or "main")
    expected = _expected(rule, pattern)
    labelled = _labelled(branches, pattern, expected)
    found = [Found(same[0], same[0], branches[same[0]], dict(key)) for key, same in labelled.items()]
    found += _stand_in(branches, rule, labelled, expected)
    groups = rule.order or tuple(pattern.groupindex)
    found.sort(key=lambda item: tuple(item.labels.get(group, -1) for group in groups))
    there = {_key(item.labels) for item in found}
    used = {name for same in labelled.values() for name in same} | {item.branch for item in found}
    named = isinstance(rule.expected, tuple)
    return Listing(
        found=tuple(found),
        missing=tuple(name for key, name in expected.items() if key not in there),
        surplus=tuple(item.name for item in found if named and _key(item.labels) not in expected),
        duplicates=tuple(tuple(same) for same in labelled.values() if len(same) > 1),
        other=tuple(sorted(branches.keys() - used)),
        expected=len(expected) if isinstance(rule.expected, tuple) else rule.expected,
        names=tuple(expected.values()),
    )


def compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression of branch names, once it is known to match in little time.

    Repeats stand behind single characters, classes or groups without repeats of their own; there
    are no more than four open ones and four choices, and nothing looks around or back. Raises SeriesError.
    """
    try:
        tree = parser.parse(pattern)
        repeats, choices = _weigh(tree)
    except (re.error, RecursionError, OverflowError) as error:
        raise SeriesError(f"{pattern!r} is no regular expression: {error}") from None
    if repeats > MOST_REPEATS or choices > MOST_CHOICES:
        found = f"found {repeats} and {choices}"
        allowed = f"at most {MOST_REPEATS} open repeats and {MOST_CHOICES} choices"
        raise SeriesError(f"{pattern!r}: expected {allowed}, {found}")
    return re.compile(pattern)


def labels_of(name: str, pattern: re.Pattern[str]) -> Labels | None:
    """Numbers of the named groups where the whole name fits; groups that take no part are left out."""
    match = pattern.fullmatch(name) if len(name) <= LONGEST_NAME else None
    if match is None:
        return None
    values = {group: value for group, value in match.groupdict().items() if value}
    if not all(NUMBER.fullmatch(value) for value in values.values()):
        return None
    return {group: int(value) for group, value in values.items()}


def pattern_of(branches: Iterable[str]) -> str:
    """A rule for the most common form of branch names: those that differ in their numbers alone.

    The numbers that differ are groups: `index` where there is one, otherwise `n1`, `n2`, ... from
    the left. Empty where no name has a number.
    """
    forms: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in branches:
        if DIGITS.search(name) and len(name) <= LONGEST_NAME:
            forms[tuple(DIGITS.split(name))].append(name)
    if not forms:
        return ""
    texts, same = min(forms.items(), key=lambda item: (-len(item[1]), item[0]))
    columns = [set(column) for column in zip(*(DIGITS.findall(name) for name in same), strict=True)]
    differ = [i for i, column in enumerate(columns) if len(column) > 1] or [len(columns) - 1]
    differ = differ[:MOST_REPEATS]
    groups = {i: "index" if len(differ) == 1 else f"n{n}" for n, i in enumerate(differ, 1)}
    pieces = [re.escape(texts[0])]
    for i, column in enumerate(columns):
        pieces.append(f"(?P<{groups[i]}>[0-9]+)" if i in groups else min(column))
        pieces.append(re.escape(texts[i + 1]))
    return "".join(pieces)


def expected_names(rule: Revisions) -> list[str]:
    """Names of the branches that should be there. Raises SeriesError for a malformed pattern."""
    patterns = rule.expected if isinstance(rule.expected, tuple) else ()
    try:
        return [name for pattern in patterns for name in names(pattern)]
    except ValueError as error:
        raise SeriesError(f"expected: {error}") from None


def _expected(rule: Revisions, pattern: re.Pattern[str]) -> dict[Key, str]:
    expected: dict[Key, str] = {}
    for name in expected_names(rule):
        labels = labels_of(name, pattern)
        if labels is None:
            raise SeriesError(f"expected: {name!r} does not fit the rule {pattern.pattern!r}")
        expected.setdefault(_key(labels), name)
    return expected


def _labelled(
    branches: Iterable[str], pattern: re.Pattern[str], expected: Mapping[Key, str]
) -> dict[Key, list[str]]:
    """Branches by their labels; of several the expected name comes first."""
    labelled: dict[Key, list[str]] = defaultdict(list)
    for name in branches:
        if (labels := labels_of(name, pattern)) is not None:
            labelled[_key(labels)].append(name)
    for key, same in labelled.items():
        same.sort(key=lambda name: (name != expected.get(key), name))
    return labelled


def _stand_in(
    branches: Mapping[str, str], rule: Revisions, labelled: Mapping[Key, object], expected: Mapping[Key, str]
) -> list[Found]:
    """The checkpoint that only `main` carries."""
    if rule.main is None or "main" not in branches or _key(rule.main) in labelled:
        return []
    name = expected.get(_key(rule.main), "main")
    return [Found(name, "main", branches["main"], dict(rule.main))]


def _single(branches: Mapping[str, str], branch: str) -> Listing:
    other = tuple(sorted(name for name in branches if name != branch))
    if branch not in branches:
        return Listing((), (branch,), other=other, expected=1, names=(branch,))
    return Listing((Found(branch, branch, branches[branch], {}),), other=other, expected=1)


def _key(labels: Mapping[str, int]) -> Key:
    return tuple(sorted(labels.items()))


def _weigh(tree: Any, depth: int = 0) -> tuple[int, int]:
    """(open repeats, choices) of a parsed expression. Raises re.error for what may match slowly."""
    repeats = choices = 0
    if depth > DEEPEST:
        raise re.error("groups nested too deeply")
    for code, argument in tree:
        inner: list[Any] = []
        if code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            least, most, body = argument
            inner = [body]
            if most > 1 and any(_weigh(body, depth + 1)):
                raise re.error("a repeat inside a repeat")
            repeats += most == codes.MAXREPEAT
            choices += most == least + 1
            repeats += codes.MAXREPEAT > most > least + 1
        elif code is codes.SUBPATTERN:
            inner = [argument[-1]]
        elif code is codes.BRANCH:
            inner = list(argument[1])
            choices += len(inner) - 1
        elif code not in (codes.LITERAL, codes.NOT_LITERAL, codes.ANY, codes.IN, codes.AT):
            raise re.error("expected characters, classes, groups, choices and repeats alone")
        for body in inner:
            more_repeats, more_choices = _weigh(body, depth + 1)
            repeats, choices = repeats + more_repeats, choices + more_choices
    return repeats, choices


def _runs(chosen: Sequence[str], order: Sequence[str]) -> str:
    """Names, neighbours in the order joined: `a to c, e, and 3 more`."""
    place = {name: i for i, name in enumerate(order)}
    runs: list[list[str]] = []
    for name in chosen:
        if runs and place[name] == place[runs[-1][-1]] + 1:
            runs[-1].append(name)
        else:
            runs.append([name])
    shown = [run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs[:SHOWN]]
    rest = sum(len(run) for run in runs[SHOWN:])
    return ", ".join(shown) + (f", and {rest} more" if rest else "")


def _few(chosen: Sequence[str]) -> str:
    rest = len(chosen) - SHOWN
    return ", ".join(chosen[:SHOWN]) + (f", and {rest} more" if rest > 0 else "")
