"""Publish a trained series to a Hub: a model repository with a branch a checkpoint, and a repository of its data."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from analysis360.loopback.published import MANIFEST_NAME, Published, published
from training.errors import TrainingError
from training.files import only_one
from training.publishing.card import data_card, data_head, model_card, model_head
from training.publishing.hub import Branch, differing, explained, listed, verify
from training.publishing.readme import BEGIN, END, brought_up_to_date, check_license
from training.publishing.tables import Release, release_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["publish"]

HUB = "huggingface.co"
CARD = "README.md"
FILES_PER_COMMIT = 50
KEPT = (".gitattributes", CARD)
"""Files of a repository that are not ours to remove."""
Report = Callable[[str], None]


def publish(
    out: Path,
    repository: str,
    *,
    endpoint: str | None = None,
    private: bool = False,
    license: str | None = None,
    report: Report = print,
) -> str:
    """Bring `repository` (`org/name`) and `org/name-data` to what the folder holds; returns a line that sums it up.

    What is there already, by SHA-256, is not sent again, so a run that was stopped goes on where it was.
    Data comes first, then the checkpoints, and last `main` with series.toml, which makes the series complete.
    In the end every file is compared with what the Hub lists. `endpoint` is a Hub's address; HF_ENDPOINT or
    the Hugging Face Hub if it is None. Raises SeriesError for a folder that holds no series, and
    TrainingError where the Hub refuses, cannot be reached, or lists other files than ours.
    """
    endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or f"https://{HUB}").rstrip("/")
    if repository.count("/") != 1 or not all(repository.split("/")):
        fix = "give --to org/name"
        raise TrainingError("--to", expected="an organisation and a name", found=repository, fix=fix)
    check_license(license)
    if urlsplit(endpoint).hostname != HUB:  # the transport of the Hugging Face Hub alone
        os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    from huggingface_hub import HfApi

    with only_one(out), explained(endpoint):
        series = published(out)
        release = release_of(out, series, repository)
        api = HfApi(endpoint=endpoint, library_name="analysis360")
        api.create_repo(release.data, repo_type="dataset", private=private, exist_ok=True)
        api.create_repo(repository, private=private, exist_ok=True)
        branches = [_data(api, release, license, report), *_checkpoints(series, repository)]
        branches.append(_main(api, release, license, report))
        sent = _send(api, repository, branches, report)
        checked = verify(api, branches, endpoint)
    return (
        f"{endpoint}/{repository}: {len(series.checkpoints)} checkpoints, {sent} files sent, the rest was there; "
        f"all {checked} are there as they are here"
    )


def _data(api: "HfApi", release: Release, license: str | None, report: Report) -> Branch:
    card = _card(api, release, "dataset", license, report)
    return Branch("data", release.data, "dataset", "main", {**release.series.data, **card}, "Data")


def _checkpoints(series: Published, repository: str) -> Iterator[Branch]:
    for name in series.checkpoints:
        files: dict[str, Path | bytes] = dict(series.checkpoint(name))
        yield Branch(name, repository, "model", name, files, f"Checkpoint {name}")


def _main(api: "HfApi", release: Release, license: str | None, report: Report) -> Branch:
    series = release.series
    files: dict[str, Path | bytes] = {**series.checkpoint(series.last), **series.extra}
    files[MANIFEST_NAME] = series.manifest(release.repository, release.data)
    files.pop(CARD, None)  # that of the checkpoint
    files |= _card(api, release, "model", license, report)
    return Branch("main", release.repository, "model", "main", files, "Manifest and last checkpoint")


def _card(
    api: "HfApi", release: Release, kind: str, license: str | None, report: Report
) -> dict[str, Path | bytes]:
    """README.md as it is to be; nothing where a person wrote one without our marks."""
    name = release.repository.split("/")[1]
    if kind == "model":
        repository, title, head, body = (
            release.repository,
            name,
            model_head(release, license),
            model_card(release),
        )
    else:
        title, head, body = f"Data of {name}", data_head(release, license), data_card(release)
        repository = release.data
    old = None
    if api.file_exists(repository, CARD, repo_type=kind):
        with tempfile.TemporaryDirectory() as folder:
            path = api.hf_hub_download(repository, CARD, repo_type=kind, cache_dir=folder)
            old = Path(path).read_bytes().decode("utf-8", "surrogateescape")
    text = brought_up_to_date(old, head, title, body, license)
    if text is None:
        where = f"{CARD} of {repository}"
        report(f"{where}: no marks of ours, so it stays as it is; add these for the tables: {BEGIN} {END}")
        return {}
    return {CARD: text.encode("utf-8", "surrogateescape")}


def _send(api: "HfApi", repository: str, branches: list[Branch], report: Report) -> int:
    """Make the branches and what they hold; returns how many files had to be sent."""
    empty = api.list_repo_commits(repository)[-1].commit_id  # a checkpoint's branch holds nothing of main
    there = {branch.name for branch in api.list_repo_refs(repository).branches}
    total = 0
    for target in branches:
        if target.kind == "model" and target.branch not in {*there, "main"}:
            api.create_branch(repository, branch=target.branch, revision=empty, exist_ok=True)
        sent = _bring(api, target)
        news = f"{sent} of {len(target.files)} files sent" if sent else "there already"
        report(f"{target.name}: {news}")
        total += sent
    return total


def _bring(api: "HfApi", target: Branch) -> int:
    """Make a branch hold its files; returns how many had to be sent.

    The last commit removes what else the branch of a checkpoint holds; what others put on `main` stays.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    files, there = target.files, listed(api, target)
    missing = differing(target, there)
    missing.sort(key=lambda path: path == MANIFEST_NAME)
    surplus = sorted(there.keys() - files.keys() - {*KEPT}) if target.branch != "main" else []
    doomed = [CommitOperationDelete(path) for path in surplus]
    for start in range(0, max(len(missing), bool(doomed)), FILES_PER_COMMIT):
        part = missing[start : start + FILES_PER_COMMIT]
        adding = [CommitOperationAdd(path, files[path]) for path in part]
        operations = [*adding, *(doomed if start + FILES_PER_COMMIT >= len(missing) else ())]
        api.create_commit(
            target.repository,
            operations,
            commit_message=target.title,
            revision=target.branch,
            repo_type=target.kind,
        )
    return len(missing)
