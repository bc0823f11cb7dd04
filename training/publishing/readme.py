"""README.md of a repository: its YAML head, and our part of it between two marks that a person may write around."""

import json
import re
from collections.abc import Sequence

__all__ = ["BEGIN", "END", "brought_up_to_date", "head", "scalar"]

BEGIN = "<!-- analysis360: begin (what stands between the two marks is written anew by every publish) -->"
END = "<!-- analysis360: end -->"
MARK = re.compile(r"<!-- analysis360: (begin|end)\b[^>]*-->")
HEAD = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?$\n?", re.DOTALL | re.MULTILINE)
LICENSE = re.compile(r"^license:.*\n(?:[ \t-].*\n)*", re.MULTILINE)


def scalar(text: str) -> str:
    """A string in YAML, whatever is in it."""
    return json.dumps(text, ensure_ascii=False)


def head(license: str | None, lines: Sequence[str]) -> str:
    """A YAML head. The license is in it only where one was given."""
    return "\n".join(["---", *([f"license: {scalar(license)}"] if license else []), *lines, "---", ""])


def brought_up_to_date(
    old: str | None, new_head: str, title: str, body: str, license: str | None
) -> str | None:
    """The whole README.md: a new one, or the old one with our part replaced and the license set if one is given.

    None for one that has not our marks, once and in order: it was written by hand and stays as it is.
    """
    ours = f"{BEGIN}\n\n{body.strip()}\n\n{END}"
    if old is None:
        return f"{new_head}\n# {title}\n\n{ours}\n"
    marks = list(MARK.finditer(old))
    if [mark[1] for mark in marks] != ["begin", "end"]:
        return None
    return _with_license(old[: marks[0].start()] + ours + old[marks[1].end() :], license)


def _with_license(text: str, license: str | None) -> str:
    if license is None:
        return text
    found = HEAD.match(text)
    if found is None:
        return head(license, []) + "\n" + text
    line = f"license: {scalar(license)}\n"
    inside = LICENSE.sub(lambda _: line, found[1], count=1) if LICENSE.search(found[1]) else line + found[1]
    return f"---\n{inside}---\n" + text[found.end() :]
