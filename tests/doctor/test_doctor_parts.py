"""What the audit is made of: headers of any bytes, runs, changes, places on a way, the report."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from releases import checkpoint, release, write_json
from small_series import write_rows

from analysis360 import SelectionError
from analysis360.doctor import doctor
from analysis360.doctor.agreement import _changes
from analysis360.doctor.findings import Finding, apart, grouped, printable, runs
from analysis360.doctor.headers import read_header, read_sample
from analysis360.doctor.likeness import _moved
from analysis360.doctor.report import Diagnosis
from analysis360.doctor.standing import Standing
from analysis360.errors import DataError
from analysis360.hub.options import HubOptions
from analysis360.loopback import Loopback

NAMES = [f"c{i}" for i in range(40)]


class Body:
    """Bytes in memory as a file."""

    where = "memory"

    def __init__(self, body: bytes) -> None:
        self.body, self.size = body, len(body)

    def read(self, spans: list[tuple[int, int]]) -> list[bytes]:
        assert all(0 <= start <= stop <= self.size for start, stop in spans)
        return [self.body[start:stop] for start, stop in spans]

    def close(self) -> None:
        pass


def safetensors(header: object, tail: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=200) | JSON.map(safetensors))
def test_any_bytes_are_a_header_or_a_data_error(body: bytes) -> None:
    with contextlib.suppress(DataError):
        read_sample(Body(body), read_header(Body(body)))


def test_a_header_longer_than_its_file_is_not_read() -> None:
    with pytest.raises(DataError, match="header of"):
        read_header(Body(struct.pack("<Q", 1 << 60) + b"{}"))


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_a_sample_holds_the_first_numbers_whatever_the_dtype(dtype: str) -> None:
    values = np.arange(8, dtype=np.float32)
    wide = (values.view(np.uint32) >> 16).astype(np.uint16)
    kinds = {"F64": values.astype("<f8"), "F32": values, "F16": values.astype("<f2"), "BF16": wide}
    body = kinds[dtype].tobytes()
    entry = {"dtype": dtype, "shape": [2, 4], "data_offsets": [0, len(body)]}
    file = Body(safetensors({"model.w": entry, "__metadata__": {"format": "pt"}}, body))
    header = read_header(file)
    assert (header.dtype, header.size) == (dtype, file.size)
    assert read_sample(file, header)["model.w"].tolist() == values.tolist()


@given(st.lists(st.sampled_from(NAMES), unique=True, max_size=40))
def test_runs_name_every_name_once(chosen: list[str]) -> None:
    chosen.sort(key=NAMES.index)
    named: list[str] = []
    for piece in runs(chosen, NAMES, most=100).split(", ") if chosen else []:
        first, _, last = piece.partition(" to ")
        named += NAMES[NAMES.index(first) : NAMES.index(last or first) + 1]
    assert named == chosen


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=30))
def test_changes_of_value_are_notes_and_what_departs_is_named_once(values: list[str]) -> None:
    table = dict(zip(NAMES, values, strict=False))
    findings = _changes("dtype", table, table, NAMES)
    departing = [name for finding in findings if finding.severity == "error" for name in finding.names]
    assert len(departing) == len(set(departing))
    if len(grouped(table)) <= 2:
        assert not departing
    if len(set(values)) == 1:
        assert not findings
    assert sum(map(len, apart(table).values())) <= len(values) / 2


@given(st.integers(4, 30), st.floats(0.0, 3.0), st.integers(0, 10_000))
def test_a_way_of_drift_and_random_steps_is_in_order(points: int, drift: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(0.3, 3.0, (points, 1))
    steps = lengths * (rng.normal(size=(points, 512)) + drift * rng.normal(size=512))
    assert not _moved(distances(np.cumsum(steps, axis=0)), points)


@given(st.integers(8, 30), st.integers(0, 10_000), st.data())
def test_an_exchange_inside_a_way_is_found(points: int, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    way = np.cumsum(rng.normal(size=(points, 512)) + rng.normal(size=512), axis=0)
    i = data.draw(st.integers(1, points - 4))
    j = data.draw(st.integers(i + 1, points - 2))
    way[[i, j]] = way[[j, i]]
    assert {i, j} & _moved(distances(way), 4)
    if j > i + 2:
        assert _moved(distances(way), 4) == {i, j}


def distances(points: np.ndarray) -> np.ndarray:
    return np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=-1))


@given(st.text(max_size=30))
def test_what_is_shown_cannot_steer_a_terminal(text: str) -> None:
    assert printable(text).isprintable()


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
FINDINGS = st.builds(
    Finding, st.sampled_from(["error", "note"]), TEXT, TEXT, TEXT, TEXT, TEXT, st.lists(TEXT).map(tuple)
)


@given(st.lists(FINDINGS, max_size=4), TEXT)
def test_a_diagnosis_survives_json(findings: list[Finding], column: str) -> None:
    standing = (Standing(column, "partly", "seen"),)
    diagnosis = Diagnosis("s", "here", 1, 2, 3, tuple(findings), standing)
    read = json.loads(json.dumps(diagnosis.as_json(), allow_nan=False))
    assert read == diagnosis.as_json()
    assert read["wrong"] == diagnosis.wrong == any(f.severity == "error" for f in findings)
    assert [Finding(**{**row, "names": tuple(row["names"])}) for row in read["findings"]] == findings
    assert [Standing(**row) for row in read["standing"]] == list(standing)


def test_the_standing_is_what_the_files_show(tmp_path: Path) -> None:
    folder = release(tmp_path / "plain", checkpoints=4, chunks=4)
    assert verdicts(folder) == {
        "training code": "unknown",
        "training configuration": "partly",
        "model checkpoints": "yes",
        "optimizer checkpoints": "no",
        "data mix and sources": "partly",
        "data ordering": "yes",
        "data available": "yes",
    }
    (folder / "README.md").write_text("A series. No links.")
    assert verdicts(folder)["training code"] == "no"
    (folder / "README.md").write_text("Code: https://github.com/org/trainer.")
    assert verdicts(folder)["training code"] == "partly"
    (folder / "pretrain.py").write_text("")
    write_json(folder / "recipe.json", {})
    write_json(folder / "data_mix.json", {})
    (checkpoint(folder, 1) / "optimizer.pt").write_bytes(b"1")
    richer = verdicts(folder)
    assert (
        richer["training code"] == richer["training configuration"] == richer["data mix and sources"] == "yes"
    )
    assert richer["optimizer checkpoints"] == "partly"
    shutil.rmtree(checkpoint(folder, 2))
    (folder / "train/train_001.jsonl").unlink()
    (folder / "series.toml").write_text((folder / "series.toml").read_text().split("[exposure]")[0])
    poorer = verdicts(folder)
    assert poorer["model checkpoints"] == poorer["data available"] == "partly"
    assert poorer["data ordering"] == "unknown"


def verdicts(folder: Path) -> dict[str, str]:
    return {row.column: row.verdict for row in doctor(folder).standing}


def test_a_repository_without_a_manifest(tmp_path: Path) -> None:
    folder = release(tmp_path / "series", checkpoints=5, chunks=3)
    with Loopback(folder) as hub:
        options = HubOptions(endpoint=hub.endpoint, cache=tmp_path / "cache")
        one = doctor("local/drift", hub=options, pattern="ckpt_002")
        assert (one.checkpoints, one.chunks, one.wrong) == (1, 0, False)
        told = {row.column: row.verdict for row in one.standing}
        assert (told["model checkpoints"], told["data available"]) == ("no", "unknown")
        with pytest.raises(SelectionError, match="names no data"):
            doctor("local/drift", hub=options, pattern="ckpt_002", loss=True)
        some = doctor("local/drift", hub=options, pattern=r"ckpt_00(?P<index>[0134])")
    assert [(f.severity, f.kind, f.where) for f in some.findings] == [
        ("note", "numbering-gap", "between ckpt_001 and ckpt_003")
    ]
    assert any("ckpt_002" in remark for remark in some.remarks)


def test_a_last_chunk_may_be_short_and_a_long_one_may_not(tmp_path: Path) -> None:
    folder = release(tmp_path / "short", checkpoints=4, chunks=6)
    write_rows(folder / "train/train_005.jsonl", 3, 105)
    assert [(f.severity, f.kind) for f in doctor(folder).findings] == [("note", "chunk-short")]
    write_rows(folder / "train/train_005.jsonl", 30, 105)
    assert [(f.severity, f.kind) for f in doctor(folder).findings] == [("error", "chunk-size")]


def test_the_table_says_what_where_and_what_to_do(tmp_path: Path) -> None:
    folder = release(tmp_path / "cut", checkpoints=4, chunks=4)
    (checkpoint(folder, 2) / "model-00002-of-00002.safetensors").unlink()
    words = " ".join(doctor(folder).table().split())
    assert "drift" in words
    assert "4 checkpoints, 4 chunks, 3 controls" in words
    assert "1 error, 0 notes" in words
    assert (
        "error shard-missing ckpt_002/model-00002-of-00002.safetensors expected: model.safetensors.index.json "
        "names it found: no such file do: upload the checkpoint again" in words
    )
    assert "optimizer checkpoints no" in words
