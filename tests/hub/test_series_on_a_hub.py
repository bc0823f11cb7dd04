"""Series swept from a Hub: the same rows as from disk, whatever the Hub does meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from huggingface_hub import HfApi
from released import ROWS_PER_STEP, STEPS, pickled, pythia_like, release
from small_series import save_llama

import analysis360 as a360
from analysis360.errors import HubError, SeriesError
from analysis360.loopback import Fault, Loopback
from analysis360.results import MemorizationResult

HOW: dict[str, Any] = {"prompt_tokens": 8, "continuation_tokens": 24, "engine": "torch", "progress": False}
MODEL = "lab/small"


def score(series: Any, out: Path, **how: Any) -> MemorizationResult:
    return a360.memorization(series, out=out, **{**HOW, **how})


def options(server: Loopback, tmp_path: Path, **how: Any) -> a360.HubOptions:
    given = {"cache": tmp_path / "cache", "endpoint": server.endpoint, "timeout": 2.0, "patience": 60.0}
    return a360.HubOptions(**{**given, **how})


@pytest.fixture(scope="module")
def expected(small_series: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return score(small_series, tmp_path_factory.mktemp("disk")).frame()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Loopback]:
    (tmp_path / "store").mkdir()
    with Loopback(tmp_path / "store") as server:
        yield server


@pytest.fixture
def public(store: Loopback, small_series: Path) -> Loopback:
    """The small series, published."""
    release(store, small_series)
    store.counts.clear()
    return store


def test_the_same_rows_as_from_disk(public: Loopback, tmp_path: Path, expected: pd.DataFrame) -> None:
    result = score(MODEL, tmp_path / "out", hub=options(public, tmp_path))
    pd.testing.assert_frame_equal(result.frame(), expected)
    assert result.notes == ["6 chunks hold fewer than 1000 sequences (12); all of theirs are used"]
    footers = [json.dumps(part, default=str) for part in result.rows.provenance]
    refs = HfApi(endpoint=public.endpoint).list_repo_refs(MODEL).branches
    for ref in refs:
        if ref.name != "main":
            assert any(ref.target_commit in footer and f'"{ref.name}"' in footer for footer in footers)
    again = score(MODEL, tmp_path / "out", hub=options(public, tmp_path))
    assert again.report.computed == 0
    pd.testing.assert_frame_equal(again.frame(), expected)


def test_served_from_its_folder_it_is_the_same_too(
    small_series: Path, tmp_path: Path, expected: pd.DataFrame
) -> None:
    before = {path: path.stat().st_mtime_ns for path in small_series.rglob("*")}
    with Loopback(small_series) as server:
        result = score("local/small", tmp_path / "out", hub=options(server, tmp_path))
    pd.testing.assert_frame_equal(result.frame(), expected)
    assert {path: path.stat().st_mtime_ns for path in small_series.rglob("*")} == before


def test_results_of_the_disk_are_found_by_the_hub(
    public: Loopback, small_series: Path, tmp_path: Path
) -> None:
    score(small_series, tmp_path / "out")
    result = score(MODEL, tmp_path / "out", hub=options(public, tmp_path))
    assert result.report.computed == 0, "the content is the same, wherever it is"
    weights = [seen for seen in public.counts.seen if seen.kind == "cdn" and seen.method == "GET"]
    assert not weights


def test_two_branches_of_one_content_are_computed_once(
    public: Loopback, small_series: Path, tmp_path: Path
) -> None:
    api = HfApi(endpoint=public.endpoint)
    api.upload_folder(repo_id=MODEL, folder_path=small_series / "checkpoints/ckpt_000", revision="ckpt_003")
    result = score(MODEL, tmp_path / "out", hub=options(public, tmp_path))
    by = dict(list(result.frame().groupby("ckpt", observed=True)))
    assert by["ckpt_000"]["score"].tolist() == by["ckpt_003"]["score"].tolist()
    assert result.report.computed == 3 * len(by["ckpt_000"])


def test_a_branch_that_moves_is_named_and_not_followed(
    public: Loopback, tmp_path: Path, expected: pd.DataFrame
) -> None:
    save_llama(tmp_path / "other", 99)
    api = HfApi(endpoint=public.endpoint)

    def move() -> None:
        api.upload_folder(repo_id=MODEL, folder_path=tmp_path / "other", revision="ckpt_002")

    public.faults.next(r"GET /cdn/", Fault(call=move))
    result = score(MODEL, tmp_path / "out", hub=options(public, tmp_path))
    pd.testing.assert_frame_equal(result.frame(), expected)
    assert [note for note in result.notes if "branch ckpt_002 moved to" in note]
    anew = score(MODEL, tmp_path / "out", hub=options(public, tmp_path))
    assert anew.report.computed == len(expected) // 4, "opened again, the new weights are another checkpoint"


def test_checkpoints_that_are_not_listed_are_named(public: Loopback, tmp_path: Path) -> None:
    HfApi(endpoint=public.endpoint).delete_branch(MODEL, branch="ckpt_001")
    series = a360.open_series(MODEL, hub=options(public, tmp_path))
    assert [c.name for c in series.checkpoints] == ["ckpt_000", "ckpt_002", "ckpt_003"]
    assert any("3 checkpoints are listed; 4 were expected" in note for note in series.notes)
    assert series.exposure.times(1).tolist() == [1, 1, 1, 0], "ckpt_002 stays what it was"


def test_a_repository_without_a_manifest_needs_one(public: Loopback, tmp_path: Path) -> None:
    series = a360.open_series(MODEL, hub=options(public, tmp_path), pattern=r"ckpt_(?P<index>\d+)")
    assert [c.name for c in series.checkpoints] == [f"ckpt_{i:03d}" for i in range(4)]
    with pytest.raises(a360.SelectionError, match="names no data"):
        score(series, tmp_path / "out")
    with pytest.raises(SeriesError, match="none of 5 branches is a checkpoint"):
        a360.open_series(MODEL, hub=options(public, tmp_path), pattern=r"step(?P<step>\d+)")


def test_room_for_two_checkpoints_is_enough(
    public: Loopback, tmp_path: Path, expected: pd.DataFrame, small_series: Path
) -> None:
    """The shards here are small, so what counts as large is made smaller."""
    one = (small_series / "checkpoints/ckpt_000/model.safetensors").stat().st_size
    code = (
        "import sys; import analysis360.hub.shelf as shelf; shelf.SMALL = 10_000\n"
        "from analysis360.cli import main; sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = ["memorization", "--series", MODEL, "--out", str(tmp_path / "out"), "--quiet"]
    arguments += ["--prompt-tokens", "8", "--continuation-tokens", "24", "--engine", "torch"]
    arguments += ["--cache", str(tmp_path / "cache"), "--disk", str(int(2.2 * one))]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "HF_ENDPOINT": public.endpoint},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "from the Hub:" in done.stdout
    assert len(list((tmp_path / "cache").rglob("model.safetensors"))) <= 2
    result = score(MODEL, tmp_path / "out", hub=options(public, tmp_path), compute=False)
    pd.testing.assert_frame_equal(result.frame(), expected)


def run(server: Loopback, tmp_path: Path, *more: str, **environment: str) -> subprocess.Popen[str]:
    arguments = ["memorization", "--series", MODEL, "--out", str(tmp_path / "out"), "--quiet"]
    arguments += ["--prompt-tokens", "8", "--continuation-tokens", "24", "--engine", "torch"]
    arguments += ["--cache", str(tmp_path / "cache"), *more]
    return subprocess.Popen(
        [sys.executable, "-m", "analysis360.cli", *arguments],
        env={**os.environ, "HF_ENDPOINT": server.endpoint, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_offline_what_is_cached_is_enough_and_what_is_not_is_named(public: Loopback, tmp_path: Path) -> None:
    assert run(public, tmp_path, "--ckpts", "0:2").wait() == 0
    shutil.rmtree(tmp_path / "out")
    public.counts.clear()
    offline = run(public, tmp_path, "--ckpts", "0:2", HF_HUB_OFFLINE="1")
    told, _ = offline.communicate()
    assert offline.returncode == 0
    assert "out of reach; commits are those of the last connection" in told
    missing = run(public, tmp_path, "--ckpts", "0:3", HF_HUB_OFFLINE="1")
    _, error = missing.communicate()
    assert missing.returncode == 1
    assert error.count("\n") == 1
    assert "lab/small" in error
    assert "offline, and it is not in the cache" in error
    assert not public.counts.requests


def test_interrupted_while_it_downloads_it_ends_at_once_and_goes_on(
    public: Loopback, tmp_path: Path, expected: pd.DataFrame
) -> None:
    public.faults.often(r"GET /cdn/.*", Fault(stall=30.0), 1.0)
    process = run(public, tmp_path)
    until = time.monotonic() + 60
    while not list((tmp_path / "cache").rglob("*.part")) and time.monotonic() < until:
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert time.monotonic() - began < 10
    public.faults.clear()
    result = score(MODEL, tmp_path / "out", hub=options(public, tmp_path))
    pd.testing.assert_frame_equal(result.frame(), expected)


def test_a_refusal_in_the_middle_keeps_what_was_done(
    public: Loopback, tmp_path: Path, expected: pd.DataFrame
) -> None:
    cdn = r"GET /cdn/"
    public.faults.next(cdn, Fault(), times=2)
    public.faults.often(cdn, Fault(status=429, retry_after=3600), 1.0)
    with pytest.raises(HubError, match="rate limited for 3600 s") as caught:
        score(MODEL, tmp_path / "out", hub=options(public, tmp_path, patience=5.0))
    assert "\n" not in str(caught.value)
    public.faults.clear()
    result = score(MODEL, tmp_path / "out", hub=options(public, tmp_path))
    assert 0 < result.report.stored < len(expected)
    pd.testing.assert_frame_equal(result.frame(), expected)


def test_a_series_like_pythia(store: Loopback, tmp_path: Path) -> None:
    folder = tmp_path / "pythia"
    folder.mkdir()
    manifest, ids = pythia_like(store, folder)
    series = a360.open_series(manifest, hub=options(store, tmp_path))
    assert [c.name for c in series.checkpoints] == [f"step{step}" for step in STEPS]
    assert [c.window for c in series.chunks] == [(0, 20), (20, 40), (40, 50)]
    assert any("step16" in note for note in series.notes)
    result = score(series, tmp_path / "out")
    frame = result.frame()
    for name, step in zip([c.name for c in series.checkpoints], STEPS, strict=True):
        of = frame[frame["ckpt"] == name]
        assert sorted(of["row"]) == list(range(50))
        seen = step * ROWS_PER_STEP
        truth = [seen // 50 + (row < seen % 50) for row in of["row"]]
        assert of["exposures"].tolist() == truth, "rows are read in order, and again from the first"
    panel = result.task.panels[series.chunks[1].name]
    np.testing.assert_array_equal(panel.ids, ids[panel.rows][:, :32])
    here = score(folder, tmp_path / "local").frame()
    assert frame["score"].tolist() == here["score"].tolist()
    assert frame["row"].tolist() == here["row"].tolist()


def test_pickles_are_read_as_data_and_only_what_is_needed_is_fetched(
    store: Loopback, small_series: Path, tmp_path: Path
) -> None:
    first = pickled(store, tmp_path / "models")
    manifest = tmp_path / "pickled.toml"
    manifest.write_text(
        'manifest = 1\nname = "pickled"\n[checkpoints]\nrepository = "lab/pickled"\n'
        'revision = "ckpt_(?P<index>\\\\d+)"\n'
        '[data]\nrepository = "lab/text"\npath = "train_{index}.jsonl"\ncount = 1\n'
    )
    api = HfApi(endpoint=store.endpoint)
    api.create_repo("lab/text", repo_type="dataset")
    chunk = small_series / "train/train_000.jsonl"
    api.upload_file(
        path_or_fileobj=chunk, path_in_repo="train_0.jsonl", repo_id="lab/text", repo_type="dataset"
    )
    store.counts.clear()
    result = score(manifest, tmp_path / "out", hub=options(store, tmp_path))
    assert len(result) == 24
    fetched = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert not fetched & {"optimizer.pt", "README.md"}
    needed = (first / "pytorch_model.bin").stat().st_size
    needed += (tmp_path / "models/1/model.safetensors").stat().st_size
    assert store.counts.bytes["cdn"] == needed


def test_code_of_a_repository_is_not_run_unless_asked_for(
    store: Loopback, small_series: Path, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    folder = tmp_path / "series"
    shutil.copytree(small_series, folder)
    for path in (folder / "checkpoints").iterdir():
        config = json.loads((path / "config.json").read_text())
        config |= {
            "model_type": "homemade",
            "auto_map": {"AutoConfig": "homemade.Config", "AutoModelForCausalLM": "homemade.Model"},
        }
        (path / "config.json").write_text(json.dumps(config))
        (path / "homemade.py").write_text(HOMEMADE.format(ran=str(ran)))
    release(store, folder, "lab/homemade")
    with pytest.raises(a360.CheckpointError, match=r"is code in lab/homemade@ckpt_000.*--trust-remote-code"):
        score("lab/homemade", tmp_path / "out", hub=options(store, tmp_path))
    assert not ran.exists()
    trusting = options(store, tmp_path, trust_remote_code=True)
    code = (
        "import sys, analysis360 as a360; from pathlib import Path\n"
        "hub = a360.HubOptions(cache=Path(sys.argv[1]), endpoint=sys.argv[2], trust_remote_code=True)\n"
        f"r = a360.memorization('lab/homemade', ':1', hub=hub, out=sys.argv[3], **{HOW!r})\n"
        "print(len(r))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(trusting.cache), store.endpoint, str(tmp_path / "out")],
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ran.exists()


HOMEMADE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({ran!r}).touch()
class Config(LlamaConfig):
    model_type = "homemade"
class Model(LlamaForCausalLM):
    config_class = Config
"""


