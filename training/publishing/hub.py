"""What the branches of a Hub are to hold, what they hold, and what a Hub answers when it does not take it in."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis360.digests import file_sha256
from analysis360.loopback.attributes import git_oid
from training.errors import TrainingError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

__all__ = ["Branch", "differing", "explained", "listed", "verify"]


@dataclass(frozen=True)
class Branch:
    """What one branch of a repository is to hold."""

    name: str
    """For the lines of the report."""
    repository: str
    kind: str
    """`model` or `dataset`."""
    branch: str
    files: dict[str, Path | bytes]
    title: str
    """Of the commits."""


def verify(api: "HfApi", branches: Sequence[Branch], endpoint: str) -> int:
    """Compare every file with what the Hub lists now; returns how many. Raises TrainingError naming what differs."""
    wrong = [
        f"{target.repository}@{target.branch}/{path}"
        for target in branches
        for path in differing(target, listed(api, target))
    ]
    if wrong:
        named = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        found, fix = f"others or none at {named}", "run the same command to send them again"
        raise TrainingError(endpoint, expected="the files that were sent", found=found, fix=fix)
    return sum(len(target.files) for target in branches)


def listed(api: "HfApi", target: Branch) -> dict[str, "RepoFile"]:
    """The files that a branch holds now, by path."""
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(
        target.repository, recursive=True, revision=target.branch, repo_type=target.kind
    )
    return {file.path: file for file in tree if isinstance(file, RepoFile)}


def differing(target: Branch, there: dict[str, "RepoFile"]) -> list[str]:
    """Paths of our files that a listing has not, or has with another content."""
    files = target.files
    return [path for path in sorted(files) if path not in there or not _equal(files[path], there[path])]


def _equal(file: Path | bytes, remote: "RepoFile") -> bool:
    """Whether a file of the Hub has the content of ours: by SHA-256, or by git's id where it is small."""
    size = len(file) if isinstance(file, bytes) else file.stat().st_size
    if size != remote.size:
        return False
    if remote.lfs is not None:
        ours = hashlib.sha256(file).hexdigest() if isinstance(file, bytes) else file_sha256(file)
        return bool(remote.lfs.sha256 == ours)
    return remote.blob_id == git_oid(file)


@contextmanager
def explained(endpoint: str) -> Iterator[None]:
    """What the client raises, as one line; no token is in it."""
    from huggingface_hub.errors import HfHubHTTPError

    from analysis360.hub.asking import one_line

    parents: list[type] = [base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"]
    connection: type[Exception] = parents[0]  # the base of the client's transport errors too
    try:
        yield
    except (connection, RuntimeError, ValueError) as error:
        reason = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        status = getattr(getattr(reason, "response", None), "status_code", None)
        fix = "log in with `hf auth login`" if status in (401, 403) else "run the same command to go on"
        said = reason if isinstance(reason, Exception) else error
        if isinstance(said, ValueError):  # what is wrong with a card comes in several lines
            said = ValueError(" ".join(str(said).split()))
        found = one_line(said)
        raise TrainingError(endpoint, expected="a Hub that takes it in", found=found, fix=fix) from None
