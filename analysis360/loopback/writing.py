"""Handlers that write: repositories, branches, tags, settings, uploads and commits."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from typing import Any

from starlette.responses import Response

from analysis360.loopback.answers import json_answer
from analysis360.loopback.attributes import is_large
from analysis360.loopback.call import Call, text
from analysis360.loopback.content import Commit, File
from analysis360.loopback.links import Links
from analysis360.loopback.names import checked_path, checked_ref, checked_repository
from analysis360.loopback.operations import Change
from analysis360.loopback.refusals import RefusedError, bad_request
from analysis360.loopback.store import Store

__all__ = ["batch", "branch", "commit", "create", "grant", "preupload", "settings", "tag", "upload", "verify"]

SHA256 = re.compile(r"[0-9a-f]{64}")
UPLOAD_SECONDS = 24 * 3600.0
PIECE = 1 << 20
MESSAGE_CHARACTERS = 100_000


async def create(call: Call, store: Store) -> Response:
    """A new repository; 409 with its address where it exists."""
    asked = await call.json()
    kind = {"None": "models", "model": "models", "dataset": "datasets"}.get(str(asked.get("type")))
    if kind is None:
        raise bad_request("type: expected model or dataset")
    namespace = asked.get("organization") or call.caller.user or "local"
    if not isinstance(namespace, str):
        raise bad_request("organization: expected a string")
    name = checked_repository(namespace, text(asked, "name"))
    call.access.write(call.caller, namespace)
    private = asked.get("visibility") == "private" or asked.get("private") is True
    author = call.caller.user or namespace
    address = {"url": f"{call.endpoint}/{'datasets/' if kind == 'datasets' else ''}{name}", "name": name}
    try:
        await asyncio.to_thread(store.create, kind, name, private=private, author=author)
    except RefusedError as refusal:
        if refusal.status != 409:
            raise
        return json_answer(address | {"error": refusal.message}, 409)
    return json_answer(address)


async def branch(call: Call, store: Store, kind: str, namespace: str, name: str, ref: str) -> Response:
    """Make (POST) or remove (DELETE) a branch."""
    repository = call.writable(kind, namespace, name)
    if call.request.method == "DELETE":
        await asyncio.to_thread(store.unpoint, repository, ref)
    else:
        start = (await call.json()).get("startingPoint") or "main"
        await asyncio.to_thread(store.point, repository, checked_ref(ref), str(start))
    return Response(status_code=200)


async def tag(call: Call, store: Store, kind: str, namespace: str, name: str, revision: str) -> Response:
    """Make a tag of a revision (POST), or remove the tag (DELETE)."""
    repository = call.writable(kind, namespace, name)
    if call.request.method == "DELETE":
        await asyncio.to_thread(store.unpoint, repository, revision, tag=True)
    else:
        ref = checked_ref(text(await call.json(), "tag"))
        await asyncio.to_thread(store.point, repository, ref, revision, tag=True)
    return Response(status_code=200)


async def settings(call: Call, store: Store, kind: str, namespace: str, name: str) -> Response:
    """Change whether a repository is private or gated."""
    repository = call.writable(kind, namespace, name)
    asked = await call.json()
    private = asked.get("private")
    if "visibility" in asked:
        private = asked["visibility"] == "private"
    gated = None if "gated" not in asked else bool(asked["gated"])
    await asyncio.to_thread(store.admit, repository, private=private, gated=gated)
    return json_answer({"private": repository.private, "gated": repository.gated})


async def grant(call: Call, store: Store, kind: str, namespace: str, name: str) -> Response:
    """Let a user read a gated repository."""
    repository = call.writable(kind, namespace, name)
    user = text(await call.json(), "user")
    await asyncio.to_thread(store.admit, repository, granted=[*repository.granted, user])
    return json_answer({})


async def preupload(call: Call, kind: str, namespace: str, name: str, revision: str) -> Response:
    """How each file of a coming commit is to be sent, and what is there already."""
    repository = call.writable(kind, namespace, name)
    files = call.commit(repository, revision).files
    asked = (await call.json()).get("files")
    if not isinstance(asked, list):
        raise bad_request("files: expected a list")
    shown: list[dict[str, Any]] = []
    for each in asked:
        size = each.get("size") if isinstance(each, dict) else None
        if not isinstance(size, int):
            raise bad_request("files: expected objects with path and size")
        path = checked_path(text(each, "path"))
        large, there = is_large(path, size), files.get(path)
        oid = there.etag if there is not None and there.large == large else None
        mode = "lfs" if large else "regular"
        shown.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return json_answer({"files": shown, "commitOid": call.commit(repository, revision).id})


async def batch(
    call: Call, store: Store, links: Links, limit: int, kind: str, namespace: str, name: str
) -> Response:
    """Where to upload large files that are not here yet."""
    call.writable(kind, namespace, name)
    asked = await call.json()
    objects = asked.get("objects")
    if asked.get("operation") != "upload" or not isinstance(objects, list):
        raise bad_request("Expected an upload with objects")
    prefix = f"{call.endpoint}/{'datasets/' if kind == 'datasets' else ''}{namespace}/{name}"
    shown: list[dict[str, Any]] = []
    for each in objects:
        if not isinstance(each, dict):
            raise bad_request("objects: expected oid and size")
        sha256, size = _declared(each)
        described: dict[str, Any] = {"oid": sha256, "size": size}
        if size > limit:
            described["error"] = {"code": 413, "message": f"{size} bytes are more than the {limit} allowed"}
        elif store.blobs.size(sha256) != size:
            href = call.endpoint + links.make("upload", sha256, UPLOAD_SECONDS, size)
            verified = f"{prefix}.git/info/lfs/objects/verify"
            described["actions"] = {"upload": {"href": href}, "verify": {"href": verified}}
        shown.append(described)
    return json_answer({"transfer": "basic", "objects": shown})


async def upload(call: Call, store: Store, links: Links, sha256: str) -> Response:
    """Content by a signed link, written aside in pieces and kept only if it is what the link was made for."""
    size = links.check("upload", sha256, dict(call.request.query_params))
    if size is None:
        raise RefusedError(403, "The link to upload is not valid, or no longer")
    declared = call.request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > size:
        raise RefusedError(413, f"{declared} bytes are more than the {size} declared")
    with store.blobs.receive(sha256, size) as incoming:
        waiting = bytearray()
        async for piece in call.request.stream():
            waiting += piece
            if len(waiting) >= PIECE:
                await asyncio.to_thread(incoming.write, waiting)
                waiting = bytearray()
        await asyncio.to_thread(incoming.write, waiting)
        await asyncio.to_thread(incoming.finish)
    return Response(status_code=200, headers={"ETag": f'"{sha256}"'})


async def verify(call: Call, store: Store, kind: str, namespace: str, name: str) -> Response:
    """Whether an upload has arrived."""
    call.writable(kind, namespace, name)
    sha256, size = _declared(await call.json())
    if store.blobs.size(sha256) != size:
        raise RefusedError(404, f"{sha256} of {size} bytes has not been uploaded")
    return json_answer({"message": "verified"})


async def commit(call: Call, store: Store, kind: str, namespace: str, name: str, revision: str) -> Response:
    """Commit to a branch: a header, then files, large files and deletions, one a line."""
    repository = call.writable(kind, namespace, name)
    call.commit(repository, revision)
    if call.flag("create_pr"):
        raise bad_request("Pull requests are not kept here; commit to a branch")
    change, parent = Change("", "", call.caller.user or repository.namespace), None
    async for line in call.lines():
        key, value = line.get("key"), line.get("value")
        if not isinstance(key, str) or not isinstance(value, dict):
            raise bad_request("Expected lines with key and value")
        if key == "header":
            change.title = text(value, "summary")[:MESSAGE_CHARACTERS]
            change.message = str(value.get("description") or "")[:MESSAGE_CHARACTERS]
            parent = value.get("parentCommit")
        else:
            await asyncio.to_thread(_take, store, change, key, value)
    if not change.title:
        raise bad_request("Expected a header with a summary")
    made: Commit = await asyncio.to_thread(
        store.apply, repository, revision.removeprefix("refs/heads/"), change, parent
    )
    prefix = "datasets/" if kind == "datasets" else ""
    address = f"{call.endpoint}/{prefix}{repository.id}/commit/{made.id}"
    return json_answer({"success": True, "commitOid": made.id, "commitUrl": address, "hookOutput": ""})


def _take(store: Store, change: Change, key: str, value: dict[str, Any]) -> None:
    """Add one line of a commit to the change. Raises RefusedError."""
    path = text(value, "path")
    path = checked_path(path.rstrip("/") if key == "deletedFolder" else path)
    if key == "file":
        change.added[path] = store.plain(_content(value))
    elif key == "lfsFile":
        sha256 = text(value, "oid")
        size = store.blobs.size(sha256) if SHA256.fullmatch(sha256) else None
        if size is None or value.get("size", size) != size:
            raise bad_request(f"{path}: {sha256[:64]} has not been uploaded, or has another size")
        change.added[path] = File(store.blobs.path(sha256), size, large=True, sha256=sha256)
    elif key in ("deletedFile", "deletedFolder"):
        change.deleted.append(f"{path}/" if key == "deletedFolder" else path)
    else:
        raise bad_request(f"Unknown operation: {key[:40]}")


def _content(value: dict[str, Any]) -> bytes:
    content, encoding = text(value, "content"), value.get("encoding", "utf-8")
    if encoding == "utf-8":
        return content.encode()
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise bad_request("content: expected base64") from None


def _declared(value: dict[str, Any]) -> tuple[str, int]:
    sha256, size = text(value, "oid"), value.get("size")
    if not SHA256.fullmatch(sha256) or type(size) is not int or size < 0:
        raise bad_request("Expected an oid of 64 hexadecimal digits and a size")
    return sha256, size
