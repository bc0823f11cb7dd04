"""A trained series is published, found complete, and published again without being sent again."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from small_series import MakeSeries

from analysis360.digests import file_sha256
from analysis360.loopback import Fault, Loopback
from training.__main__ import main
from training.errors import TrainingError
from training.publishing.publish import publish


@pytest.fixture
def trained(make_series: MakeSeries) -> Path:
    """A folder as a trainer leaves it."""
    return make_series("trained", checkpoints=3, chunks=2)


def command(hub: Loopback, folder: Path) -> list[str]:
    return ["publish", str(folder), "--to", "org/tiny", "--endpoint", hub.endpoint]


def test_a_branch_a_checkpoint(
    hub: Loopback, api: HfApi, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(hub, trained)) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{hub.endpoint}/org/tiny: 3 checkpoints, ")
    branches = {branch.name for branch in api.list_repo_refs("org/tiny").branches}
    assert branches == {"main", "ckpt_000", "ckpt_001", "ckpt_002"}
    for name, folder in (("ckpt_000", "ckpt_000"), ("main", "ckpt_002")):
        (weights,) = api.get_paths_info("org/tiny", "model.safetensors", revision=name)
        assert weights.lfs.sha256 == file_sha256(trained / f"checkpoints/{folder}/model.safetensors")
    assert "series.toml" not in api.list_repo_files("org/tiny", revision="ckpt_000")
    file = api.hf_hub_download("org/tiny", "series.toml", cache_dir=tmp_path / "cache")
    manifest = tomllib.loads(Path(file).read_text())
    assert manifest["checkpoints"]["repository"] == "org/tiny"
    assert manifest["data"]["repository"] == "org/tiny-data"
    data = set(api.list_repo_files("org/tiny-data", repo_type="dataset"))
    assert {"train/train_001.jsonl", "held-out/held-out_000.jsonl", "canaries.jsonl"} < data


def test_again_it_sends_nothing_and_after_a_change_only_that(
    hub: Loopback, api: HfApi, trained: Path
) -> None:
    lines: list[str] = []
    publish(trained, "org/tiny", endpoint=hub.endpoint, report=lines.append)
    commits = [branch.target_commit for branch in api.list_repo_refs("org/tiny").branches]
    hub.counts.clear()
    lines.clear()
    assert ", 0 files sent" in publish(trained, "org/tiny", endpoint=hub.endpoint, report=lines.append)
    assert all(line.endswith(": there already") for line in lines)
    assert hub.counts.requests["upload"] == 0
    assert [branch.target_commit for branch in api.list_repo_refs("org/tiny").branches] == commits
    (trained / "checkpoints/ckpt_001/config.json").write_text("{}")
    (trained / "checkpoints/ckpt_001/generation_config.json").unlink()
    assert ", 1 files sent" in publish(trained, "org/tiny", endpoint=hub.endpoint, report=lines.append)
    listed = api.list_repo_files("org/tiny", revision="ckpt_001")
    assert listed == [".gitattributes", "config.json", "model.safetensors"]


def test_stopped_half_way_it_goes_on(
    hub: Loopback, api: HfApi, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.faults.next("POST .*/commit/ckpt_001", Fault(status=403))
    assert main(command(hub, trained)) == 1
    captured = capsys.readouterr()
    assert len(captured.err.strip().splitlines()) == 1
    assert "series.toml" not in api.list_repo_files("org/tiny")  # complete is what has its manifest
    hub.counts.clear()
    assert main(command(hub, trained)) == 0
    assert "ckpt_000: there already" in capsys.readouterr().out
    assert hub.counts.requests["upload"] == 1  # the second checkpoint's had arrived, the third's had not
    assert "series.toml" in api.list_repo_files("org/tiny")


def test_a_hub_out_of_reach_is_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Loopback(tmp_path / "gone") as gone:
        endpoint = gone.endpoint
    assert main(["publish", str(trained), "--to", "org/tiny", "--endpoint", endpoint]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    with pytest.raises(TrainingError, match="org/name"):
        publish(trained, "tiny", endpoint=endpoint)
    assert main(["publish", str(tmp_path / "none"), "--to", "o/t", "--endpoint", endpoint]) == 1


def test_private_and_with_a_token(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_alice_secret")
    lines: list[str] = []
    with Loopback(tmp_path / "guarded", tokens={"hf_alice_secret": ("alice",)}) as hub:
        lines.append(publish(trained, "alice/tiny", endpoint=hub.endpoint, private=True, report=lines.append))
        assert HfApi(endpoint=hub.endpoint).model_info("alice/tiny").private
        with pytest.raises(TrainingError, match="log in") as error:
            publish(trained, "bob/tiny", endpoint=hub.endpoint, report=lines.append)
    assert "secret" not in "\n".join(lines) + str(error.value)
