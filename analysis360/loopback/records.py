"""Repositories and commits as JSON on disk."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

from analysis360.loopback.blobs import Blobs
from analysis360.loopback.content import Commit, File, Repository

__all__ = ["commit_id", "commit_record", "read_commit", "read_repository", "repository_record"]


def repository_record(repository: Repository) -> bytes:
    """A repository with its branches and tags."""
    record = vars(repository) | {"created": repository.created.isoformat()}
    return json.dumps(record, indent=1).encode()


def read_repository(data: bytes) -> Repository:
    """The inverse of `repository_record`."""
    record = json.loads(data)
    created = datetime.fromisoformat(record.pop("created"))
    return Repository(**record | {"created": created, "granted": tuple(record["granted"])})


def commit_record(commit: Commit) -> bytes:
    """A commit with what its files are."""
    files = {path: [file.size, file.large, file.sha256, file.oid] for path, file in commit.files.items()}
    record = {name: getattr(commit, name) for name in ("id", "title", "message", "author", "parent")}
    return json.dumps(record | {"date": commit.date.isoformat(), "files": files}).encode()


def read_commit(data: bytes, blobs: Blobs) -> Commit:
    """The inverse of `commit_record`."""
    record: dict[str, Any] = json.loads(data)
    files = {
        path: File(blobs.path(sha256), size, large=large, sha256=sha256, oid=oid)
        for path, (size, large, sha256, oid) in record.pop("files").items()
    }
    return Commit(**record | {"date": datetime.fromisoformat(record["date"]), "files": files})


def commit_id(*parts: str, files: dict[str, File]) -> str:
    """An id of 40 hex digits that follows from everything in the commit; it is not git's own."""
    listed = sorted((path, file.etag, file.size) for path, file in files.items())
    text = json.dumps([*parts, listed])
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
