"""What the server answers when it will not do as asked: a status, and the code that clients read."""

from __future__ import annotations

__all__ = ["RefusedError", "bad_request", "no_entry", "no_repository", "no_revision"]


class RefusedError(Exception):
    """Ends a request with an HTTP status; `code` goes out as `X-Error-Code`, the message as JSON."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}


def bad_request(message: str) -> RefusedError:
    """400: the request itself is malformed."""
    return RefusedError(400, message)


def no_repository(*, anonymous: bool) -> RefusedError:
    """401 for strangers, 404 for the rest: a private repository looks like one that is not there."""
    return RefusedError(401 if anonymous else 404, "Repository not found", "RepoNotFound")


def no_revision(revision: str) -> RefusedError:
    """404: no branch, tag or commit of that name."""
    return RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def no_entry(path: str, commit: str) -> RefusedError:
    """404: the commit has no such file or folder."""
    return RefusedError(404, f"Entry not found: {path}", "EntryNotFound", {"X-Repo-Commit": commit})
