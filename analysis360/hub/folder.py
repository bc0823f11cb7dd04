"""A folder of a pinned commit as a `Place`: listed once, fetched when asked, verified, then local."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
from collections.abc import Collection
from io import FileIO
from pathlib import Path

import httpx2
import huggingface_hub

from analysis360.digests import file_sha256, remember_sha256
from analysis360.errors import CheckpointError, HubError
from analysis360.hub.asking import AgainError
from analysis360.hub.client import Entry, Hub, Kind, safe_name
from analysis360.hub.ranges import HubFile, Source
from analysis360.hub.shelf import PART, TREE
from analysis360.hub.threads import in_threads
from analysis360.places import Bytes, LocalFile, Traffic

SMALL_FILE = 64 << 20
"""Bytes of the largest file that is read whole: configs, indices, manifests."""
FILES_AT_A_TIME = 4
ATTEMPTS = 3
"""Downloads of a file whose content is not what the Hub says it is, before giving up."""


class HubFolder:
    """One folder of one commit of a repository. May be used from several threads."""

    far = True

    def __init__(
        self, hub: Hub, repository: str, kind: Kind, commit: str, branch: str, prefix: str = ""
    ) -> None:
        self.hub, self.repository, self.kind, self.commit, self.branch = hub, repository, kind, commit, branch
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._listed: dict[str, Entry] | None = None
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._top = hub.shelf.folder(kind, repository, commit)
        self.path = self._top / self._prefix if self._prefix else self._top
        self.where = f"{repository}@{branch}" + (f"/{prefix.strip('/')}" if self._prefix else "")

    @property
    def traffic(self) -> Traffic:
        """Of the whole Hub."""
        return self.hub.traffic

    @property
    def _tree(self) -> dict[str, Entry]:
        """Files of the commit; what was listed once is kept, since a commit never changes."""
        with self._lock:  # of this folder alone: `cached_property` has one for all
            if self._listed is None:
                self._listed = self._list()
            return self._listed

    def _list(self) -> dict[str, Entry]:
        kept = self.hub.shelf.recall(self._top / TREE)
        if kept is not None:
            return {safe_name(name, self.where): Entry(**entry) for name, entry in kept.items()}
        tree = self.hub.tree(self.repository, self.kind, self.commit)
        self.hub.shelf.remember(self._top / TREE, {name: vars(entry) for name, entry in tree.items()})
        return tree

    def _entry(self, name: str) -> Entry:
        entry = self._tree.get(self._prefix + name)
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, "not in the repository", f"{self.where}/{name}")
        return entry

    def names(self) -> list[str]:
        """Files of the folder. Raises HubError."""
        return sorted(n.removeprefix(self._prefix) for n in self._tree if n.startswith(self._prefix))

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._entry(name).size

    def sha256(self, name: str) -> str:
        """SHA-256: the Hub's own where LFS holds the file, otherwise that of the file, which is small."""
        return self._entry(name).sha256 or file_sha256(self._local(name))

    def etag(self, name: str) -> str:
        """What names the content on the Hub."""
        entry = self._entry(name)
        return entry.sha256 or entry.oid

    def read(self, name: str) -> bytes:
        """A small file; it stays in the cache."""
        if self.size(name) > SMALL_FILE:
            raise HubError(
                f"{self.where}/{name}: {self.size(name):,} bytes are too many for a file of its kind"
            )
        return self._local(name).read_bytes()

    def open(self, name: str) -> Bytes:
        """The file on disk where it was fetched or is small; otherwise ranges of the one on the Hub."""
        entry = self._entry(name)
        if entry.sha256 is None or self._there(name):
            return LocalFile(self._local(name))
        return HubFile(self._source(name))

    def _source(self, name: str) -> Source:
        of = (self.repository, self.kind, self.commit, self._prefix + name)
        return Source(self.hub, *of, self._entry(name).size)

    def fetch(self, names: Collection[str]) -> None:
        """Bring files to `path`, verified, and hold them until `release`. Raises HubError."""
        self._stopped.clear()
        self.hub.shelf.hold(self._top)
        try:
            absent = [name for name in names if not self._there(name) and not self._borrow(name)]
            needed = sum(max(self.size(name) - _size(self._part(name)), 0) for name in absent)
            self.hub.shelf.make_room(needed, self._top, self.where)
            in_threads(self._download, absent, FILES_AT_A_TIME)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """What was fetched may be evicted."""
        self.hub.shelf.release(self._top)

    def stop(self) -> None:
        """A download under way ends with the bytes that come next."""
        self._stopped.set()

    def describe(self) -> dict[str, str]:
        """Repository, branch and commit."""
        where = {"endpoint": self.hub.endpoint, "repository": self.repository}
        return {**where, "branch": self.branch, "commit": self.commit}

    def _local(self, name: str) -> Path:
        """The path of a small file, fetched if it is not there."""
        self._entry(name)
        if not self._there(name) and not self._borrow(name):
            self._download(name)
        return self.path / name

    def _there(self, name: str) -> bool:
        """Whether the file is on disk with the content the Hub lists."""
        try:
            return self._is(self.path / name, self._entry(name))
        except OSError:
            return False

    def _is(self, path: Path, entry: Entry) -> bool:
        if path.stat().st_size != entry.size:
            return False
        if entry.sha256 is not None:
            return file_sha256(path) == entry.sha256
        content = path.read_bytes()  # git's own name of a blob that is kept in git
        return (
            hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            == entry.oid
        )

    def _borrow(self, name: str) -> bool:
        """Link to the file in the user's Hugging Face cache, if it is there and right."""
        found = huggingface_hub.try_to_load_from_cache(
            self.repository, self._prefix + name, revision=self.commit, repo_type=self.kind
        )
        try:
            if not isinstance(found, str) or not self._is(Path(found), self._entry(name)):
                return False
            link = self.path / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(Path(found).resolve())
        except OSError:
            return False
        return True

    def _part(self, name: str) -> Path:
        path = self.path / name
        return path.with_name(path.name + PART)

    def _download(self, name: str) -> None:
        """Fetch one file: from where an earlier attempt stopped, checked, then given its name."""
        part, path = self._part(name), self.path / name
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            wrong = 0
            while wrong < ATTEMPTS:
                with part.open("ab", buffering=0) as file:
                    fcntl.flock(file, fcntl.LOCK_EX)  # another process may be at it
                    if self._there(name):  # and have finished: what was opened here is new and empty
                        part.unlink(missing_ok=True)
                        return
                    if not _same(part, file):  # it was renamed or removed meanwhile
                        continue
                    self._append(name, file)
                    if self._is(part, self._entry(name)):
                        part.replace(path)
                        remember_sha256(path, self._entry(name).sha256)
                        return
                    file.truncate(0)
                    wrong += 1
        except httpx2.HTTPError:
            raise
        except OSError as error:
            reason = f"cannot be written to {self._top}: {error.strerror or error}"
            raise HubError(
                f"{self.where}/{name}: {reason}; free some room, or choose another --cache; what arrived is kept"
            ) from None
        found = f"differs from its digest {self.etag(name)[:12]} in {ATTEMPTS} downloads"
        raise CheckpointError(f"{self.where}/{name}: what the Hub serves {found}; the upload may be broken")

    def _append(self, name: str, file: FileIO) -> None:
        """Bring a part of a file to its full size."""
        source = self._source(name)

        def ask() -> None:
            have = os.fstat(file.fileno()).st_size
            if have >= source.size:
                return
            with source.get(have, source.size) as answer:
                for block in answer.iter_raw():
                    if self._stopped.is_set():
                        raise HubError(f"{source.where}: stopped; what has arrived is kept")
                    file.write(block)
                    self.traffic.add(received=len(block))
            if os.fstat(file.fileno()).st_size < source.size:
                raise AgainError("the body ended early")

        self.hub.patiently(source.where, ask, lambda: os.fstat(file.fileno()).st_size)


def _same(path: Path, file: FileIO) -> bool:
    """Whether the open file still has this name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except OSError:
        return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
