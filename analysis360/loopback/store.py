"""The store: repositories in a folder, kept as they were when the server comes back.

    hub.json                              says that the folder is a store
    blobs/ab/abcd...                      contents, by SHA-256
    models/org/name/repository.json       who may read; branches and tags
    models/org/name/commits/<id>.json     what each path was; never changed
    incoming/                             uploads that are not finished

A branch is moved by replacing `repository.json` after blobs and commit are in place, so a server that is
killed at any moment leaves the last complete state.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from analysis360.errors import SeriesError
from analysis360.loopback.attributes import GITATTRIBUTES
from analysis360.loopback.blobs import Blobs, write_whole
from analysis360.loopback.content import Commit, File, Repository
from analysis360.loopback.names import KINDS
from analysis360.loopback.operations import Change, applied
from analysis360.loopback.records import (
    commit_id,
    commit_record,
    read_commit,
    read_repository,
    repository_record,
)
from analysis360.loopback.refusals import RefusedError, bad_request, no_revision

__all__ = ["Store"]

MARK = "hub.json"


class Store:
    """Repositories that can be written. One process at a time may hold the folder."""

    def __init__(self, folder: Path) -> None:
        """Open or make a store. Raises SeriesError for a folder that holds something else, or is in use."""
        if folder.exists() and not (folder / MARK).is_file() and any(folder.iterdir()):
            raise SeriesError(
                f"{folder}: expected a series, a store or an empty folder, found other files; choose another folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self._held = _hold(folder)
        self._folder = folder
        self._lock = threading.RLock()
        if not (folder / MARK).exists():
            write_whole(folder / MARK, b'{"store": 1}\n')
        self.blobs = Blobs(folder)
        self._repositories = {
            (kind, repository.id): repository
            for kind in KINDS
            for file in sorted(folder.glob(f"{kind}/*/*/repository.json"))
            for repository in [read_repository(file.read_bytes())]
        }
        self._read_commit = lru_cache(maxsize=512)(self._commit_of)

    def close(self) -> None:
        """Let another process open the folder."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def repository(self, kind: str, name: str) -> Repository | None:
        """See `Source`."""
        return self._repositories.get((kind, name))

    def names(self, kind: str) -> list[str]:
        """Ids of the repositories of a kind."""
        return sorted(name for of, name in self._repositories if of == kind)

    def commit(self, repository: Repository, commit: str) -> Commit | None:
        """See `Source`."""
        return self._read_commit(repository.kind, repository.id, commit)

    def blob(self, sha256: str) -> File | None:
        """See `Source`."""
        size = self.blobs.size(sha256)
        return None if size is None else File(self.blobs.path(sha256), size, large=True, sha256=sha256)

    def create(self, kind: str, name: str, *, private: bool = False, author: str = "local") -> Repository:
        """A new repository whose `main` holds `.gitattributes`. Raises RefusedError (409) where it exists."""
        with self._lock:
            if (kind, name) in self._repositories:
                raise RefusedError(409, "You already created this repository")
            repository = Repository(kind, name, datetime.now(UTC), private=private)
            change = Change("initial commit", "", author, {".gitattributes": self.plain(GITATTRIBUTES)})
            repository.branches["main"] = self._write_commit(repository, change, None).id
            self._save(repository)
            self._repositories[kind, name] = repository
            return repository

    def plain(self, content: bytes) -> File:
        """Keep the content of a small file, for a commit."""
        sha256 = self.blobs.put(content)
        return File(self.blobs.path(sha256), len(content), large=False, sha256=sha256)

    def apply(self, repository: Repository, branch: str, change: Change, parent: str | None = None) -> Commit:
        """Commit on top of a branch. Raises RefusedError: 404 for no such branch, 412 if it is not at `parent`."""
        with self._lock:
            head = repository.branches.get(branch)
            if head is None:
                raise no_revision(branch)
            if parent is not None and parent != head:
                raise RefusedError(
                    412, f"A commit has happened since: {branch} is at {head}, not at {parent}"
                )
            commit = self._write_commit(repository, change, head)
            repository.branches[branch] = commit.id
            self._save(repository)
            return commit

    def point(self, repository: Repository, name: str, revision: str, *, tag: bool = False) -> None:
        """A new branch or tag. Raises RefusedError: 409 where it exists, 404 for no such revision."""
        with self._lock:
            refs = repository.tags if tag else repository.branches
            if name in refs:
                raise RefusedError(409, f"Reference {name} exists already")
            target = repository.target(revision)
            if target is None or self.commit(repository, target) is None:
                raise no_revision(revision)
            refs[name] = target
            self._save(repository)

    def unpoint(self, repository: Repository, name: str, *, tag: bool = False) -> None:
        """Remove a branch or tag; its commits stay. Raises RefusedError (404; 400 for `main`)."""
        with self._lock:
            if name == "main" and not tag:
                raise bad_request("Cannot delete the default branch")
            if (repository.tags if tag else repository.branches).pop(name, None) is None:
                raise no_revision(name)
            self._save(repository)

    def admit(
        self,
        repository: Repository,
        *,
        private: bool | None = None,
        gated: bool | None = None,
        granted: Sequence[str] | None = None,
    ) -> None:
        """Change who may read a repository; what is None stays."""
        with self._lock:
            repository.private = repository.private if private is None else private
            repository.gated = repository.gated if gated is None else gated
            repository.granted = repository.granted if granted is None else tuple(granted)
            self._save(repository)

    def _write_commit(self, repository: Repository, change: Change, parent: str | None) -> Commit:
        before = self.commit(repository, parent) if parent else None
        files = applied(change, dict(before.files) if before else {}, parent or "")
        date = datetime.now(UTC)
        name = commit_id(parent or "", change.title, change.message, date.isoformat(), files=files)
        commit = Commit(name, change.title, change.message, change.author, date, parent, files)
        write_whole(self._commit_path(repository.kind, repository.id, name), commit_record(commit))
        return commit

    def _commit_path(self, kind: str, name: str, commit: str) -> Path:
        return self._folder / kind / name / "commits" / f"{commit}.json"

    def _commit_of(self, kind: str, name: str, commit: str) -> Commit | None:
        path = self._commit_path(kind, name, commit)
        return read_commit(path.read_bytes(), self.blobs) if path.exists() else None

    def _save(self, repository: Repository) -> None:
        path = self._folder / repository.kind / repository.id / "repository.json"
        write_whole(path, repository_record(repository))


def _hold(folder: Path) -> int:
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise SeriesError(
            f"{folder}: another server holds this store; end it, or choose another folder"
        ) from None
    return held
