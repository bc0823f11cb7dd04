"""What `publish` is asked with, checked before anything is read or sent."""

import re

from training.errors import TrainingError

__all__ = ["check_license", "check_repository"]


def check_repository(name: str) -> None:
    """Refuse what cannot be a repository of a Hub, nor be one with `-data` after it (96 characters at most)."""
    if not re.fullmatch(r"(?!.*(?:--|\.\.))\w[\w.-]*/\w(?:[\w.-]{0,89}\w)?", name, re.ASCII):
        fix = "give --to org/name"
        raise TrainingError("--to", expected="an organisation and a name", found=repr(name), fix=fix)


def check_license(license: str | None) -> None:
    """Refuse what cannot be the id of a license; which ids there are, the Hub knows."""
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        expected, fix = "an id of the Hub", "give one such as apache-2.0, or leave it out"
        raise TrainingError("--license", expected=expected, found=repr(license), fix=fix)
