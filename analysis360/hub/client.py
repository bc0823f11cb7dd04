"""Repositories on a Hub: branches resolved once, trees listed once, files found and read by ranges."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

import httpx2
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import get_session, hf_raise_for_status

from analysis360.errors import HubError
from analysis360.hub.asking import AgainError, patiently
from analysis360.hub.options import HubOptions
from analysis360.hub.shelf import OURS as OWN_NAMES
from analysis360.hub.shelf import Shelf
from analysis360.places import Traffic

Kind = Literal["model", "dataset"]
Answer = TypeVar("Answer")
PUBLIC = "https://huggingface.co"
MOST_FILES = 1_000_000
OURS = set(OWN_NAMES)
COMMIT = 40
"""Hex digits of a commit."""


@dataclass(frozen=True)
class Entry:
    """A file of a commit, as the Hub lists it."""

    size: int
    """Bytes."""
    oid: str
    """Git's name of the blob: SHA-1 of the content, or of the pointer where LFS holds the content."""
    sha256: str | None
    """SHA-256 of the content, where LFS holds it."""


@dataclass(frozen=True)
class Address:
    """Where the bytes of a file are served, for now: such addresses expire."""

    url: str
    headers: dict[str, str]
    size: int


class Hub:
    """One Hub as one user sees it. May be used from several threads."""

    def __init__(self, options: HubOptions | None = None) -> None:
        self.options = options or HubOptions()
        self.endpoint = _checked((self.options.endpoint or constants.ENDPOINT).rstrip("/"))
        self.shelf = Shelf(self.options.cache, self.options.disk, _site(self.endpoint))
        self.traffic = Traffic()

    def branches(self, repository: str, kind: Kind) -> dict[str, str]:
        """Branch -> commit, as of now. Raises HubError."""
        url = f"{self.endpoint}/api/{kind}s/{repository}/refs"
        answer = self._json(f"{repository}: list of branches", url).json()
        try:
            found = {str(b["name"]): _commit(b["targetCommit"]) for b in answer["branches"]}
        except (KeyError, TypeError):
            raise HubError(
                f"{repository}: the list of branches is malformed; is {self.endpoint} a Hub?"
            ) from None
        return found

    def tree(self, repository: str, kind: Kind, commit: str) -> dict[str, Entry]:
        """Name -> entry of every file of a commit. Raises HubError."""
        address = f"{self.endpoint}/api/{kind}s/{repository}/tree/{commit}?recursive=true&expand=false"
        url: str | None = address
        files: dict[str, Entry] = {}
        while url is not None:
            page = self._json(f"{repository}@{commit[:8]}: list of files", url)
            try:
                for item in page.json():
                    if item["type"] == "file":
                        files[safe_name(item["path"], repository)] = _entry(item)
            except (KeyError, TypeError, ValueError):
                raise HubError(f"{repository}@{commit[:8]}: the list of files is malformed") from None
            url = page.links.get("next", {}).get("url")
            if len(files) > MOST_FILES:
                raise HubError(f"{repository}@{commit[:8]}: more than {MOST_FILES:,} files are listed")
            if url is not None and not self._own(url):
                raise HubError(f"{repository}@{commit[:8]}: the list of files goes on at another server")
        return files

    def resolve(self, repository: str, kind: Kind, commit: str, name: str) -> Address:
        """Where a file's bytes are; one request that the Hub's rate limit counts. Raises HubError."""
        prefix = "datasets/" if kind == "dataset" else ""
        url = f"{self.endpoint}/{prefix}{repository}/resolve/{commit}/{quote(name)}"
        what = f"{repository}@{commit[:8]}/{name}"

        def ask() -> huggingface_hub.HfFileMetadata:
            self.traffic.add(requests=1, resolves=1)
            return huggingface_hub.get_hf_file_metadata(
                url, timeout=self.options.timeout, endpoint=self.endpoint
            )

        found = self.patiently(what, ask)
        if found.commit_hash != commit or found.size is None:
            raise HubError(f"{what}: the Hub answers with commit {found.commit_hash}")
        # The token goes to the Hub alone, never to where it sends us.
        headers = build_hf_headers() if self._own(found.location) else {}
        return Address(found.location, {**headers, "Accept-Encoding": "identity"}, found.size)

    @contextlib.contextmanager
    def get(self, address: Address, start: int, stop: int) -> Iterator[httpx2.Response]:
        """The open answer to a request for bytes [start, stop), checked to be those.

        Raises AgainError or an HTTP error where the server answers something else.
        """
        self.traffic.add(requests=1)
        headers = {**address.headers, "Range": f"bytes={start}-{stop - 1}"}
        session = get_session()
        with session.stream("GET", address.url, headers=headers, timeout=self.options.timeout) as answer:
            if answer.status_code == 200 and (start, stop) == (0, address.size):
                yield answer
                return
            if answer.status_code != 206:
                if answer.status_code >= 400:
                    answer.read()
                hf_raise_for_status(answer)
                raise AgainError(
                    f"bytes {start} to {stop} were asked for, status {answer.status_code} came back"
                )
            if answer.headers.get("Content-Range") != f"bytes {start}-{stop - 1}/{address.size}":
                raise AgainError(f"bytes {start} to {stop} were asked for, others came back")
            yield answer

    def patiently(self, what: str, ask: Callable[[], Answer], progress: Callable[[], int] = int) -> Answer:
        """See `asking.patiently`."""
        patience, traffic = self.options.patience, self.traffic
        return patiently(what, ask, patience=patience, traffic=traffic, progress=progress)

    def _own(self, url: str) -> bool:
        """Whether an address is the Hub's own, by the same protocol."""
        return urlsplit(url)[:2] == urlsplit(self.endpoint)[:2]

    def _json(self, what: str, url: str) -> httpx2.Response:
        def ask() -> httpx2.Response:
            self.traffic.add(requests=1)
            answer = get_session().get(url, headers=build_hf_headers(), timeout=self.options.timeout)
            hf_raise_for_status(answer)
            self.traffic.add(received=len(answer.content))
            try:
                answer.json()
            except ValueError:
                raise AgainError("the answer is no JSON") from None
            return answer

        return self.patiently(what, ask)