def test_code_is_refused_whatever_the_type_of_the_model(small_series: Path, tmp_path: Path) -> None:
    folder = tmp_path / "series"
    shutil.copytree(small_series, folder)
    path = folder / "checkpoints/ckpt_000/config.json"
    config = json.loads(path.read_text()) | {"auto_map": {"AutoModelForCausalLM": "altered.Model"}}
    path.write_text(json.dumps(config))
    with pytest.raises(a360.CheckpointError, match=r"ckpt_000: its model is code in .*--trust-remote-code"):
        score(folder, tmp_path / "out", ckpts="0:1")


def test_a_hub_that_fails_in_the_end_costs_no_result(public: Loopback, tmp_path: Path) -> None:
    series = a360.open_series(MODEL, hub=options(public, tmp_path, patience=2.0))
    public.faults.often(r"GET /api/models/.*/refs", Fault(status=429, retry_after=600), 1.0)
    result = score(series, tmp_path / "out", ckpts="0:2")
    assert any("whether branches moved could not be asked" in note for note in result.notes)


def test_what_one_hub_said_is_not_taken_for_another(
    public: Loopback, small_series: Path, tmp_path: Path
) -> None:
    a360.open_series(MODEL, hub=options(public, tmp_path))
    elsewhere = options(public, tmp_path, endpoint="http://127.0.0.1:9", patience=0.2)
    with pytest.raises(HubError, match="no connection"):
        a360.open_series(MODEL, hub=elsewhere)
