"""Handlers that read: listings, histories, descriptions, files, and the delivery network behind them."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from starlette.responses import Response
from starlette.types import ASGIApp

from analysis360.loopback.answers import described, entry, expanded, json_answer, logged
from analysis360.loopback.bodies import FileAnswer
from analysis360.loopback.call import Call, path_of
from analysis360.loopback.content import Commit, File, Repository
from analysis360.loopback.links import Links
from analysis360.loopback.mount import Mount
from analysis360.loopback.names import checked_path
from analysis360.loopback.refusals import RefusedError, bad_request, no_entry

__all__ = ["EXPIRED", "commits", "deliver", "info", "paths_info", "refs", "resolve", "tree", "whoami"]

EXPANDED_PAGE = 50
COMMITS_PAGE = 50
MOST_PATHS = 1000
EXPIRED = b"<Error><Code>AccessDenied</Code><Message>Access denied</Message></Error>"


async def whoami(call: Call) -> Response:
    """Who the token names. Raises RefusedError (401) without one."""
    if call.caller.user is None:
        raise RefusedError(401, "Invalid username or password.")
    organisations = [{"type": "org", "name": name} for name in call.caller.namespaces[1:]]
    token = {"type": "access_token", "accessToken": {"displayName": "loopback", "role": "write"}}
    return json_answer(
        {
            "type": "user",
            "name": call.caller.user,
            "fullname": call.caller.user,
            "orgs": organisations,
            "auth": token,
        }
    )


async def info(call: Call, kind: str, namespace: str, name: str, revision: str = "main") -> Response:
    """A repository at a revision."""
    repository = call.readable(kind, namespace, name)
    commit = call.commit(repository, revision)
    return json_answer(await asyncio.to_thread(described, repository, commit, blobs=call.flag("blobs")))


async def refs(call: Call, kind: str, namespace: str, name: str) -> Response:
    """Branches and tags, and the commits they point to."""
    repository = call.readable(kind, namespace, name)

    def listed(of: dict[str, str], where: str) -> list[dict[str, str]]:
        return [{"name": n, "ref": f"refs/{where}/{n}", "targetCommit": c} for n, c in of.copy().items()]

    branches, tags = listed(repository.branches, "heads"), listed(repository.tags, "tags")
    return json_answer({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})


async def tree(call: Call, kind: str, namespace: str, name: str, revision: str, *path: str) -> Response:
    """What a folder holds, a page at a time."""
    repository = call.readable(kind, namespace, name)
    commit = call.commit(repository, revision)
    within = f"{path_of(list(path))}/" if path else ""
    below = [p for p in commit.paths if p.startswith(within) and p != within]
    if within and within not in commit.paths:
        raise no_entry(within, commit.id)
    if not call.flag("recursive"):
        below = [p for p in below if "/" not in p[len(within) :].rstrip("/")]
    expand = call.flag("expand")
    size = max(1, min(call.number("limit", call.page), call.page, EXPANDED_PAGE if expand else call.page))
    start = call.number("cursor", 0)
    shown = await asyncio.to_thread(
        _entries, call, repository, commit, below[start : start + size], expand=expand
    )
    return json_answer(shown, headers=_next(call, start + size, len(below), "cursor"))


async def paths_info(call: Call, kind: str, namespace: str, name: str, revision: str) -> Response:
    """The entries of some paths; those that do not exist are left out."""
    repository = call.readable(kind, namespace, name)
    commit = call.commit(repository, revision)
    asked, expand = _asked(await call.body(8 << 20), call.request.headers.get("content-type", ""))
    if len(asked) > MOST_PATHS:
        raise RefusedError(413, "too many parameters")
    known = set(commit.paths)
    named = [checked_path(path.rstrip("/")) for path in asked]
    found = [path if path in known else f"{path}/" for path in named if {path, f"{path}/"} & known]
    return json_answer(await asyncio.to_thread(_entries, call, repository, commit, found, expand=expand))


async def commits(call: Call, kind: str, namespace: str, name: str, revision: str) -> Response:
    """The history of a revision, newest first, a page at a time."""
    repository = call.readable(kind, namespace, name)
    commit: Commit | None = call.commit(repository, revision)
    history: list[Commit] = []
    while commit is not None:
        history.append(commit)
        commit = call.source.commit(repository, commit.parent) if commit.parent else None
    size = max(1, min(call.number("limit", COMMITS_PAGE), COMMITS_PAGE, call.page))
    start = call.number("p", 0) * size
    shown = [logged(commit) for commit in history[start : start + size]]
    return json_answer(shown, headers=_next(call, start + size, len(history), "p", size))


async def resolve(
    call: Call, links: Links, seconds: float, kind: str, namespace: str, name: str, revision: str, *path: str
) -> ASGIApp:
    """A file: small ones at once, large ones by a link to the delivery network that is valid for `seconds`."""
    repository = call.readable(kind, namespace, name, content=True)
    commit = call.commit(repository, revision)
    file_path = path_of(list(path))
    file = commit.files.get(file_path)
    if file is None:
        raise no_entry(file_path, commit.id)
    if not file.ready:
        await asyncio.to_thread(getattr, file, "etag")
    _check_unchanged(file)
    headers = _file_headers(file_path, file) | {"X-Repo-Commit": commit.id}
    if not file.large:
        return FileAnswer(file.path, file.size, headers, call.request.headers.get("range"))
    headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    if call.other_endpoint is None:  # addressed by a name that has no other to stand for the network
        return FileAnswer(file.path, file.size, headers, call.request.headers.get("range"))
    if isinstance(call.source, Mount):
        call.source.remember(file)
    location = call.other_endpoint + links.make("cdn", file.sha256, seconds, file.size)
    return Response("Found", 302, headers | {"Location": location, "Accept-Ranges": "bytes"})


async def deliver(call: Call, links: Links, sha256: str) -> ASGIApp:
    """Content by a signed link, as a delivery network gives it out: it knows no repositories and no tokens."""
    size = links.check("cdn", sha256, dict(call.request.query_params))
    file = call.source.blob(sha256) if size is not None else None
    if file is None:
        return Response(EXPIRED, 403, media_type="application/xml")
    _check_unchanged(file)
    headers = {"ETag": f'"{sha256}"', "Content-Type": "application/octet-stream"}
    return FileAnswer(file.path, file.size, headers, call.request.headers.get("range"))


def _entries(
    call: Call, repository: Repository, commit: Commit, paths: list[str], *, expand: bool
) -> list[dict[str, Any]]:
    if expand:
        return [expanded(path, commit, repository, call.source) for path in paths]
    return [entry(path, commit) for path in paths]


def _next(call: Call, after: int, total: int, key: str, size: int = 1) -> dict[str, str]:
    """The Link header that leads to the page behind `after` entries."""
    if after >= total:
        return {}
    query = {**call.request.query_params, key: after // size}
    return {
        "Link": f'<{call.endpoint}{call.request.scope["raw_path"].decode()}?{urlencode(query)}>; rel="next"'
    }


def _asked(body: bytes, kind: str) -> tuple[list[str], bool]:
    """Paths and whether to expand, of a form or JSON. Raises RefusedError (400)."""
    try:
        if kind.startswith("application/json"):
            value = json.loads(body)
            paths, expand = value["paths"], value.get("expand") in (True, "true", "True")
        else:
            form = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MOST_PATHS + 10)
            paths, expand = form.get("paths", []), form.get("expand", [""])[0].lower() == "true"
    except (ValueError, KeyError, TypeError, AttributeError):
        raise bad_request("Expected paths") from None
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise bad_request("Expected a list of paths")
    return paths, expand


def _file_headers(path: str, file: File) -> dict[str, str]:
    shown = quote(path.rpartition("/")[2])
    return {
        "ETag": f'"{file.etag}"',
        "Content-Type": "application/octet-stream" if file.large else "text/plain; charset=utf-8",
        "Content-Disposition": f"inline; filename*=UTF-8''{shown}; filename=\"{shown}\";",
    }


def _check_unchanged(file: File) -> None:
    if not file.unchanged:
        raise RefusedError(
            500, f"{file.path.name} has changed since the folder was mounted; start the server again"
        )
