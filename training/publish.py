"""Publish a trained series to a Hub: a model repository with a branch a checkpoint, and a repository of its data."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from analysis360.digests import file_sha256
from analysis360.loopback.attributes import git_oid
from analysis360.loopback.published import MANIFEST_NAME, Published, published
from training.errors import TrainingError
from training.files import only_one

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

__all__ = ["publish"]

HUB = "huggingface.co"
FILES_PER_COMMIT = 50
KEPT = (".gitattributes", "README.md")
"""Files of a repository that are not ours to remove."""


def publish(
    out: Path,
    repository: str,
    *,
    endpoint: str | None = None,
    private: bool = False,
    report: Callable[[str], None] = print,
) -> str:
    """Bring `repository` (`org/name`) and `org/name-data` to what the folder holds; returns a line that sums it up.

    What is there already, by SHA-256, is not sent again, so a run that was stopped goes on where it was.
    Data comes first, then the checkpoints, and last `main` with series.toml, which makes the series complete.
    `endpoint` is a Hub's address; HF_ENDPOINT or the Hugging Face Hub if it is None. Raises SeriesError for
    a folder that holds no series, and TrainingError where the Hub refuses or cannot be reached.
    """
    endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or f"https://{HUB}").rstrip("/")
    if repository.count("/") != 1 or not all(repository.split("/")):
        fix = "give --repository org/name"
        raise TrainingError("--repository", expected="an organisation and a name", found=repository, fix=fix)
    if urlsplit(endpoint).hostname != HUB:  # the transport of the Hugging Face Hub alone
        os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    from huggingface_hub import HfApi

    with only_one(out), _explained(endpoint):
        series = published(out)
        api = HfApi(endpoint=endpoint, library_name="analysis360")
        sent = _send_data(api, series, f"{repository}-data", private, report)
        sent += _send_checkpoints(api, series, repository, private, report)
        sent += _send_main(api, series, repository, report)
    return f"{endpoint}/{repository}: {len(series.checkpoints)} checkpoints, {sent} files sent, the rest was there"


def _send_data(
    api: "HfApi", series: Published, repository: str, private: bool, report: Callable[[str], None]
) -> int:
    api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
    sent = _bring(api, repository, "dataset", "main", dict(series.data), "Data")
    report(_line("data", len(series.data), sent))
    return sent


def _send_checkpoints(
    api: "HfApi", series: Published, repository: str, private: bool, report: Callable[[str], None]
) -> int:
    api.create_repo(repository, private=private, exist_ok=True)
    empty = api.list_repo_commits(repository)[
        -1
    ].commit_id  # branches hold their own checkpoint, nothing of main
    there = {branch.name for branch in api.list_repo_refs(repository).branches}
    total = 0
    for name in series.checkpoints:
        if name not in there:
            api.create_branch(repository, branch=name, revision=empty, exist_ok=True)
        files = series.checkpoint(name)
        sent = _bring(api, repository, "model", name, dict(files), f"Checkpoint {name}")
        report(_line(name, len(files), sent))
        total += sent
    return total


def _send_main(api: "HfApi", series: Published, repository: str, report: Callable[[str], None]) -> int:
    files: dict[str, Path | bytes] = {**series.checkpoint(series.last), **series.extra}
    files[MANIFEST_NAME] = series.manifest(repository, f"{repository}-data")
    sent = _bring(api, repository, "model", "main", files, "Manifest and last checkpoint")
    report(_line("main", len(files), sent))
    return sent


def _bring(
    api: "HfApi", repository: str, kind: str, branch: str, files: dict[str, Path | bytes], title: str
) -> int:
    """Make a branch hold these files; returns how many had to be sent.

    The last commit removes what else the branch of a checkpoint holds; what others put on `main` stays.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.hf_api import RepoFile

    listed = api.list_repo_tree(repository, recursive=True, revision=branch, repo_type=kind)
    there = {file.path: file for file in listed if isinstance(file, RepoFile)}
    missing = [path for path in sorted(files) if path not in there or not _equal(files[path], there[path])]
    missing.sort(key=lambda path: path == MANIFEST_NAME)
    doomed = [
        CommitOperationDelete(path)
        for path in sorted(there.keys() - files.keys() - {*KEPT})
        if branch != "main"
    ]
    for start in range(0, max(len(missing), bool(doomed)), FILES_PER_COMMIT):
        part = missing[start : start + FILES_PER_COMMIT]
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(path, files[path]) for path in part
        ]
        if start + FILES_PER_COMMIT >= len(missing):
            operations += doomed
        api.create_commit(repository, operations, commit_message=title, revision=branch, repo_type=kind)
    return len(missing)


def _equal(file: Path | bytes, remote: "RepoFile") -> bool:
    """Whether a file of the Hub has the content of ours: by SHA-256, or by git's id where it is small."""
    size = len(file) if isinstance(file, bytes) else file.stat().st_size
    if size != remote.size:
        return False
    if remote.lfs is not None and isinstance(file, Path):
        return remote.lfs.sha256 == file_sha256(file)
    return remote.blob_id == git_oid(file)


def _line(name: str, files: int, sent: int) -> str:
    return f"{name}: {sent} of {files} files sent" if sent else f"{name}: there already"


@contextmanager
def _explained(endpoint: str) -> Iterator[None]:
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
        found = one_line(reason if isinstance(reason, Exception) else error)
        raise TrainingError(endpoint, expected="a Hub that takes it in", found=found, fix=fix) from None
