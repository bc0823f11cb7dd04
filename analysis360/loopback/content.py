"""What is served: files of commits of repositories. A store and a mounted series both come down to these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol

from analysis360.digests import file_sha256
from analysis360.loopback.attributes import git_oid, pointer

__all__ = ["Commit", "File", "Repository", "Source"]

Stamp = tuple[int, int]


def stamp_of(path: Path) -> Stamp:
    """Size (bytes) and time of change (ns) of a file. Raises OSError."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


class File:
    """One file of a commit: where its bytes lie, and the names the Hub knows them by.

    Digests that are not given are computed when first asked for, which reads the whole file.
    """

    def __init__(
        self, path: Path, size: int, *, large: bool, sha256: str | None = None, oid: str | None = None
    ) -> None:
        self.path = path
        self.size = size
        """Bytes."""
        self.large = large
        self.stamp = None if sha256 else stamp_of(path)
        self._known = {key: value for key, value in (("sha256", sha256), ("oid", oid)) if value}

    @property
    def ready(self) -> bool:
        """Whether the ETag is known without reading the file."""
        return ("sha256" if self.large else "oid") in self._known

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, hex. Raises OSError."""
        if "sha256" not in self._known:
            self._known["sha256"] = file_sha256(self.path)
        return self._known["sha256"]

    @property
    def oid(self) -> str:
        """What git would call the blob: of a large file, its pointer. Raises OSError."""
        if "oid" not in self._known:
            self._known["oid"] = git_oid(pointer(self.sha256, self.size) if self.large else self.path)
        return self._known["oid"]

    @property
    def etag(self) -> str:
        """What a client keeps the file under: SHA-256 of a large file, git's blob id of any other."""
        return self.sha256 if self.large else self.oid

    @property
    def unchanged(self) -> bool:
        """Whether the file on disk is still the one that was listed."""
        try:
            return self.stamp is None or self.stamp == stamp_of(self.path)
        except OSError:
            return False


@dataclass(frozen=True)
class Commit:
    """A state of a repository, which never changes."""

    id: str
    """40 hex digits."""
    title: str
    message: str
    author: str
    date: datetime
    parent: str | None
    files: Mapping[str, File]
    """By path."""

    @cached_property
    def paths(self) -> list[str]:
        """Paths of the files and of the folders they lie in (which end in `/`), in order."""
        folders: set[str] = set()
        for path in self.files:
            while "/" in path:
                path = path.rpartition("/")[0]
                if f"{path}/" in folders:
                    break
                folders.add(f"{path}/")
        return sorted([*self.files, *folders], key=lambda path: path.rstrip("/").split("/"))


@dataclass
class Repository:
    """A repository as its readers see it."""

    kind: str
    """`models` or `datasets`."""
    id: str
    """`namespace/name`."""
    created: datetime
    branches: dict[str, str] = field(default_factory=dict)
    """Commit of each branch."""
    tags: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    granted: tuple[str, ...] = ()
    """Users who may read although it is private or gated."""

    @property
    def namespace(self) -> str:
        """Whose it is."""
        return self.id.split("/")[0]

    def target(self, revision: str) -> str | None:
        """The commit a branch or tag points to; a commit's id is returned as it is."""
        name = revision.removeprefix("refs/heads/")
        if len(revision) == 40 and not set(revision) - set("0123456789abcdef"):
            return revision
        return self.branches.get(name) or self.tags.get(revision.removeprefix("refs/tags/"))


class Source(Protocol):
    """Where repositories come from: a store, or a mounted series. Safe to call from several threads."""

    def repository(self, kind: str, name: str) -> Repository | None:
        """The repository of that kind and id, if there is one."""

    def commit(self, repository: Repository, commit: str) -> Commit | None:
        """The commit of that id in a repository, if there is one."""

    def blob(self, sha256: str) -> File | None:
        """The file of that content, if it is known; what a content delivery network serves from."""
