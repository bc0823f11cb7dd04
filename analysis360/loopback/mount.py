"""A series on disk served as a Hub: nothing is copied, nothing is written in its folder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path

from analysis360.loopback.attributes import is_large
from analysis360.loopback.content import Commit, File, Repository, stamp_of
from analysis360.loopback.published import MANIFEST_NAME, Published, published

__all__ = ["Mount"]

NAMESPACE = "local"


class Mount:
    """Two repositories, `local/<name>` and `local/<name>-data`, as the folder was when it was mounted.

    A file that changes afterwards is refused rather than served under the old name.
    """

    def __init__(self, folder: Path) -> None:
        """Read the manifest and list the files. Raises SeriesError."""
        series = published(folder)
        self.model, self.data = f"{NAMESPACE}/{series.name}", f"{NAMESPACE}/{series.name}-data"
        self._lock = threading.Lock()
        self._listed: dict[Path, File] = {}
        self._large: dict[str, File] = {}
        self._commits: dict[str, Commit] = {}
        self._made = tempfile.TemporaryDirectory(prefix="analysis360-hub-")
        manifest = Path(self._made.name) / MANIFEST_NAME
        manifest.write_bytes(series.manifest(self.model, self.data))
        written = (folder / MANIFEST_NAME).stat()
        os.utime(manifest, ns=(written.st_mtime_ns, written.st_mtime_ns))  # the same commit every time
        self._date = datetime.fromtimestamp(written.st_mtime, UTC)
        self._root = str(folder.resolve())
        self._repositories = {
            ("models", self.model): self._models(series, manifest),
            ("datasets", self.data): self._datasets(series),
        }

    def close(self) -> None:
        """Remove the rewritten manifest."""
        self._made.cleanup()

    def repository(self, kind: str, name: str) -> Repository | None:
        """See `Source`."""
        return self._repositories.get((kind, name))

    def commit(self, repository: Repository, commit: str) -> Commit | None:
        """See `Source`."""
        return self._commits.get(commit) if commit in repository.branches.values() else None

    def blob(self, sha256: str) -> File | None:
        """See `Source`. Only files that were resolved are known: links are made for no others."""
        return self._large.get(sha256)

    def remember(self, file: File) -> None:
        """A large file that was resolved, and now may be asked for by its content. May read it whole."""
        with self._lock:
            self._large[file.sha256] = file

    def _models(self, series: Published, manifest: Path) -> Repository:
        branches = {name: series.checkpoint(name) for name in series.checkpoints}
        branches["main"] = branches[series.last] | series.extra | {MANIFEST_NAME: manifest}
        commits = {name: self._listing(name, files) for name, files in branches.items()}
        return Repository("models", self.model, self._date, commits)

    def _datasets(self, series: Published) -> Repository:
        return Repository("datasets", self.data, self._date, {"main": self._listing("data", series.data)})

    def _listing(self, title: str, paths: dict[str, Path]) -> str:
        """A commit of files as they are now; its id follows from their paths, sizes and times."""
        files = {path: self._file(path, paths[path]) for path in sorted(paths)}
        listed = [self._root, title, *([path, file.stamp] for path, file in files.items())]
        name = hashlib.sha1(json.dumps(listed).encode(), usedforsecurity=False).hexdigest()
        self._commits[name] = Commit(name, title, "", NAMESPACE, self._date, None, files)
        return name

    def _file(self, name: str, path: Path) -> File:
        if path not in self._listed:
            size = stamp_of(path)[0]
            self._listed[path] = File(path, size, large=is_large(name, size))
        return self._listed[path]
