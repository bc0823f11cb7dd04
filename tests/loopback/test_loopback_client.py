"""The real client cannot tell the loopback Hub from the Hub: uploads, listings, downloads, ranges."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from analysis360.loopback import Loopback

WEIGHTS = os.urandom(300_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint to upload: a large file, small ones, one in a folder, one that is empty."""
    root = tmp_path / "checkpoint"
    (root / "tokenizer").mkdir(parents=True)
    (root / "model.safetensors").write_bytes(WEIGHTS)
    (root / "config.json").write_text("{}")
    (root / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (root / "tokenizer/vocab.txt").write_text("a\nb\n")
    (root / "tokenizer/empty.bin").write_bytes(b"")
    return root


@pytest.fixture(params=["model", "dataset"])
def kind(request: pytest.FixtureRequest) -> str:
    """Both kinds of repository."""
    return str(request.param)


def test_a_folder_goes_up_and_comes_down(api: HfApi, folder: Path, tmp_path: Path, kind: str) -> None:
    url = api.create_repo("org/thing", repo_type=kind)
    assert (url.repo_id, url.repo_type) == ("org/thing", kind)
    info = api.upload_folder(repo_id="org/thing", repo_type=kind, folder_path=folder)
    where = {"repo_type": kind, "endpoint": api.endpoint, "cache_dir": tmp_path / "cache"}
    down = Path(snapshot_download("org/thing", **where))
    assert down.name == info.oid
    for file in (path for path in folder.rglob("*") if path.is_file()):
        assert (down / file.relative_to(folder)).read_bytes() == file.read_bytes()
    one = hf_hub_download("org/thing", "tokenizer/vocab.txt", revision=info.oid, **where)
    assert Path(one).read_text() == "a\nb\n"


def test_what_is_there_is_not_sent_again(hub: Loopback, api: HfApi, folder: Path) -> None:
    api.create_repo("org/m")
    first = api.upload_folder(repo_id="org/m", folder_path=folder)
    assert hub.counts.bytes["upload"] == len(WEIGHTS)
    hub.counts.clear()
    assert api.upload_folder(repo_id="org/m", folder_path=folder).oid == first.oid
    api.create_branch("org/m", branch="again")
    api.upload_file(repo_id="org/m", path_or_fileobj=WEIGHTS, path_in_repo="copy.bin", revision="again")
    assert hub.counts.requests["upload"] == 0


def test_listings_come_in_pages(hub: Loopback, api: HfApi) -> None:
    api.create_repo("org/m")
    names = [f"folder/sub{i % 2}/file{i:02d}.txt" for i in range(11)]
    api.create_commit(
        "org/m", [CommitOperationAdd(name, name.encode()) for name in names], commit_message="files"
    )
    hub.counts.clear()
    listed = list(api.list_repo_tree("org/m", recursive=True))
    assert [item.path for item in listed if hasattr(item, "size")] == sorted([".gitattributes", *names])
    assert {item.path for item in listed if not hasattr(item, "size")} == {
        "folder",
        "folder/sub0",
        "folder/sub1",
    }
    assert hub.counts.requests["api"] == 4  # fifteen entries, four a page
    assert [item.path for item in api.list_repo_tree("org/m", "folder")] == ["folder/sub0", "folder/sub1"]
    assert len(list(api.list_repo_tree("org/m", "folder/sub0", expand=True))) == 6
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("org/m", "nowhere"))


def test_paths_info_and_last_commits(api: HfApi) -> None:
    api.create_repo("org/m")
    for i in range(3):
        api.upload_file(
            repo_id="org/m", path_or_fileobj=b"%d" % i, path_in_repo=f"d/{i}.txt", commit_message=f"c{i}"
        )
    found = api.get_paths_info("org/m", ["d", "d/1.txt", "nowhere"], expand=True)
    assert [(item.path, item.last_commit["title"]) for item in found if item.last_commit] == [
        ("d", "c2"),
        ("d/1.txt", "c1"),
    ]
    titles = [commit.title for commit in api.list_repo_commits("org/m")]
    assert titles == ["c2", "c1", "c0", "initial commit"]
    assert (
        len(api.model_info("org/m", revision=api.list_repo_commits("org/m")[1].commit_id).siblings or []) == 3
    )


def test_branches_and_tags(api: HfApi, kind: str) -> None:
    api.create_repo("org/m", repo_type=kind)
    api.create_branch("org/m", branch="step/100", repo_type=kind)
    sha = api.upload_file(
        repo_id="org/m", path_or_fileobj=b"x", path_in_repo="x", revision="step/100", repo_type=kind
    ).oid
    api.create_tag("org/m", tag="v1", revision="step/100", repo_type=kind)
    refs = api.list_repo_refs("org/m", repo_type=kind)
    assert {branch.name: branch.ref for branch in refs.branches} == {
        "main": "refs/heads/main",
        "step/100": "refs/heads/step/100",
    }
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1", sha)]
    for ref in ("step/100", "v1", sha):
        assert api.file_exists("org/m", "x", revision=ref, repo_type=kind)
    assert not api.file_exists("org/m", "x", repo_type=kind)
    with pytest.raises(HfHubHTTPError) as error:
        api.create_branch("org/m", branch="step/100", repo_type=kind)
    assert error.value.response.status_code == 409
    api.create_branch("org/m", branch="step/100", repo_type=kind, exist_ok=True)
    api.delete_branch("org/m", branch="step/100", repo_type=kind)
    api.delete_tag("org/m", tag="v1", repo_type=kind)
    assert [branch.name for branch in api.list_repo_refs("org/m", repo_type=kind).branches] == ["main"]
    assert api.repo_info("org/m", revision=sha, repo_type=kind).sha == sha
    with pytest.raises(BadRequestError):
        api.delete_branch("org/m", branch="main", repo_type=kind)


