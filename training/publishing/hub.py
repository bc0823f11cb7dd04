"""What the branches of a Hub are to hold, what they hold, and what a Hub answers when it does not take it in."""

import hashlib
import re
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

__all__ = ["KEPT", "Branch", "differing", "explained", "listed", "shown", "verify"]

KEPT = (".gitattributes", "README.md")
"""Files of a repository that are not ours to remove."""


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


def verify(api: "HfApi", branches: Sequence[Branch], endpoint: str) -> tuple[int, list[str]]:
    """Compare every file with what the Hub lists now.

    Returns how many there are, and a line for each place that holds more than that: an earlier, longer publish
    may have left it. Raises TrainingError naming what differs.
    """
    wrong: list[str] = []
    more: list[str] = []
    for target in branches:
        there = listed(api, target)
        wrong += [f"{target.repository}@{target.branch}/{path}" for path in differing(target, there)]
        if surplus := sorted(there.keys() - target.files.keys() - {*KEPT}):
            more.append(f"{target.repository}@{target.branch} also holds {named(surplus)}")
    if wrong:
        found, fix = f"others or none at {named(wrong)}", "run the same command to send them again"
        raise TrainingError(shown(endpoint), expected="the files that were sent", found=found, fix=fix)
    ours = {target.branch for target in branches}
    repository = branches[-1].repository
    if other := sorted({branch.name for branch in api.list_repo_refs(repository).branches} - ours):
        more.append(f"{repository} also has the branches {named(other)}")
    note = "not of this folder: yours, or of an earlier publish, and then to be removed by hand"
    return sum(len(target.files) for target in branches), [f"{line}; {note}" for line in more]


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
    """What the client raises, as one line; no token and no password is in it."""
    from huggingface_hub.errors import HfHubHTTPError

    parents: list[type] = [base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"]
    connection: type[Exception] = parents[0]  # the base of the client's transport errors too
    try:
        yield
    except (connection, RuntimeError, ValueError, OSError) as error:
        raise _told(endpoint, error) from None


def _told(endpoint: str, error: Exception) -> TrainingError:
    """The line: who is to blame, in whose words, and the way out."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    from analysis360.hub.asking import one_line

    cause, reason = error.__cause__, error
    if isinstance(error, RuntimeError | LocalEntryNotFoundError) and isinstance(cause, Exception):
        reason = cause
    where = shown(endpoint)
    if isinstance(reason, OfflineModeIsEnabled):
        fix = "unset HF_HUB_OFFLINE"
        return TrainingError(where, expected="a connection", found="offline mode", fix=fix)
    if isinstance(reason, OSError) and reason.filename:
        expected, found = "a file to read", reason.strerror or repr(reason)
        return TrainingError(reason.filename, expected=expected, found=found, fix="mend that")
    answers = (getattr(by, "response", None) for by in (reason, cause))
    status = next((answer.status_code for answer in answers if answer is not None), None)
    fixes = dict.fromkeys((401, 403), "log in with `hf auth login`")
    fixes[400] = (
        "mend what it names (the head of a README.md on the Hub, or --license), then run the same command"
    )
    said = getattr(reason, "server_message", None)
    text = f"{status}: {said}" if said else str(reason) if isinstance(reason, ValueError) else ""
    # In the Hub's words, which may take several lines; or in the client's first one.
    found = shown(one_line(ValueError(" ".join(text.split())) if text else reason))
    fix = fixes.get(status or 0, "run the same command to go on")
    return TrainingError(where, expected="a Hub that takes it in", found=found, fix=fix)


def shown(text: str) -> str:
    """An address, or a text with some, without user and password."""
    return re.sub(r"//[^/\s]*@", "//", text)


def named(names: Sequence[str]) -> str:
    """The first of several names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
