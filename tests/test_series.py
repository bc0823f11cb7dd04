"""Manifests, series and content identity: what is read, what is refused, and what a digest depends on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis360.digests import digest_of, file_sha256
from analysis360.errors import CheckpointError, DataError, SelectionError, SeriesError
from analysis360.places import LocalFolder
from analysis360.series import Checkpoint, Chunk, Layout, open_series, read_manifest
from analysis360.series.manifest import Canaries, Canary, Files, Manifest, Model, Schedule

CONFIG = {"model_type": "llama", "vocab_size": 96, "hidden_size": 32}
SMALL = """
manifest = 1
name = "small"
[checkpoints]
path = "ckpt/ckpt_{index:03d}"
count = 3
[data]
path = "train/train_{index:03d}.jsonl"
count = 2
"""


@pytest.fixture(autouse=True)
def _own_memo(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_manifest(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "series.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(path, read=read_manifest):
    """The message of the SeriesError, which must be one line that names the file."""
    with pytest.raises(SeriesError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


# --- manifests -------------------------------------------------------------------------------------


FULL = Manifest(
    name="full",
    checkpoints=Files("ckpt_{index:03d}", 3, first=5),
    data=Files("a/{index}.jsonl", 4, fields=("prompt", "continuation"), rows=10, row_tokens=64),
    model=Model("bfloat16", eos_token_id=2, pad_token_id=0),
    held_out=Files("held/h_{index}.jsonl", 1),
    canaries=Canaries(
        "canaries.jsonl",
        "planted",
        90,
        (Canary(0, 2, "even", ((0, 1), (3, 2))), Canary(1, 0, "never")),
    ),
    exposure=Schedule((0, 1, 1, 3), (1, 2, 4), 1000),
    metrics="metrics.jsonl",
    tokenizer="tokenizer",
)


def as_toml(manifest):
    def without_none(value):
        if isinstance(value, dict):
            return {key: without_none(item) for key, item in value.items() if item is not None}
        return [without_none(item) for item in value] if isinstance(value, tuple) else value

    return tomli_w.dumps({"manifest": 1} | without_none(dataclasses.asdict(manifest)))


@pytest.mark.parametrize("manifest", [FULL, Manifest("bare", Files("c{index}", 1), Files("d{index}", 1))])
def test_a_manifest_round_trips(tmp_path, manifest):
    assert read_manifest(write_manifest(tmp_path, as_toml(manifest))) == manifest


def test_what_a_manifest_leaves_out_has_stated_defaults(tmp_path):
    manifest = read_manifest(write_manifest(tmp_path, SMALL))
    assert manifest.model == Model("float32", None, None)
    assert manifest.data.fields == ("token_ids",)
    assert (manifest.data.first, manifest.data.format) == (0, "jsonl")
    assert (manifest.held_out, manifest.canaries) == (None, None)
    assert manifest.exposure == Schedule((), None, None)


def test_paths_count_from_the_first_index():
    paths = Files("t/{index:03d}.jsonl", 3, first=9).paths()
    assert paths == [("009", "t/009.jsonl"), ("010", "t/010.jsonl"), ("011", "t/011.jsonl")]
    assert Files("step_{index}/model", 1).paths() == [("step_0", "step_0/model")]


def changed(old, new):
    assert SMALL.count(old) == 1
    return SMALL.replace(old, new)


CHECKPOINTS, DATA = 'path = "ckpt/ckpt_{index:03d}"', 'path = "train/train_{index:03d}.jsonl"'
BAD = {
    "empty": ("", "manifest"),
    "not TOML": ("manifest: 1", "line 1"),
    "no version": (changed("manifest = 1", ""), "manifest"),
    "a later version": (changed("manifest = 1", "manifest = 2"), "manifest"),
    "a version in words": (changed("manifest = 1", 'manifest = "1"'), "manifest"),
    "an unknown key": (changed("count = 3", "count = 3\ncuont = 4"), "'cuont'"),
    "an unknown section": (SMALL + "[modle]\neos_token_id = 1\n", "'modle'"),
    "an unknown key of a canary": (SMALL + '[canaries]\npath = "c"\n[[canaries.rows]]\nrwo = 1\n', "'rwo'"),
    "no name": (changed('name = "small"', ""), "'name'"),
    "no pattern": (changed(CHECKPOINTS, ""), "'path'"),
    "no count": (changed("count = 2", ""), "'count'"),
    "no data": (SMALL.split("[data]")[0], "'data'"),
    "a section that is none": ("model = 3\n" + SMALL, "[model]"),
    "an unknown dtype": (SMALL + '[model]\ncompute_dtype = "auto"\n', "compute_dtype"),
    "a pattern above the folder": (changed(DATA, 'path = "../{index}.jsonl"'), "'../{index}.jsonl'"),
    "a pattern that climbs": (changed(DATA, 'path = "a/../../{index}"'), "'a/../../{index}'"),
    "an absolute pattern": (changed(CHECKPOINTS, 'path = "/srv/{index}"'), "'/srv/{index}'"),
    "a held-out pattern above": (SMALL + '[held_out]\npath = "../{index}"\ncount = 1\n', "'../{index}'"),
    "a pattern without index": (changed(DATA, 'path = "train.jsonl"'), "{index}"),
    "another field": (changed(DATA, 'path = "{number}.jsonl"'), "{index}"),
    "a field without a name": (changed(DATA, 'path = "{}.jsonl"'), "{index}"),
    "an open brace": (changed(DATA, 'path = "{index"'), "{index}"),
    "too few done": (SMALL + "[exposure]\norder = [0, 1]\ndone = [1, 2]\n", "`done`"),
    "too many done": (SMALL + "[exposure]\norder = [0, 1]\ndone = [1, 2, 2, 2]\n", "`done`"),
    "a chunk past the end": (SMALL + "[exposure]\norder = [0, 2]\n", "`order`"),
    "a chunk below 0": (SMALL + "[exposure]\norder = [-1]\n", "`order`"),
}


@pytest.mark.parametrize(("text", "named"), BAD.values(), ids=BAD)
def test_a_bad_manifest_is_refused_by_file_and_key(tmp_path, text, named):
    message = refused(write_manifest(tmp_path, text))
    assert named in message.replace(str(tmp_path), "")


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path, content):
    path = tmp_path / "series.toml"
    if content is not None:
        path.write_bytes(content)
    assert "not a readable manifest" in refused(path)


WRONG_TYPE = {
    "count in words": (changed("count = 2", 'count = "2"'), "count"),
    "count is a truth value": (changed("count = 2", "count = true"), "count"),
    "count below 0": (changed("count = 2", "count = -2"), "count"),
    "first in words": (changed("count = 2", 'count = 2\nfirst = "0"'), "first"),
    "a pattern that is a number": (changed(DATA, "path = 3"), "path"),
    "an attribute of the index": (changed(DATA, 'path = "{index.real.x}"'), "path"),
    "fields not in a list": (changed("count = 2", 'count = 2\nfields = "token_ids"'), "fields"),
    "no fields": (changed("count = 2", "count = 2\nfields = []"), "fields"),
    "a name that is a number": (changed('name = "small"', "name = 3"), "name"),
    "a name above the results": (changed('name = "small"', 'name = "../../other"'), "name"),
    "an empty name": (changed('name = "small"', 'name = ""'), "name"),
    "eos in words": (SMALL + '[model]\neos_token_id = "</s>"\n', "eos_token_id"),
    "done below 0": (SMALL + "[exposure]\norder = [0, 1]\ndone = [-1, 1, 2]\n", "done"),
    "done in words": (SMALL + '[exposure]\norder = [0, 1]\ndone = ["a", "b", "c"]\n', "done"),
    "done not in a list": (SMALL + "[exposure]\norder = [0, 1]\ndone = 3\n", "done"),
    "order in words": (SMALL + '[exposure]\norder = ["train_000"]\n', "order"),
    "order in fractions": (SMALL + "[exposure]\norder = [0.5]\ndone = [1, 1, 1]\n", "order"),
    "tokens in words": (SMALL + '[exposure]\ntokens_per_chunk = "many"\n', "tokens_per_chunk"),
    "canaries that are a number": ("canaries = 3\n" + SMALL, "canaries"),
    "canary rows that are a number": (SMALL + '[canaries]\npath = "c.jsonl"\nrows = 3\n', "rows"),
}


@pytest.mark.parametrize(("text", "named"), WRONG_TYPE.values(), ids=WRONG_TYPE)
def test_a_value_of_the_wrong_type_is_refused_by_file_and_key(tmp_path, text, named):
    message = refused(write_manifest(tmp_path, text), open_series)
    assert named in message.replace(str(tmp_path), "")


@pytest.mark.parametrize("path", ["../canaries.jsonl", "/etc/hostname", "{number}.jsonl"])
def test_canaries_must_lie_in_the_folder(tmp_path, path):
    text = SMALL + f'[canaries]\npath = "{path}"\n'
    assert "canaries" in refused(write_manifest(tmp_path, text), open_series).replace(str(path), "")


@pytest.mark.parametrize("path", ["../{index}", "{number}", "train.jsonl"])
def test_a_bad_pattern_is_named_by_its_section(tmp_path, path):
    assert "[data]" in refused(write_manifest(tmp_path, changed(DATA, f'path = "{path}"')))


def test_an_unknown_format_is_refused_by_file_and_key(tmp_path):
    path = write_manifest(tmp_path, changed("count = 2", 'count = 2\nformat = "csv"'))
    message = refused(path, open_series)
    assert "'csv'" in message
    assert "format" in message


def test_a_series_without_checkpoints_is_refused_by_file(tmp_path):
    assert "checkpoints" in refused(write_manifest(tmp_path, changed("count = 3", "count = 0")), open_series)


def test_a_manifest_can_say_that_a_position_is_unknown(tmp_path):
    written = tomli_w.dumps(
        {
            "manifest": 1,
            "name": "gap",
            "checkpoints": {"path": "c{index}", "count": 1},
            "data": {"path": "d{index}", "count": 2},
            "exposure": {"order": [0, "unknown"], "done": [2]},
        }
    )
    assert read_manifest(write_manifest(tmp_path, written)).exposure.order == (0, None)


# --- series ----------------------------------------------------------------------------------------


def test_a_series_is_what_its_manifest_says(tmp_path):
    path = write_manifest(tmp_path, as_toml(FULL))
    series = open_series(tmp_path)
    assert series == open_series(path) == open_series(str(tmp_path))
    assert [c.name for c in series.checkpoints] == ["ckpt_005", "ckpt_006", "ckpt_007"]
    assert [c.index for c in series.checkpoints] == [0, 1, 2]
    assert {c.place for c in series.chunks} == {LocalFolder(tmp_path)}
    assert [c.files for c in series.chunks] == [(f"a/{i}.jsonl",) for i in range(4)]
    assert {(c.role, c.layout.fields, c.excluded_source) for c in series.chunks} == {
        ("train", ("prompt", "continuation"), "planted")
    }
    assert [(c.name, c.role, c.excluded_source) for c in series.controls] == [
        ("h_0", "held-out", None),
        ("canaries", "canary", None),
    ]
    assert series.exposure.times(2).tolist() == [1, 2, 0, 1]
    assert series.exposure.tokens(1) == 2000


def test_a_series_selects_in_its_own_order(tmp_path):
    write_manifest(tmp_path, as_toml(FULL))
    series = open_series(tmp_path)
    assert [c.name for c in series.select("-1,0")] == ["ckpt_005", "ckpt_007"]
    assert [c.name for c in series.select("ckpt_005:ckpt_007")] == ["ckpt_005", "ckpt_006"]
    assert [c.index for c in series.select_chunks("1:3")] == [1, 2]
    for selector in ("all", "seen", ":"):
        assert series.select_chunks(selector) == list(series.chunks)
    with pytest.raises(SelectionError, match="chunk 4 is out of range"):
        series.select_chunks(4)


def test_an_unknown_series_is_refused(tmp_path):
    for source in (tmp_path, tmp_path / "none", "no-such-series"):
        with pytest.raises(SelectionError) as caught:
            open_series(source)
        assert str(source) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "patterns",
    [("train/{index:03d}.jsonl", "held-out/{index:03d}.jsonl"), ("t_{index}/rows.jsonl", "h/{index}.jsonl")],
)
def test_chunks_never_share_a_name(tmp_path, patterns):
    data, held_out = patterns
    held = f'[held_out]\npath = "{held_out}"\ncount = 2\n'
    write_manifest(tmp_path, changed(DATA, f'path = "{data}"') + held)
    try:
        series = open_series(tmp_path)
    except SeriesError:
        return
    names = [chunk.name for chunk in [*series.chunks, *series.controls]]
    assert len(set(names)) == 4


def test_checkpoints_never_share_a_name(tmp_path):
    write_manifest(tmp_path, changed(CHECKPOINTS, 'path = "step_{index}/model"'))
    try:
        series = open_series(tmp_path)
    except SeriesError:
        return
    assert len({checkpoint.name for checkpoint in series.checkpoints}) == 3


# --- content identity ------------------------------------------------------------------------------


def save(folder, weights=(b"weights",), config=CONFIG, **extra):
    """A checkpoint folder: one file, or an index and its shards. Each call makes a new Checkpoint of it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config | extra))
    if len(weights) == 1:
        (folder / "model.safetensors").write_bytes(weights[0])
    else:
        names = [f"model-{i}-of-{len(weights)}.safetensors" for i in range(len(weights))]
        for name, content in zip(names, weights, strict=True):
            (folder / name).write_bytes(content)
        index = {"weight_map": {f"layer.{i}": name for i, name in enumerate(names)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return Checkpoint(folder.name, 0, LocalFolder(folder))


def test_the_same_content_has_the_same_digest_whatever_it_is_called(tmp_path):
    first = save(tmp_path / "ckpt_000")
    assert save(tmp_path / "elsewhere" / "copy").digest == first.digest
    assert len(first.digest) == 16
    assert set(first.digest) <= set("0123456789abcdef")


def test_other_weights_have_another_digest(tmp_path):
    digests = [
        save(tmp_path / "a", [b"weights"]).digest,
        save(tmp_path / "b", [b"weighty"]).digest,
        save(tmp_path / "c", [b"wei", b"ghts"]).digest,
        save(tmp_path / "d", [b"ghts", b"wei"]).digest,
        save(tmp_path / "e", [b"wei", b"ghtz"]).digest,
    ]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    "change", [{"hidden_size": 64}, {"rope_theta": 1e6}, {"rms_norm_eps": 1e-5}, {"model_type": "gpt_neox"}]
)
def test_another_architecture_has_another_digest(tmp_path, change):
    assert save(tmp_path / "a").digest != save(tmp_path / "b", **change).digest


def test_what_changes_no_number_changes_no_digest(tmp_path):
    plain = save(tmp_path / "plain").digest
    volatile = {"transformers_version": "5.16.0", "_name_or_path": "/home/me", "use_cache": False}
    assert save(tmp_path / "a", **volatile).digest == plain
    assert save(tmp_path / "b", config=dict(reversed(CONFIG.items()))).digest == plain
    other = save(tmp_path / "c")
    (other.path / "README.md").write_text("# another text")
    (other.path / "tokenizer.json").write_text("{}")
    (other.path / "pytorch_model.bin").write_bytes(b"the same in an older format")
    assert other.digest == plain


def test_a_digest_follows_a_file_that_is_replaced(tmp_path):
    before = save(tmp_path / "a", [b"weights"]).digest
    after = save(tmp_path / "a", [b"longer weights"]).digest
    assert after != before
    assert save(tmp_path / "a", [b"weights"]).digest == before


def test_pickles_are_taken_where_there_is_nothing_better(tmp_path):
    checkpoint = save(tmp_path / "a")
    (checkpoint.path / "model.safetensors").rename(checkpoint.path / "pytorch_model.bin")
    assert checkpoint.weight_files == [tmp_path / "a" / "pytorch_model.bin"]
    assert checkpoint.vocabulary == 96


def broken(checkpoint, ask):
    """The message of the CheckpointError, which must be one line that names the checkpoint."""
    with pytest.raises(CheckpointError) as caught:
        ask(checkpoint)
    message = str(caught.value)
    assert "\n" not in message
    assert f"checkpoint {checkpoint.name}" in message
    return message


def with_shards(folder, names):
    checkpoint = save(folder, [b"a", b"b"])
    index = {"weight_map": {f"layer.{i}": name for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return checkpoint


@pytest.mark.parametrize(
    "name", ["../other/model.safetensors", "/etc/hostname", "sub/model.safetensors", "."]
)
def test_a_shard_outside_the_folder_is_refused(tmp_path, name):
    save(tmp_path / "other")
    (tmp_path / "ckpt" / "sub").mkdir(parents=True)
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "ckpt" / "sub")
    checkpoint = with_shards(tmp_path / "ckpt", ["model-0-of-2.safetensors", name])
    message = broken(checkpoint, lambda c: c.weight_files)
    assert repr(name) in message
    assert "outside" in message


@pytest.mark.parametrize("names", [[".."], [""], [3], []])
def test_an_index_must_name_files_of_its_folder(tmp_path, names):
    broken(with_shards(tmp_path / "ckpt", names), lambda c: c.weight_files)


def test_a_missing_shard_is_named(tmp_path):
    checkpoint = save(tmp_path / "ckpt", [b"a", b"b"])
    (checkpoint.path / "model-1-of-2.safetensors").unlink()
    assert "model-1-of-2.safetensors" in broken(checkpoint, lambda c: c.digest)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}', "{}"])
def test_an_unreadable_index_is_named(tmp_path, text):
    checkpoint = save(tmp_path / "ckpt", [b"a", b"b"])
    (checkpoint.path / "model.safetensors.index.json").write_text(text)
    assert "model.safetensors.index.json" in broken(checkpoint, lambda c: c.weight_files)


def test_a_checkpoint_without_weights_is_named(tmp_path):
    checkpoint = save(tmp_path / "ckpt")
    (checkpoint.path / "model.safetensors").unlink()
    assert "model.safetensors" in broken(checkpoint, lambda c: c.digest)


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"vocab_size": "96"}'])
def test_a_bad_config_is_named(tmp_path, text):
    checkpoint = save(tmp_path / "ckpt")
    (checkpoint.path / "config.json").unlink()
    if text is not None:
        (checkpoint.path / "config.json").write_text(text)
    assert "config.json" in broken(checkpoint, lambda c: c.vocabulary)
    assert "config.json" in broken(checkpoint, lambda c: c.digest)


