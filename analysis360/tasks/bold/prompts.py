"""BOLD's prompts: beginnings of sentences of Wikipedia about people, professions, beliefs and ideologies.

Five domains, each a file: as published, `{group: {title: [prompts]}}` (github.com/amazon-science/bold), or rows
of `category`, `name` and `prompts`, as on the Hub (`AmazonScience/bold`). A title is the page that a prompt is
from. A prompt may stand under several titles, groups and domains; it is asked once. Five of them are empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from analysis360.digests import counter_seed, digest_of
from analysis360.errors import DataError, SelectionError
from analysis360.places import Place

HUB = "AmazonScience/bold"
DOMAINS = ("gender", "race", "religious_ideology", "political_ideology", "profession")
SUFFIXES = (".json", ".jsonl")


class Line(NamedTuple):
    """A prompt under one title of one group."""

    domain: str
    group: str
    title: str
    prompt: str


@dataclass(frozen=True)
class Distinct:
    """The distinct prompts of exactly these parts, in the order in which a limit takes them."""

    parts: tuple[str, ...]
    """The domains, or groups, that they belong to (see `Prompts.apart`)."""
    prompts: tuple[str, ...]
    ranks: tuple[int, ...]
    """[prompts] the smallest place of each in the order of one of its groups: it never falls from one to the next."""

    def first(self, limit: int | None) -> int:
        """How many of them are among the first `limit` prompts of some group."""
        return len(self.prompts) if limit is None else sum(rank < limit for rank in self.ranks)

    @property
    def name(self) -> str:
        """The parts, joined by `+`."""
        return "+".join(self.parts)


@dataclass(frozen=True)
class Prompts:
    """All prompts, as published."""

    lines: tuple[Line, ...]
    """In the order of the files; one that stands twice under a title is there twice, as it is counted."""
    source: str = ""
    """Where they are from, for provenance."""
    apart: Literal["domain", "group"] = "domain"
    """What may be asked about alone: its prompts are continued as they are among others."""

    @cached_property
    def digest(self) -> str:
        """Their content."""
        return digest_of(self.lines)

    def of(self, parts: Iterable[str], limit: int | None = None) -> list[Line]:
        """The lines of some parts (`apart`), or of each of their groups the first `limit`."""
        chosen = set(parts)
        return [
            line
            for line, rank in zip(self.lines, self.ranks, strict=True)
            if getattr(line, self.apart) in chosen and (limit is None or rank < limit)
        ]

    @cached_property
    def ranks(self) -> list[int]:
        """[lines] the place of each in its group: the first prompts of all titles, then the second ones, and so on.

        Titles are in an order of their own, which is not the alphabet's, so that few prompts are of many pages.
        """
        groups: dict[tuple[str, str], dict[str, list[int]]] = {}
        for i, line in enumerate(self.lines):
            groups.setdefault(line[:2], {}).setdefault(line.title, []).append(i)
        found = [0] * len(self.lines)
        for titles in groups.values():
            places = sorted(
                (nth, counter_seed(title), title, i)
                for title, some in titles.items()
                for nth, i in enumerate(some)
            )
            for rank, (*_, i) in enumerate(places):
                found[i] = rank
        return found

    def distinct(self) -> list[Distinct]:
        """Every prompt once, by the parts that it belongs to (`apart`), so that these share what is in several."""
        parts: dict[str, set[str]] = {}
        least: dict[str, int] = {}
        for line, rank in zip(self.lines, self.ranks, strict=True):
            parts.setdefault(line.prompt, set()).add(getattr(line, self.apart))
            least[line.prompt] = min(rank, least.get(line.prompt, rank))
        alike: dict[tuple[str, ...], list[tuple[int, int, str]]] = {}
        for place, (prompt, found) in enumerate(parts.items()):
            alike.setdefault(tuple(sorted(found, key=_order)), []).append((least[prompt], place, prompt))
        return [
            Distinct(of, tuple(prompt for *_, prompt in some), tuple(rank for rank, *_ in some))
            for of, some in ((of, sorted(some)) for of, some in sorted(alike.items()))
        ]


def _order(domain: str) -> tuple[int, str]:
    return (DOMAINS.index(domain) if domain in DOMAINS else len(DOMAINS)), domain


def checked_domains(asked: str | Sequence[str]) -> tuple[str, ...]:
    """`all`, or names of domains parted by commas, in BOLD's order. Raises SelectionError."""
    names = [name.strip() for name in asked.split(",")] if isinstance(asked, str) else list(asked)
    if names == ["all"]:
        return DOMAINS
    for name in names:
        if name not in DOMAINS:
            raise SelectionError(f"domain {name!r}: expected all, or some of {', '.join(DOMAINS)}")
    return tuple(domain for domain in DOMAINS if domain in names)


def read_prompts(place: Place) -> Prompts:
    """The files `<domain>_prompt*.json` of a place; any of the five may be missing. Raises DataError."""
    lines: list[Line] = []
    for domain in DOMAINS:
        for name in place.names():
            file = name.rpartition("/")[2]
            if file.startswith(f"{domain}_prompt") and file.endswith(SUFFIXES):
                lines += parse(place.read(name), domain, f"{place.where}/{name}")
                break
    if not lines:
        expected = ", ".join(f"{domain}_prompt.json" for domain in DOMAINS)
        raise DataError(f"{place.where}: no prompts of BOLD: expected some of {expected}")
    return Prompts(tuple(lines), place.where)


def parse(content: bytes, domain: str, where: str) -> list[Line]:
    """The lines of a domain's file, in either form. Raises DataError."""
    try:
        found = list(_lines(content.decode(), domain))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{where}: expected {{group: {{title: [prompts]}}}}, or rows of category, name and prompts: "
            f"{type(error).__name__}: {error}"
        ) from None
    return found


def _lines(text: str, domain: str) -> Iterator[Line]:
    if not text.strip():
        raise ValueError("the file is empty")
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:  # a row a line
        whole = [json.loads(line) for line in text.split("\n") if line.strip()]
    if isinstance(whole, dict) and isinstance(whole.get("prompts"), list):
        whole = [whole]
    if isinstance(whole, dict):
        whole = [
            {"category": group, "name": title, "prompts": prompts}
            for group, titles in whole.items()
            for title, prompts in titles.items()
        ]
    for row in whole:
        if not isinstance(row["prompts"], list):
            raise TypeError(f"prompts are {row['prompts']!r}")
        for prompt in row["prompts"]:
            yield Line(domain, _text(row["category"]), _text(row["name"]), _text(prompt))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
