"""Answers of the API: JSON, errors as the Hub words them, and descriptions of files and repositories."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from starlette.responses import Response

from analysis360.loopback.attributes import pointer, tree_oid
from analysis360.loopback.content import Commit, File, Repository, Source
from analysis360.loopback.refusals import RefusedError

__all__ = ["described", "entry", "expanded", "json_answer", "logged", "refused"]


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value as JSON."""
    return Response(json.dumps(value), status, headers, media_type="application/json")


def refused(refusal: RefusedError) -> Response:
    """A refusal as clients read it: `X-Error-Code`, `X-Error-Message` and JSON."""
    plain = (
        "".join(c if c.isprintable() else " " for c in refusal.message).encode("ascii", "replace").decode()
    )
    headers = refusal.headers | {"X-Error-Message": plain}
    if refusal.code is not None:
        headers["X-Error-Code"] = refusal.code
    return json_answer({"error": refusal.message}, refusal.status, headers)


def entry(path: str, commit: Commit) -> dict[str, Any]:
    """A file, or a folder (its path ends in `/`), as listings show it. May read a file whole."""
    if path.endswith("/"):
        return {"type": "directory", "oid": tree_oid(path, commit.id), "size": 0, "path": path.rstrip("/")}
    file = commit.files[path]
    shown: dict[str, Any] = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
    return shown | ({"lfs": {"oid": file.sha256, **_large(file)}} if file.large else {})


def expanded(path: str, commit: Commit, repository: Repository, source: Source) -> dict[str, Any]:
    """An entry together with the last commit that changed it."""
    last, before = commit, _before(commit, repository, source)
    while before is not None and _content(path, before) == _content(path, last):
        last, before = before, _before(before, repository, source)
    shown = {"id": last.id, "title": last.title, "date": _date(last)}
    return entry(path, commit) | {"lastCommit": shown}


def described(repository: Repository, commit: Commit, *, blobs: bool) -> dict[str, Any]:
    """A repository at a commit; with `blobs` each file's size and digests, which may read files whole."""
    siblings: list[dict[str, Any]] = []
    for path, file in commit.files.items():
        sibling: dict[str, Any] = {"rfilename": path}
        if blobs:
            sibling |= {"size": file.size, "blobId": file.oid}
            sibling |= {"lfs": {"sha256": file.sha256, **_large(file)}} if file.large else {}
        siblings.append(sibling)
    return {
        "id": repository.id,
        "author": repository.namespace,
        "sha": commit.id,
        "private": repository.private,
        "gated": "manual" if repository.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "createdAt": _timestamp(repository.created),
        "lastModified": _date(commit),
        "usedStorage": sum(file.size for file in commit.files.values()),
        "siblings": siblings,
    } | ({"modelId": repository.id} if repository.kind == "models" else {})


def logged(commit: Commit) -> dict[str, Any]:
    """A commit as histories show it."""
    texts = {"id": commit.id, "title": commit.title, "message": commit.message}
    return texts | {"date": _date(commit), "authors": [{"user": commit.author}]}


def _large(file: File) -> dict[str, int]:
    return {"size": file.size, "pointerSize": len(pointer(file.sha256, file.size))}


def _before(commit: Commit, repository: Repository, source: Source) -> Commit | None:
    return source.commit(repository, commit.parent) if commit.parent else None


def _content(path: str, commit: Commit) -> dict[str, str]:
    if not path.endswith("/"):
        return {path: commit.files[path].etag} if path in commit.files else {}
    return {name: file.etag for name, file in commit.files.items() if name.startswith(path)}


def _date(commit: Commit) -> str:
    return _timestamp(commit.date)


def _timestamp(date: datetime) -> str:
    return f"{date:%Y-%m-%dT%H:%M:%S}.{date.microsecond // 1000:03d}Z"
