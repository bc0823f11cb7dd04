"""Publish a trained series to a Hub: a model repository with a branch a checkpoint, and a repository of its data."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from analysis360.loopback.published import MANIFEST_NAME, published
from training.errors import TrainingError
from training.files import only_one
from training.publishing.arguments import check_license, check_repository
from training.publishing.card import absolute_paths, data_card, data_head, model_card, model_head
from training.publishing.hub import KEPT, Branch, differing, explained, listed, shown, verify
from training.publishing.local import readable, reading
from training.publishing.readme import BEGIN, END, brought_up_to_date
from training.publishing.tables import HUB, Release, release_of
from training.series import RECIPE

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["publish"]

CARD = "README.md"
FILES_PER_COMMIT = 50
Report = Callable[[str], None]


@dataclass(frozen=True)
class Card:
    """What README.md of a repository is made of."""

    head: str
    title: str
    body: str


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
    Everything of the folder is read first. Then data comes, then the checkpoints, and last `main` with series.toml,
    which makes the series complete. In the end every file is compared with what the Hub lists. `endpoint` is a Hub's
    address; HF_ENDPOINT or the Hugging Face Hub if it is None. Raises SeriesError for a folder that holds no series,
    and TrainingError for files that are damaged, and where the Hub refuses, cannot be reached, lists other files than
    ours, or holds in public what is to be `private`.
    """
    endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    check_repository(repository)
    check_license(license)
    if not out.is_dir():
        found, fix = "a file" if out.exists() else "none", "give the folder that `run` filled"
        raise TrainingError(out, expected="the folder of a series", found=found, fix=fix)
    if urlsplit(endpoint).hostname != urlsplit(HUB).hostname:  # the transport of the Hugging Face Hub alone
        os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    from huggingface_hub import HfApi

    with only_one(out):
        with readable(out):
            with reading(out / MANIFEST_NAME, "a manifest", "mend it"):
                series = published(out)
            release = release_of(out, series, repository, shown(endpoint))
            data, *checkpoints, main = branches = _branches(release)
            cards = _cards(release, license)
        for field in absolute_paths(release):
            report(f"{RECIPE}: {field} is a path of this machine, and is published as it is")
        with explained(endpoint):
            api = HfApi(endpoint=endpoint, library_name="analysis360")
            _create(api, [data, main], private)
            for target, card in zip((data, main), cards, strict=True):
                target.files.update(_readme(api, target, card, license, report))
            sent = _send(api, repository, branches, report)
            checked, more = verify(api, branches, endpoint)
    for line in more:
        report(line)
    return (
        f"{shown(endpoint)}/{repository}: {len(checkpoints)} checkpoints, {sent} files sent, the rest was there; "
        f"all {checked} are there as they are here"
    )


def _branches(release: Release) -> list[Branch]:
    """The data, the checkpoints, and `main` with the last of them; the cards are still to come."""
    series, repository = release.series, release.repository
    branches = [Branch("data", release.data, "dataset", "main", {**series.data}, "Data")]
    for name in series.checkpoints:
        files: dict[str, Path | bytes] = {**series.checkpoint(name)}
        branches.append(Branch(name, repository, "model", name, files, f"Checkpoint {name}"))
    files = {**series.checkpoint(series.last), **series.extra}
    files[MANIFEST_NAME] = series.manifest(repository, release.data)
    files.pop(CARD, None)  # that of the checkpoint
    return [*branches, Branch("main", repository, "model", "main", files, "Manifest and last checkpoint")]


def _cards(release: Release, license: str | None) -> tuple[Card, Card]:
    """Of the data and of the model."""
    name = release.repository.split("/")[1]
    data = Card(data_head(release, license), f"Data of {name}", data_card(release))
    return data, Card(model_head(release, license), name, model_card(release))


def _create(api: "HfApi", targets: list[Branch], private: bool) -> None:
    """Make the repositories. One that exists stays as it is, so it is asked whether it is private."""
    for target in targets:
        api.create_repo(target.repository, repo_type=target.kind, private=private, exist_ok=True)
    for target in targets if private else ():
        if api.repo_info(target.repository, repo_type=target.kind).private is not True:
            expected, fix = "a private repository", "make it private in its settings, or leave --private out"
            raise TrainingError(target.repository, expected=expected, found="a public one", fix=fix)


def _readme(
    api: "HfApi", target: Branch, card: Card, license: str | None, report: Report
) -> dict[str, Path | bytes]:
    """README.md as it is to be; nothing where a person wrote one without our marks."""
    old = None
    if api.file_exists(target.repository, CARD, repo_type=target.kind):
        with tempfile.TemporaryDirectory() as folder:
            path = api.hf_hub_download(target.repository, CARD, repo_type=target.kind, cache_dir=folder)
            old = Path(path).read_bytes().decode("utf-8", "surrogateescape")
    text = brought_up_to_date(old, card.head, card.title, card.body, license)
    if text is None:
        where = f"{CARD} of {target.repository}"
        report(f"{where}: not these two marks, once and in order, so it stays as it is: {BEGIN} {END}")
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