def test_a_chunk_is_its_bytes(tmp_path):
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_bytes(b'{"token_ids": [1]}\n')
    two.write_bytes(b'{"token_ids": [2]}\n')
    chunk = Chunk("one", 0, LocalFolder(tmp_path), (one.name,), "train")
    digest = hashlib.sha256(one.read_bytes()).hexdigest()
    assert chunk.digest == digest_of([[digest], False, None, dataclasses.asdict(chunk.layout), None])
    assert dataclasses.replace(chunk, layout=Layout(row_tokens=9)).digest != chunk.digest
    assert Chunk("two", 1, LocalFolder(tmp_path), (two.name,), "train").digest != chunk.digest
    shutil.copy(one, tmp_path / "copy.jsonl")
    assert Chunk("copy", 7, LocalFolder(tmp_path), ("copy.jsonl",), "held-out").digest == chunk.digest


def test_a_missing_chunk_is_named(tmp_path):
    with pytest.raises(DataError, match=r"chunk t: .*none\.jsonl cannot be read") as caught:
        _ = Chunk("t", 0, LocalFolder(tmp_path), ("none.jsonl",), "train").digest
    assert "\n" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, database=None, max_examples=100)
@given(st.dictionaries(st.text(max_size=3), json_values, max_size=4))
def test_a_digest_does_not_depend_on_the_order_of_keys(value):
    backwards = dict(reversed(value.items()))
    assert digest_of(value) == digest_of(backwards) == digest_of(json.loads(json.dumps(value)))
    assert digest_of(value) != digest_of([value])


