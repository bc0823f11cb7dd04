"""README.md of a repository: its YAML head, and our part of it between two marks that a person may write around."""

import re
from collections.abc import Sequence

from training.errors import TrainingError

__all__ = ["BEGIN", "END", "brought_up_to_date", "check_license", "head"]

BEGIN = "<!-- analysis360: begin (what stands between the two marks is written anew by every publish) -->"
END = "<!-- analysis360: end -->"
OURS = re.compile(r"<!-- analysis360: begin\b[^>]*-->.*?<!-- analysis360: end -->", re.DOTALL)
HEAD = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?$\n?", re.DOTALL | re.MULTILINE)
LICENSE = re.compile(r"^license:.*\n(?:[ \t-].*\n)*", re.MULTILINE)


def check_license(license: str | None) -> None:
    """Refuse what cannot be the id of a license; which ids there are, the Hub knows."""
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        expected, fix = "an id of the Hub", "give one such as apache-2.0, or leave it out"
        raise TrainingError("--license", expected=expected, found=repr(license), fix=fix)


def head(license: str | None, lines: Sequence[str]) -> str:
    """A YAML head. The license is in it only where one was given."""
    return "\n".join(["---", *([f"license: {license}"] if license else []), *lines, "---", ""])


def brought_up_to_date(
    old: str | None, new_head: str, title: str, body: str, license: str | None
) -> str | None:
    """The whole README.md: a new one, or the old one with our part replaced and the license set if one is given.

    None for one that has not our marks, once and in order: it was written by hand and stays as it is.
    """
    ours = f"{BEGIN}\n\n{body.strip()}\n\n{END}"
    if old is None:
        return f"{new_head}\n# {title}\n\n{ours}\n"
    marked = OURS.findall(old)
    if len(marked) != 1:
        return None
    before, after = old.split(marked[0])
    return _with_license(before + ours + after, license)


def _with_license(text: str, license: str | None) -> str:
    if license is None:
        return text
    found = HEAD.match(text)
    if found is None:
        return head(license, []) + "\n" + text
    line = f"license: {license}\n"
    inside = LICENSE.sub(line, found[1], count=1) if LICENSE.search(found[1]) else line + found[1]
    return f"---\n{inside}---\n" + text[found.end() :]
