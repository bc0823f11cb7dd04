"""Every planted defect is found, it alone, and by its place; a clean series has none. On disk and from a Hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi
from releases import SHARDS, WIDE, checkpoint, chunk, release, write_checkpoint, write_json
from small_series import write_rows

from analysis360.doctor import Diagnosis, Finding, doctor
from analysis360.hub.options import HubOptions
from analysis360.loopback import Loopback

Plant = Callable[[Path], object]


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release(tmp_path_factory.mktemp("release"))


@contextmanager
def mounted(folder: Path, cache: Path) -> Iterator[tuple[Loopback, HubOptions]]:
    with Loopback(folder) as hub:
        yield hub, HubOptions(endpoint=hub.endpoint, cache=cache, patience=5)


def audited(folder: Path, way: str, cache: Path) -> Diagnosis:
    if way == "disk":
        return doctor(folder)
    with mounted(folder, cache) as (_, options):
        name = folder / "series.toml"
        return doctor(f"local/{'drift' if 'drift' in name.read_text() else 'small'}", hub=options)


def kinds(findings: list[Finding] | tuple[Finding, ...]) -> list[str]:
    return sorted(finding.kind for finding in findings)


def copy_weights(root: Path, source: int, target: int, *shards: str) -> None:
    for shard in shards or SHARDS:
        shutil.copyfile(checkpoint(root, source) / shard, checkpoint(root, target) / shard)


def swap(root: Path, i: int, j: int) -> None:
    aside = root / "aside"
    checkpoint(root, i).rename(aside)
    checkpoint(root, j).rename(checkpoint(root, i))
    aside.rename(checkpoint(root, j))


def truncate(path: Path, share: float) -> None:
    body = path.read_bytes()
    path.write_bytes(body[: int(len(body) * share)])


def stale_index(root: Path) -> None:
    (checkpoint(root, 3) / "model.safetensors.index.json").unlink()


PLANTED: dict[str, tuple[Plant, str, list[str]]] = {
    "weights copied": (lambda r: copy_weights(r, 2, 4), "duplicate-weights", ["ckpt_002", "ckpt_004"]),
    "neighbours alike": (lambda r: copy_weights(r, 0, 1), "duplicate-weights", ["ckpt_000 to ckpt_001"]),
    "late weights early": (lambda r: copy_weights(r, 7, 1), "late-weights", ["ckpt_001"]),
    "shard of the last": (
        lambda r: copy_weights(r, 7, 2, SHARDS[0]),
        "shard-shared",
        ["ckpt_002: model-00001"],
    ),
    "shard of another": (lambda r: copy_weights(r, 2, 5, SHARDS[1]), "shard-shared", ["ckpt_002", SHARDS[1]]),
    "two swapped, near": (lambda r: swap(r, 3, 4), "out-of-place", ["ckpt_003 and ckpt_004"]),
    "shard removed": (
        lambda r: (checkpoint(r, 3) / SHARDS[1]).unlink(),
        "shard-missing",
        [f"ckpt_003/{SHARDS[1]}"],
    ),
    "shard cut": (
        lambda r: truncate(checkpoint(r, 3) / SHARDS[1], 0.9),
        "shard-truncated",
        [f"ckpt_003/{SHARDS[1]}"],
    ),
    "shard cut to nothing": (
        lambda r: truncate(checkpoint(r, 3) / SHARDS[0], 0),
        "shard-damaged",
        [f"ckpt_003/{SHARDS[0]}"],
    ),
    "shard of noise": (
        lambda r: (checkpoint(r, 3) / SHARDS[0]).write_bytes(b"\xff" * 4096),
        "shard-damaged",
        [f"ckpt_003/{SHARDS[0]}"],
    ),
    "index removed": (stale_index, "index-missing", ["ckpt_003"]),
    "index of noise": (
        lambda r: (checkpoint(r, 3) / "model.safetensors.index.json").write_text("{"),
        "index-unreadable",
        ["ckpt_003/model.safetensors.index.json"],
    ),
    "other dtype": (
        lambda r: write_checkpoint(checkpoint(r, 3), 3, np.float16),
        "dtype-departs",
        ["ckpt_003"],
    ),
    "other config": (
        lambda r: write_json(
            checkpoint(r, 5) / "config.json",
            {**json.loads((checkpoint(r, 5) / "config.json").read_text()), "hidden_size": WIDE + 1},
        ),
        "config-differs",
        ["ckpt_005"],
    ),
    "no config": (lambda r: (checkpoint(r, 5) / "config.json").unlink(), "config-missing", ["ckpt_005"]),
    "other tokenizer": (
        lambda r: write_json(checkpoint(r, 6) / "tokenizer.json", {"model": {"vocab": {"b": 0}}}),
        "tokenizer-differs",
        ["ckpt_006"],
    ),
    "chunk of other size": (lambda r: write_rows(chunk(r, 2), 6, 102), "chunk-size", ["train_002"]),
    "chunk twice": (
        lambda r: shutil.copyfile(chunk(r, 2), chunk(r, 5)),
        "duplicate-chunk",
        ["train_002", "train_005"],
    ),
    "held-out trained": (
        lambda r: shutil.copyfile(chunk(r, 2), r / "held-out/held-out_001.jsonl"),
        "held-out-trained",
        ["train_002", "held-out_001"],
    ),
}


@pytest.mark.parametrize("way", ["disk", "hub"])
def test_a_clean_series_of_drifting_weights_has_nothing_wrong(clean: Path, tmp_path: Path, way: str) -> None:
    diagnosis = audited(clean, way, tmp_path)
    assert not diagnosis.findings
    assert not diagnosis.wrong
    assert "nothing wrong" in diagnosis.table()


@pytest.mark.parametrize("way", ["disk", "hub"])
def test_a_clean_series_of_unrelated_models_has_nothing_wrong(
    small_series: Path, tmp_path: Path, way: str
) -> None:
    assert not audited(small_series, way, tmp_path).findings


@pytest.mark.parametrize("way", ["disk", "hub"])
@pytest.mark.parametrize("defect", list(PLANTED))
def test_a_planted_defect_is_found_alone_and_by_its_place(
    clean: Path, tmp_path: Path, way: str, defect: str
) -> None:
    folder = tmp_path / "planted"
    shutil.copytree(clean, folder)
    plant, kind, places = PLANTED[defect]
    plant(folder)
    diagnosis = audited(folder, way, tmp_path / "cache")
    assert diagnosis.wrong
    [finding] = diagnosis.findings
    assert (finding.severity, finding.kind) == ("error", kind)
    assert all(place in finding.where for place in places), finding.where
    assert finding.expected
    assert finding.found
    assert finding.advice
    assert finding.where in diagnosis.table()


@pytest.mark.parametrize("way", ["disk", "hub"])
def test_two_swapped_far_apart_are_both_named_with_their_places(
    clean: Path, tmp_path: Path, way: str
) -> None:
    folder = tmp_path / "planted"
    shutil.copytree(clean, folder)
    swap(folder, 1, 5)
    one, five = audited(folder, way, tmp_path / "cache").findings
    assert (one.kind, one.where) == ("out-of-place", "ckpt_001")
    assert (five.kind, five.where) == ("out-of-place", "ckpt_005")
    assert "between ckpt_004 and ckpt_006" in one.found
    assert "between ckpt_000 and ckpt_002" in five.found


def test_several_defects_at_once_are_all_found(tmp_path: Path) -> None:
    folder = tmp_path / "planted"
    release(folder, checkpoints=14)
    copy_weights(folder, 13, 1)
    swap(folder, 5, 9)
    truncate(checkpoint(folder, 11) / SHARDS[0], 0.5)
    truncate(checkpoint(folder, 3) / SHARDS[0], 0.01)
    shutil.copyfile(chunk(folder, 4), folder / "held-out/held-out_001.jsonl")
    found = {(finding.kind, finding.where.split("/")[0]) for finding in doctor(folder).findings}
    assert found == {
        ("shard-truncated", "ckpt_011"),
        ("shard-truncated", "ckpt_003"),
        ("late-weights", "ckpt_001"),
        ("out-of-place", "ckpt_005"),
        ("out-of-place", "ckpt_009"),
        ("held-out-trained", "train_004, held-out_001 (train"),
    }


def test_of_two_alike_the_neighbours_tell_which_is_right(clean: Path, tmp_path: Path) -> None:
    folder = tmp_path / "planted"
    shutil.copytree(clean, folder)
    copy_weights(folder, 2, 5)
    [finding] = doctor(folder).findings
    assert "fits ckpt_002" in finding.found
    copy_weights(folder, 6, 2, SHARDS[0])
    finding = next(f for f in doctor(folder).findings if f.kind == "shard-shared")
    assert "fits ckpt_006" in finding.found


def test_a_checkpoint_and_a_chunk_missing_on_disk(clean: Path, tmp_path: Path) -> None:
    folder = tmp_path / "planted"
    shutil.copytree(clean, folder)
    shutil.rmtree(checkpoint(folder, 3))
    [finding] = doctor(folder).findings
    assert (finding.kind, finding.where, finding.names) == ("checkpoint-missing", "ckpt_003", ("ckpt_003",))
    chunk(folder, 4).unlink()
    assert kinds(doctor(folder).findings) == ["checkpoint-missing", "chunk-missing"]
    assert "train_004" in doctor(folder).findings[1].where


def test_a_branch_and_a_chunk_missing_from_a_repository(clean: Path, tmp_path: Path) -> None:
    from training.publishing.publish import publish

    folder = tmp_path / "published"
    shutil.copytree(clean, folder)
    (tmp_path / "store").mkdir()
    with mounted(tmp_path / "store", tmp_path / "cache") as (hub, options):
        publish(folder, "org/drift", endpoint=hub.endpoint, report=lambda line: None)
        assert not doctor("org/drift", hub=options).findings
        api = HfApi(endpoint=hub.endpoint)
        api.delete_file("train/train_004.jsonl", "org/drift-data", repo_type="dataset")
        [finding] = doctor("org/drift", hub=options).findings
        assert finding.kind == "chunk-missing"
        assert "train_004" in finding.where
        api.delete_branch("org/drift", branch="ckpt_003")
        branch, _ = doctor("org/drift", hub=options).findings
        assert branch.kind == "checkpoint-missing"
        assert branch.where == "between ckpt_002 and ckpt_004"
        assert (branch.expected, branch.found) == ("8 checkpoints", "7 are listed")


def test_a_dtype_that_changes_for_good_is_a_note(clean: Path, tmp_path: Path) -> None:
    folder = tmp_path / "planted"
    shutil.copytree(clean, folder)
    for i in range(3):
        write_checkpoint(checkpoint(folder, i), i, np.float16)
    diagnosis = doctor(folder)
    [finding] = diagnosis.findings
    assert (finding.severity, finding.kind, finding.where) == ("note", "dtype-changes", "ckpt_003")
    assert finding.found == "F16 until ckpt_002, F32 from ckpt_003 on"
    assert not diagnosis.wrong


def test_pickles_remote_code_and_surplus_files_are_notes(clean: Path, tmp_path: Path) -> None:
    folder = tmp_path / "planted"
    shutil.copytree(clean, folder)
    for i in range(8):
        for shard in SHARDS:
            (checkpoint(folder, i) / shard).unlink()
        (checkpoint(folder, i) / "model.safetensors.index.json").unlink()
        (checkpoint(folder, i) / "pytorch_model.bin").write_bytes(b"%d" % i * 999)
        config = json.loads((checkpoint(folder, i) / "config.json").read_text())
        write_json(checkpoint(folder, i) / "config.json", {**config, "auto_map": {"AutoModel": "m.M"}})
    shutil.copytree(checkpoint(folder, 0), checkpoint(folder, 8))
    write_rows(chunk(folder, 8), 12, 999)
    diagnosis = doctor(folder)
    assert kinds(diagnosis.findings) == ["checkpoint-surplus", "chunk-surplus", "pickles", "remote-code"]
    assert not diagnosis.wrong


def test_a_pickle_of_another_size_departs(clean: Path, tmp_path: Path) -> None:
    folder = tmp_path / "planted"
    shutil.copytree(clean, folder)
    for i in range(8):
        for shard in SHARDS:
            (checkpoint(folder, i) / shard).unlink()
        (checkpoint(folder, i) / "model.safetensors.index.json").unlink()
        (checkpoint(folder, i) / "pytorch_model.bin").write_bytes(b"%d" % i * (500 if i == 4 else 999))
    errors = doctor(folder).errors
    assert [(f.kind, f.where) for f in errors] == [("size-departs", "ckpt_004")]


def test_an_audit_downloads_no_weights(tmp_path: Path) -> None:
    folder = release(tmp_path / "release")
    weights = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    with mounted(folder, tmp_path / "cache") as (hub, options):
        diagnosis = doctor("local/drift", hub=options)
        assert not diagnosis.findings
        read = [seen for seen in hub.counts.seen if seen.method == "GET" and seen.kind == "cdn"]
        assert all(seen.range and seen.sent <= 16_384 for seen in read)
        assert sum(seen.sent for seen in read) <= 8 * 16_384 < 0.1 * weights
        assert len({seen.path for seen in read}) == 8  # one shard of each checkpoint
        assert diagnosis.traffic
        before = sum(hub.counts.requests.values())
        doctor("local/drift", hub=options)
        again = sum(hub.counts.requests.values()) - before
        assert again < before  # lists of files and configs are kept
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_uneven_steps_are_in_place(clean: Path, tmp_path: Path) -> None:
    folder = tmp_path / "uneven"
    shutil.copytree(clean, folder)
    for i, step in enumerate((0, 1, 2, 4, 8, 16, 17, 40)):
        write_checkpoint(checkpoint(folder, i), step)
    assert not doctor(folder).findings
    swap(folder, 4, 5)
    assert kinds(doctor(folder).findings) == ["out-of-place"]