def test_deletions_and_copies(api: HfApi, folder: Path) -> None:
    api.create_repo("org/m")
    api.upload_folder(repo_id="org/m", folder_path=folder)
    operations: list[Any] = [
        CommitOperationDelete("tokenizer/"),
        CommitOperationDelete("config.json"),
        CommitOperationCopy("model.safetensors", "again.safetensors"),
    ]
    api.create_commit("org/m", operations, commit_message="tidy")
    assert api.list_repo_files("org/m") == [
        ".gitattributes",
        "README.md",
        "again.safetensors",
        "model.safetensors",
    ]
    with pytest.raises(EntryNotFoundError):
        api.delete_file("config.json", "org/m")
    with pytest.raises(BadRequestError):  # a file cannot become a folder beside itself
        api.upload_file(repo_id="org/m", path_or_fileobj=b"", path_in_repo="README.md/x")


def test_what_is_not_there_has_its_own_error(api: HfApi, tmp_path: Path) -> None:
    api.create_repo("org/m")
    where = {"endpoint": api.endpoint, "cache_dir": tmp_path}
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("org/none", "x", **where)
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("org/m", "x", revision="none", **where)
    with pytest.raises(EntryNotFoundError) as error:
        hf_hub_download("org/m", "x", **where)
    assert error.value.response.headers["X-Repo-Commit"] == api.model_info("org/m").sha
    with pytest.raises(HfHubHTTPError):
        api.create_repo("org/m")
    with pytest.raises(ValueError, match="Invalid metadata"):
        api.upload_file(repo_id="org/m", path_or_fileobj=b"---\n[\n---\n", path_in_repo="README.md")


def test_ranges_of_files(hub: Loopback, api: HfApi, folder: Path) -> None:
    api.create_repo("org/m")
    api.upload_folder(repo_id="org/m", folder_path=folder)
    files = HfFileSystem(endpoint=hub.endpoint, skip_instance_cache=True)
    with files.open("org/m/model.safetensors", block_size=1000) as file:
        hub.counts.clear()
        file.seek(123_456)
        assert file.read(100) == WEIGHTS[123_456:123_556]
    assert (hub.counts.requests["resolve"], hub.counts.requests["cdn"]) == (1, 1)
    assert hub.counts.bytes["cdn"] == 1100
    with files.open("org/m/config.json") as file:
        assert file.read() == b"{}"


def test_a_cached_file_costs_one_request_a_snapshot_one(
    hub: Loopback, api: HfApi, folder: Path, tmp_path: Path
) -> None:
    api.create_repo("org/m")
    api.upload_folder(repo_id="org/m", folder_path=folder)
    where = {"endpoint": hub.endpoint, "cache_dir": tmp_path / "cache"}
    for _ in range(2):
        hub.counts.clear()
        hf_hub_download("org/m", "model.safetensors", **where)
    assert [(seen.method, seen.kind) for seen in hub.counts.seen] == [("HEAD", "resolve")]


def test_headers_of_a_large_file(hub: Loopback, api: HfApi, folder: Path, get: Any) -> None:
    api.create_repo("org/m")
    sha = api.upload_folder(repo_id="org/m", folder_path=folder).oid
    url = f"{hub.endpoint}/org/m/resolve/main/model.safetensors"
    first = get(url, "HEAD")
    assert (first.status_code, first.headers["X-Repo-Commit"]) == (302, sha)
    assert first.headers["X-Linked-Size"] == str(len(WEIGHTS))
    assert first.headers["Location"].startswith(f"http://localhost:{hub.port}/cdn/")
    part = get(first.headers["Location"], headers={"Range": "bytes=-5"})
    assert (part.status_code, part.content) == (206, WEIGHTS[-5:])
    assert part.headers["Content-Range"] == f"bytes 299995-299999/{len(WEIGHTS)}"
    beyond = get(first.headers["Location"], headers={"Range": "bytes=300000-"})
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, "bytes */300000")
    small = get(f"{hub.endpoint}/org/m/resolve/main/config.json")
    assert (small.status_code, small.headers["X-Repo-Commit"], small.content) == (200, sha, b"{}")
    assert small.headers["ETag"] == '"9e26dfeeb6e641a33dae4961196235bdb965b21b"'  # git's id of the blob "{}"