def _checked(endpoint: str) -> str:
    """The address of a Hub and the token for it, if they can be sent at all. Raises HubError."""
    try:
        parts = urlsplit(endpoint)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        sound = False
    if not sound:
        raise HubError(f"HF_ENDPOINT: expected an address such as https://huggingface.co, found {endpoint!r}")
    if not (huggingface_hub.get_token() or "").isascii():
        raise HubError("HF_TOKEN: expected letters, digits and '_', found other characters; paste it again")
    return endpoint


def _site(endpoint: str) -> str:
    """What tells the folders of one Hub from those of another: nothing for the public one."""
    return "" if endpoint == PUBLIC else re.sub(r"[^A-Za-z0-9.]+", "_", endpoint.split("://")[-1]) + "--"


def safe_name(name: Any, repository: str) -> str:
    """A file name from a server, if it stays inside its folder. Raises HubError."""
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    plain = parts and not PurePosixPath(name).is_absolute() and ".." not in parts
    if not plain or OURS & set(parts) or any(c in name for c in "\\\0:") or any(ord(c) < 32 for c in name):
        raise HubError(f"{repository}: the Hub lists a file called {name!r}, which is refused")
    return str(name)


def _commit(value: Any) -> str:
    if not isinstance(value, str) or len(value) != COMMIT or not set(value) <= set("0123456789abcdef"):
        raise HubError(f"expected a commit of {COMMIT} hex digits, the Hub says {value!r}")
    return value


def _entry(item: dict[str, Any]) -> Entry:
    lfs = item.get("lfs")
    sha256 = str(lfs["oid"]) if lfs else None
    return Entry(int(lfs["size"] if lfs else item["size"]), str(item["oid"]), sha256)
