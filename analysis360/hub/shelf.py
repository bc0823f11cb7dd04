"""The cache folder of this package: what was downloaded, what was listed, and how much room it may take.

    <cache>/<kind>--<organisation>--<name>/refs.json            branches and their commits, as last seen
    <cache>/<kind>--<organisation>--<name>/<commit>/.a360-tree.json  files of the commit, with their SHA-256
    <cache>/<kind>--<organisation>--<name>/<commit>/<file>      complete and verified
    <cache>/<kind>--<organisation>--<name>/<commit>/<file>.part what has arrived so far

Folders of another Hub than huggingface.co begin with its address.

A commit in use is locked by its process (flock), so several processes may share the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import threading
import uuid
from pathlib import Path
from typing import IO, Any

from analysis360.errors import HubError
from analysis360.hub.options import shown_size

RESERVE = 1 << 30
"""Bytes of the disk that are always left free."""
SMALL = 1 << 20
"""Files up to this size are never evicted: configs and indices, which planning needs."""
PART = ".part"
LOCK = ".a360-lock"
TREE = ".a360-tree.json"
OURS = (LOCK, TREE)
"""Names of our own in the folder of a commit; no file of a repository may have them."""
COMMIT = re.compile(r"[0-9a-f]{40}")


class Shelf:
    """Folders of commits, evicted the least recently used first when room is needed."""

    def __init__(self, root: Path, budget: int | None = None, site: str = "") -> None:
        self.root, self.budget, self._site = root, budget, site
        self._held: dict[Path, list[IO[bytes]]] = {}
        self._freed = threading.Condition()

    def folder(self, kind: str, repository: str, commit: str | None = None) -> Path:
        """Where a repository, or one commit of it, lies."""
        top = self.root / f"{self._site}{kind}--{repository.replace('/', '--')}"
        return top / commit if commit else top

    def remember(self, path: Path, value: Any) -> None:
        """Keep a JSON value, whole or not at all. Raises HubError."""
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(value))
            aside.replace(path)
        except OSError as error:
            raise _no_room(path, error) from None

    def recall(self, path: Path) -> Any:
        """A JSON value that was kept, or None."""
        with contextlib.suppress(OSError, ValueError):
            return json.loads(path.read_text())
        return None

    def hold(self, folder: Path) -> None:
        """Keep a commit's files until `release`, against every process."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock: IO[bytes] = (folder / LOCK).open("ab")
        except OSError as error:
            raise _no_room(folder / LOCK, error) from None
        fcntl.flock(lock, fcntl.LOCK_SH)
        os.utime(folder / LOCK)  # when it was last used
        with self._freed:
            self._held.setdefault(folder, []).append(lock)

    def release(self, folder: Path) -> None:
        """The commit's files may go, if nobody else holds them."""
        with self._freed:
            locks = self._held.get(folder)
            if not locks:
                return
            locks.pop().close()
            if not locks:
                del self._held[folder]
            self._freed.notify_all()

    def make_room(self, needed: int, folder: Path, what: str) -> None:
        """Evict until `needed` bytes more fit into a held folder; wait where this process holds others.

        Raises HubError when they cannot fit.
        """
        if needed <= 0:
            return
        if self.budget is not None and needed > self.budget:
            sizes = f"{shown_size(needed)}; the budget is {shown_size(self.budget)}"
            raise HubError(f"{what} needs {sizes}: give a larger --disk")
        with self._freed:
            while (short := self._short(needed)) > 0:
                if self._evict_one():
                    continue
                if not self._held.keys() - {folder}:
                    sizes = f"needs {shown_size(needed)}, {shown_size(short)} more than there is room for"
                    way = "give a larger --disk, another --cache, or wait for other runs that use it"
                    raise HubError(f"{what} {sizes} in {self.root}: {way}")
                self._freed.wait(timeout=1.0)

    def _short(self, needed: int) -> int:
        """Bytes that must go before `needed` more fit."""
        self.root.mkdir(parents=True, exist_ok=True)
        short = needed + RESERVE - shutil.disk_usage(self.root).free
        if self.budget is not None:
            short = max(short, self.used() + needed - self.budget)
        return short

    def used(self) -> int:
        """Bytes of all files that count: large ones, whole or in part."""
        return sum(_room(path) for folder in self._commits() for path in _large(folder))

    def _commits(self) -> list[Path]:
        """Folders of commits, the least recently used first."""
        found = [
            path
            for path in self.root.glob("*--*/*")
            if COMMIT.fullmatch(path.name) and (path / LOCK).is_file()
        ]
        return sorted(found, key=_last_use)

    def _evict_one(self) -> bool:
        for folder in self._commits():
            files = list(_large(folder))
            if files and folder not in self._held and _alone(folder, files):
                return True
        return False


def _last_use(folder: Path) -> float:
    with contextlib.suppress(OSError):
        return (folder / LOCK).stat().st_mtime
    return 0.0


def _room(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.lstat().st_size
    return 0


def _large(folder: Path) -> list[Path]:
    """Files of a commit that count: not those borrowed from the user's cache by a link."""
    files = (Path(top) / name for top, _, names in os.walk(folder) for name in names)
    return [file for file in files if not file.is_symlink() and _room(file) > SMALL]


def _alone(folder: Path, files: list[Path]) -> bool:
    """Delete files if no process holds their commit; False when one does."""
    try:
        with (folder / LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for file in files:
                file.unlink(missing_ok=True)
    except OSError:  # held by another process, or not ours to delete
        return False
    return True


def _no_room(path: Path, error: OSError) -> HubError:
    return HubError(f"cannot write {path}: {error.strerror}; free some room, or choose another --cache")
