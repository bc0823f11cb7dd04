"""Texts without the names of those they are about, as the BOLD paper scores them (section 3.3).

People become "Person"; professions, religions and ideologies "XYZ". The paper does not list what it replaced: here
it is the prompts' own titles, the names in them, and the adjectives and followers of these and of the groups' names.
"""

from __future__ import annotations

import re
from functools import lru_cache

from analysis360.tasks.bold.prompts import Line

PERSON, OTHER = "Person", "XYZ"
PEOPLE = ("gender", "race")
BESIDE_NAME = re.compile(r"\s*\([^)]*\)|,.*$")
"""What a title has beside a name: `(actor)`, `, Jr.`"""
INITIAL = re.compile(r"[A-Z]\.?|Jr\.?|Sr\.?|I{2,3}|IV")
IDEA = re.compile(r"is[mt]s?$")
NO_IDEAS = ("terrorism", "criticism", "list")
"""Words of titles that end as ideas do and name none: what a text says with them is no name to be taken away."""
FORMS: dict[str, str] = {
    "judaism": "judaism judaic jewish jewishness jew jews",
    "christianity": "christianity christian christians christendom",
    "islam": "islam islamic islamism islamist islamists muslim muslims moslem moslems",
    "hinduism": "hinduism hindu hindus",
    "buddhism": "buddhism buddhist buddhists",
    "sikhism": "sikhism sikh sikhs",
    "atheism": "atheism atheist atheists atheistic",
    "left-wing": "left-wing leftist leftists leftism",
    "right-wing": "right-wing rightist rightists rightism",
    "democracy": "democracy democracies democratic democrat democrats",
    "liberalism": "liberalism liberal liberals",
    "conservatism": "conservatism conservative conservatives",
    "anarchism": "anarchism anarchist anarchists anarchistic anarchy",
}
"""Words of groups whose name does not simply end in -ism, -ist, -ists."""


def anonymous(line: Line, text: str) -> str:
    """A text about the prompt's title and group, without their names."""
    pattern = _person(line.title) if line.domain in PEOPLE else _subject(line.domain, line.group, line.title)
    return text if pattern is None else pattern.sub(PERSON if line.domain in PEOPLE else OTHER, text)


@lru_cache(maxsize=16384)
def _person(title: str) -> re.Pattern[str] | None:
    """Any run of the words of a name, as written or all in capitals, with initials and particles between them."""
    words = [word for word in BESIDE_NAME.sub("", title.replace("_", " ")).split() if word[0].isalpha()]
    names = {word for word in words if word[0].isupper() and not INITIAL.fullmatch(word)}
    if not names:
        return None
    name = _either({*names, *(word.upper() for word in names)})
    between = _either({form for word in set(words) - names for form in (word, word.capitalize())})
    return re.compile(rf"(?<!\w){name}(?:\s+(?:(?:[A-Z]\.?|{between})\s+)*{name})*(?!\w)")


def _either(words: set[str]) -> str:
    """A pattern of any of the words, the longest first; of none that matches nothing."""
    return f"(?:{'|'.join(re.escape(word) for word in sorted(words, key=lambda w: (-len(w), w))) or '(?!)'})"


@lru_cache(maxsize=16384)
def _subject(domain: str, group: str, title: str) -> re.Pattern[str] | None:
    """The title, and what names its subject: of a profession the last word, of ideas also those of their group.

    Where the subject is looked at somewhere (`Nursing_in_Kenya`, `Buddhism_by_country`) the place names nothing.
    Plurals too.
    """
    phrase = BESIDE_NAME.sub("", title.replace("_", " ")).strip().lower()
    words = re.split(r"\s(?:in|by)\s", phrase)[0].split()
    if domain == "profession":
        found = {phrase, *words[-1:]}
    else:
        ideas = [word for word in words if word in FORMS or (IDEA.search(word) and word not in NO_IDEAS)]
        found = {phrase} | {form for word in (group, *ideas) for form in _forms(word)}
    found.discard("")
    if not found:
        return None
    spaced = _either(found).replace(r"\ ", r"\s+")
    return re.compile(rf"(?<!\w){spaced}(?:s|es)?(?!\w)", re.IGNORECASE)


def _forms(word: str) -> list[str]:
    if word in FORMS:
        return FORMS[word].split()
    if word.endswith("ism") and " " not in word:
        return [word.removesuffix("ism") + end for end in ("ism", "isms", "ist", "ists", "istic")]
    return [word]
