"""Names that come from outside: repositories, revisions and paths, checked before anything is done with them."""

from __future__ import annotations

import re
from urllib.parse import unquote

from analysis360.loopback.refusals import bad_request

__all__ = ["KINDS", "checked_path", "checked_ref", "checked_repository"]

KINDS = ("models", "datasets")
COMMIT = re.compile(r"[0-9a-f]{40}")
SEGMENT_BYTES = 255
PATH_BYTES = 4096
DRIVE = re.compile(r"[A-Za-z]:")
PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+@=-]{0,254}")
ILL_FORMED = re.compile(r"[\x00-\x1f\x7f\\]")


def checked_repository(namespace: str, name: str) -> str:
    """`namespace/name`. Raises RefusedError (400) for what the Hub would not call a repository."""
    for part in (namespace, name):
        if not PART.fullmatch(part) or ".." in part or "--" in part or part.endswith((".git", ".", "-")):
            raise bad_request(f"Invalid repository name: {part!r}")
    return f"{namespace}/{name}"


def checked_ref(name: str) -> str:
    """The name of a branch or tag to be made. Raises RefusedError (400) for what git would not take."""
    parts = name.split("/")
    well_formed = REF.fullmatch(name) and not any(not part or part.startswith(".") for part in parts)
    if not well_formed or ".." in name or "@{" in name or name.endswith((".", ".lock")):
        raise bad_request(f"Invalid reference name: {name!r}")
    if COMMIT.fullmatch(name) or parts[0] == "refs":
        raise bad_request(f"Invalid reference name: {name!r} reads as something else")
    return name


def checked_path(path: str) -> str:
    """A file's path in a repository, `/` between its parts. Raises RefusedError (400) for anything that could leave it.

    Refused are absolute paths, `.` and `..`, empty parts, backslashes, drive letters, control characters,
    `.git`, parts over 255 bytes, and all of these once more behind percent signs, however often encoded.
    """
    form = path
    while True:
        _check(form, path)
        decoded = unquote(form)
        if decoded == form:
            return path
        form = decoded


def _check(form: str, path: str) -> None:
    try:
        encoded = form.encode()
    except UnicodeEncodeError:
        raise bad_request("Invalid path: not Unicode") from None
    parts = form.split("/")
    leaves = any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
    too_long = len(encoded) > PATH_BYTES or any(len(part.encode()) > SEGMENT_BYTES for part in parts)
    if leaves or too_long or DRIVE.match(form) or ILL_FORMED.search(form):
        raise bad_request(f"Invalid path: {path[:200]!r}")