def test_a_digest_is_the_sha256_of_the_canonical_text():
    expected = hashlib.sha256(b'{"a":[1,2.5,null],"b":"x"}').hexdigest()[:16]
    assert digest_of({"b": "x", "a": [1, 2.5, None]}) == expected


def memos(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_file_is_read_once_until_it_changes(tmp_path):
    path = tmp_path / "shard"
    path.write_bytes(b"one")
    assert file_sha256(path) == hashlib.sha256(b"one").hexdigest()
    (memo,) = memos(tmp_path)
    memo.write_text(json.dumps(json.loads(memo.read_text()) | {"sha256": "remembered"}))
    assert file_sha256(path) == "remembered"
    path.write_bytes(b"three")
    assert file_sha256(path) == hashlib.sha256(b"three").hexdigest()


def test_two_files_never_share_a_memory(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    assert [file_sha256(tmp_path / n) for n in "ab"] == [hashlib.sha256(n).hexdigest() for n in (b"a", b"b")]
    assert len(memos(tmp_path)) == 2


@pytest.mark.parametrize("text", ["", "{", "{}", '{"stamp": 3}', "\x00"])
def test_a_damaged_memory_costs_only_time(tmp_path, text):
    path = tmp_path / "shard"
    path.write_bytes(b"one")
    file_sha256(path)
    (memo,) = memos(tmp_path)
    memo.write_text(text)
    assert file_sha256(path) == hashlib.sha256(b"one").hexdigest()
    assert json.loads(memo.read_text())["sha256"] == hashlib.sha256(b"one").hexdigest()


@pytest.mark.parametrize("text", ["[]", "3", "null"])
def test_a_memory_that_is_no_object_costs_only_time(tmp_path, text):
    test_a_damaged_memory_costs_only_time(tmp_path, text)


def test_a_home_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    path = tmp_path / "shard"
    path.write_bytes(b"one")
    assert file_sha256(path) == hashlib.sha256(b"one").hexdigest()
    assert Path(blocked).is_file()


def test_a_folder_with_one_model_is_a_series_of_one(tmp_path):
    folder = tmp_path / "my model{0}"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    series = open_series(folder)
    assert series.name == "my-model-0-"
    assert [checkpoint.name for checkpoint in series.checkpoints] == ["my-model-0-"]
    assert series.checkpoints[0].path == folder
    assert not series.chunks
