"""What one commit does to the files of a branch."""

from __future__ import annotations

from dataclasses import dataclass, field

from analysis360.loopback.content import File
from analysis360.loopback.refusals import bad_request, no_entry

__all__ = ["Change", "applied"]


@dataclass
class Change:
    """A commit as it was asked for."""

    title: str
    message: str
    author: str
    added: dict[str, File] = field(default_factory=dict)
    """Files by path, in place of what was there."""
    deleted: list[str] = field(default_factory=list)
    """Paths of files, and of folders with a `/` at the end, removed before anything is added."""


def applied(change: Change, files: dict[str, File], commit: str) -> dict[str, File]:
    """The files after a change, in order of path.

    Raises RefusedError: 404 for a file or folder to delete that `commit` has not, 400 where a path would be
    both file and folder.
    """
    for path in change.deleted:
        doomed = [name for name in files if name.startswith(path)] if path.endswith("/") else [path]
        if not doomed or doomed[0] not in files:
            kind = "folder" if path.endswith("/") else "file"
            refusal = no_entry(path, commit)
            refusal.message = f"A {kind} with this name doesn't exist: {path}"
            raise refusal
        for name in doomed:
            del files[name]
    files |= change.added
    for path in change.added:
        folder = path
        while "/" in folder:
            folder = folder.rpartition("/")[0]
            if folder in files:
                raise bad_request(f"{folder} is a file and cannot hold {path}")
    folders = {f"{path}/" for path in change.added}
    for path in files:
        while "/" in path:
            path = path.rpartition("/")[0]
            if f"{path}/" in folders:
                raise bad_request(f"{path} is a folder and cannot be a file")
    return dict(sorted(files.items()))
