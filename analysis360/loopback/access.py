"""Who may do what: tokens, and the repositories their holders may read and write."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis360.loopback.content import Repository
from analysis360.loopback.refusals import RefusedError, no_repository

__all__ = ["Access", "Caller"]

OPEN_USER = "local"


@dataclass(frozen=True)
class Caller:
    """Whoever sent a request."""

    user: str | None
    """None for someone without a token."""
    namespaces: tuple[str, ...] = ()
    """Where the caller may write; the first is the user's own."""
    everywhere: bool = False
    """Whether the server keeps no accounts, so that anyone may write anywhere."""

    def owns(self, repository: Repository) -> bool:
        """Whether the repository lies in a namespace of the caller's."""
        return repository.namespace in self.namespaces or (self.everywhere and self.user is not None)


class Access:
    """Accounts by token; without any, the server is open: everyone may write, any token names its one user."""

    def __init__(self, tokens: Mapping[str, Sequence[str]] | None = None) -> None:
        self._tokens = {token: tuple(names) for token, names in (tokens or {}).items()}

    def caller(self, authorization: str | None) -> Caller:
        """Who an Authorization header names. Raises RefusedError (401) for a token nobody has."""
        scheme, _, token = (authorization or "").partition(" ")
        if not authorization:
            return Caller(None, everywhere=not self._tokens)
        if scheme.lower() == "bearer" and token:
            if not self._tokens:
                return Caller(OPEN_USER, (OPEN_USER,), everywhere=True)
            for known, names in self._tokens.items():
                if hmac.compare_digest(known.encode(), token.encode()):
                    return Caller(names[0], names)
        raise RefusedError(401, "Invalid credentials in Authorization header")

    def read(self, caller: Caller, repository: Repository, *, content: bool) -> None:
        """Raises RefusedError unless the caller may see the repository and, if asked for, its files' content."""
        if caller.owns(repository) or (caller.user in repository.granted):
            return
        if repository.private:
            raise no_repository(anonymous=caller.user is None)
        if repository.gated and content:
            message = "Access to this repository is restricted and you are not in the authorized list"
            raise RefusedError(401 if caller.user is None else 403, message, "GatedRepo")

    def write(self, caller: Caller, namespace: str) -> None:
        """Raises RefusedError (401, 403) unless the caller may write in a namespace."""
        if caller.everywhere or namespace in caller.namespaces:
            return
        if caller.user is None:
            raise RefusedError(401, "A token is needed to write")
        raise RefusedError(403, f"You don't have the rights to write in the namespace {namespace}")
