"""A series on disk is served as if it were published; nothing in its folder changes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from raw import get_path
from small_series import MakeSeries

from analysis360.digests import file_sha256
from analysis360.errors import SeriesError
from analysis360.loopback import Loopback

Listing = dict[str, tuple[int, int]]


def listing(folder: Path) -> Listing:
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in folder.rglob("*")}


def test_a_branch_a_checkpoint_and_a_repository_of_data(small_series: Path, tmp_path: Path) -> None:
    before = listing(small_series)
    with Loopback(small_series) as hub:
        api = HfApi(endpoint=hub.endpoint)
        branches = {branch.name for branch in api.list_repo_refs("local/small").branches}
        assert branches == {"main", *(f"ckpt_{i:03d}" for i in range(4))}
        for name in ("ckpt_001", "main"):
            folder = small_series / "checkpoints" / (name if name != "main" else "ckpt_003")
            where = {"revision": name, "endpoint": hub.endpoint, "cache_dir": tmp_path}
            down = Path(snapshot_download("local/small", **where))
            names = {file.name for file in folder.iterdir()} | ({"series.toml"} if name == "main" else set())
            assert {file.name for file in down.iterdir()} == names
            assert file_sha256(down / "model.safetensors") == file_sha256(folder / "model.safetensors")
        data = Path(
            snapshot_download(
                "local/small-data", repo_type="dataset", endpoint=hub.endpoint, cache_dir=tmp_path
            )
        )
        for relative in ("train/train_002.jsonl", "held-out/held-out_001.jsonl", "canaries.jsonl"):
            assert (data / relative).read_bytes() == (small_series / relative).read_bytes()
    assert listing(small_series) == before


def test_the_manifest_is_rewritten_for_a_hub(small_series: Path, tmp_path: Path) -> None:
    with Loopback(small_series) as hub:
        api = HfApi(endpoint=hub.endpoint)
        text = api.hf_hub_download("local/small", "series.toml", cache_dir=tmp_path)
        manifest = tomllib.loads(Path(text).read_text())
        branches = [branch.name for branch in api.list_repo_refs("local/small").branches]
    original = tomllib.loads((small_series / "series.toml").read_text())
    checkpoints = manifest["checkpoints"]
    assert {key: checkpoints[key] for key in checkpoints if key != "revision"} == {
        "repository": "local/small",
        "order": ["index"],
        "expected": 4,
    }
    matched = [re.fullmatch(checkpoints["revision"], branch) for branch in branches]
    assert [int(match["index"]) for match in matched if match] == [0, 1, 2, 3]
    for section in ("data", "held_out", "canaries"):
        assert manifest[section] == {"repository": "local/small-data", **original[section]}
    for section in ("manifest", "name", "model"):
        assert manifest[section] == original[section]
    assert manifest["exposure"] == {**original["exposure"], "label": "index", "offset": 0}


def test_commits_are_the_same_every_time(small_series: Path) -> None:
    heads = []
    for _ in range(2):
        with Loopback(small_series) as hub:
            heads.append(HfApi(endpoint=hub.endpoint).list_repo_refs("local/small").branches)
    assert heads[0] == heads[1]


def test_nothing_is_taken_in(small_series: Path) -> None:
    with Loopback(small_series) as hub:
        api = HfApi(endpoint=hub.endpoint, token="any")
        for write in (
            lambda: api.create_repo("local/other"),
            lambda: api.create_branch("local/small", branch="b"),
            lambda: api.upload_file(repo_id="local/small", path_or_fileobj=b"x", path_in_repo="x"),
        ):
            with pytest.raises(HfHubHTTPError) as error:
                write()
            assert error.value.response.status_code == 403
        for address in (
            "series.toml",
            "../series.toml",
            "checkpoints/ckpt_000/config.json",
            "..%2f..%2fseries.toml",
        ):
            assert get_path(hub.port, f"/local/small/resolve/ckpt_000/{address}")[0] in (400, 404)


def test_a_file_that_changed_is_not_served_under_its_old_name(make_series: MakeSeries) -> None:
    folder = make_series("changing")
    with Loopback(folder) as hub:
        path = "/datasets/local/changing-data/resolve/main/canaries.jsonl"
        assert get_path(hub.port, path)[0] == 200
        (folder / "canaries.jsonl").write_text("another")
        status, answer = get_path(hub.port, path)
        assert status == 500
        assert b"has changed" in answer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("train/train_{index:03d}", "../train_{index:03d}"), "leaves the folder"),
        (("canaries.jsonl", "/etc/passwd"), "leaves the folder"),
        (("train/train_{index:03d}", "none/train_{index:03d}"), "missing"),
        (("checkpoints/ckpt_{index:03d}", "none/ckpt_{index:03d}"), "missing or empty"),
        (('name = "small"', 'name = "../small"'), "key 'name'"),
        (("[data]", "[data"), "not a readable manifest"),
    ],
)
def test_manifests_that_cannot_be_served(
    make_series: MakeSeries, change: tuple[str, str], message: str
) -> None:
    folder = make_series("small", checkpoints=1, chunks=1)
    text = (folder / "series.toml").read_text()
    assert change[0] in text
    (folder / "series.toml").write_text(text.replace(*change))
    with pytest.raises(SeriesError, match=message):
        Loopback(folder)
