"""What `prepare` writes: the same bytes each time, in the shape that is promised."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_rows import files_of, mix_of, read_documents, read_rows, recipe_of
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from training.config import Canaries, Take
from training.data.bodies import open_bodies
from training.data.canaries import plan, plan_duplicates
from training.data.prepare import prepare
from training.data.rows import held_out, is_held_out
from training.data.tokenizer import EOS, EOS_ID
from training.errors import TrainingError
from training.recipes import RECIPES, micro, staged
from training.series import check_files, read_report

Training = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def staged_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("staged") / "staged"
    prepare(staged(), out)
    return out


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_writes_the_same_bytes(prepared: Path, tmp_path: Path, workers: int) -> None:
    prepare(micro(), tmp_path, workers)
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


_PREPARE = """
import sys
from pathlib import Path
from training.data.prepare import prepare
from training.recipes import staged
prepare(staged(), Path(sys.argv[1]), workers=2)
"""


@pytest.mark.parametrize("seen", ["*.rows", "data/train/*"])
def test_a_killed_prepare_leaves_nothing_that_reads_as_done(
    staged_out: Path, tmp_path: Path, seen: str
) -> None:
    out, repository = tmp_path / "out", Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", _PREPARE, out], cwd=repository) as command:
        while command.poll() is None and not list((out / ".prepare").glob(seen)):
            time.sleep(0.002)
        children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
        command.send_signal(signal.SIGKILL)
    assert command.returncode == -signal.SIGKILL
    assert read_report(out) is None
    assert not list(out.glob("data/**/*.jsonl"))
    until = time.monotonic() + 10
    while any(map(_works, children)):
        assert time.monotonic() < until, "a worker outlives its command"
        time.sleep(0.01)
    prepare(staged(), out)
    assert files_of(out) == files_of(staged_out)


def _works(process: str) -> bool:
    """Whether a process is one of those that multiprocessing started."""
    try:
        return "multiprocessing" in Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return False


def test_lost_files_come_back_as_they_were_or_not_at_all(prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "micro"
    shutil.copytree(prepared, out)
    report = json.loads((out / "data/report.json").read_text())
    report["files"]["data/train/train_002.jsonl"] = "0" * 64
    report["made_with"]["python"] = "3.10.0"
    (out / "data/report.json").write_text(json.dumps(report))
    before = files_of(out)
    with pytest.raises(TrainingError, match=r"found python 3\.10\.0, .*'s; prepare into another folder"):
        prepare(micro(), out)
    assert files_of(out) == before


def test_a_mix_that_asks_for_too_much_can_be_mended(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="stage all: python-docs: expected 832000 tokens, found"):
        prepare(recipe_of(mix_of(Take("python-docs", 1.0), chunks=800)), tmp_path)
    prepare(recipe_of(mix_of(Take("python-docs", 1.0), chunks=2)), tmp_path)
    assert len(read_rows(tmp_path)) == 32


def test_rows_have_the_promised_shape(prepared: Path) -> None:
    mix = micro().mix
    for pattern, chunks in (("data/train/*", mix.chunks), ("data/held-out/*", mix.held_out_chunks)):
        assert len(list(prepared.glob(pattern))) == chunks
        rows = read_rows(prepared, pattern)
        assert len(rows) == chunks * mix.rows
        for row in rows:
            place = [] if row["source"] == "canary" else ["document", "offset"]
            assert list(row) == ["token_ids", "source", *place]
            assert len(row["token_ids"]) == mix.row_tokens
            assert min(row["token_ids"]) >= 0
            assert max(row["token_ids"]) < mix.vocabulary
    names = {source.name for source in mix.sources}
    assert {row["source"] for row in read_rows(prepared)} == names | {"canary"}
    assert {row["source"] for row in read_rows(prepared, "data/held-out/*")} == names


@pytest.mark.parametrize("name", ["micro", "staged"])
def test_the_report_counts_what_is_there(prepared: Path, staged_out: Path, name: str) -> None:
    out, mix = {"micro": prepared, "staged": staged_out}[name], RECIPES[name]().mix
    report, rows, documents = read_report(out), read_rows(out), read_documents(out)
    assert report is not None
    for name, counts in report["sources"].items():
        here = [row for row in rows if row["source"] == name]
        ids = sum(len(row["token_ids"]) for row in here)
        assert (counts["rows"], counts["tokens"]) == (len(here), ids)
        assert counts["share"] == len(here) / len(rows)
        assert (
            counts["held_out_rows"]
            == Counter(row["source"] for row in read_rows(out, "data/held-out/*"))[name]
        )
        for aside, field in ((False, "documents"), (True, "held_out_documents")):
            used = {
                line["sha256"] for line in documents if (line["source"], line["held_out"]) == (name, aside)
            }
            assert counts[field] == len(used)
    first = 0
    for stage in mix.stages:
        counted = report["stages"][stage.name]
        here = rows[first * mix.rows : (first + stage.chunks) * mix.rows]
        assert {name: counts["rows"] for name, counts in counted["sources"].items()} == Counter(
            row["source"] for row in here
        )
        assert (counted["first_chunk"], counted["tokens"]) == (first, len(here) * mix.row_tokens)
        first += stage.chunks


def test_every_file_has_its_digest_in_the_report(prepared: Path) -> None:
    report = read_report(prepared)
    assert report is not None
    assert check_files(prepared, report) == []
    here = {name: hashlib.sha256(data).hexdigest() for name, data in files_of(prepared).items()}
    assert report["files"] == {
        name: sha for name, sha in here.items() if name not in ("recipe.json", "data/report.json")
    }
    assert sum(name.startswith("data/train/") for name in report["files"]) == micro().mix.chunks


def test_the_permutation_is_numpys_and_rows_are_packed_documents(staged_out: Path) -> None:
    """Made again the plain way: documents joined, EOS after each, cut, and ordered by numpy."""
    mix = staged().mix
    bodies = open_bodies(mix, staged_out)
    tokenizer = Tokenizer.from_file(str(staged_out / "tokenizer/tokenizer.json"))
    rows = [row["token_ids"] for row in read_rows(staged_out)]
    chunk = 0
    for index, stage in enumerate(mix.stages):
        expected: list[list[int]] = []
        for number, (take, wanted) in enumerate(zip(stage.takes, mix.rows_of(stage), strict=True)):
            body = bodies[take.source]
            first, end = (int(edge * len(body.training)) for edge in take.part)
            part = body.training[first:end]
            again = np.random.default_rng([mix.seed, 6, index, number, 1]).permutation(len(part))
            order = [*part, *part[again]] if take.epochs == 2 else part
            size, ids = mix.row_tokens, list[int]()
            for document in order:
                if len(ids) < wanted * size:
                    ids += [*tokenizer.encode(body.documents.text(int(document))).ids, EOS_ID]
            expected += [ids[row * size : (row + 1) * size] for row in range(wanted)]
        order = np.random.default_rng([mix.seed, 1, index]).permutation(len(expected))
        span = slice(chunk * mix.rows, (chunk + stage.chunks) * mix.rows)
        assert rows[span] == [expected[row] for row in order]
        chunk += stage.chunks


def test_held_out_documents_are_never_trained_on(staged_out: Path) -> None:
    """Not in another stage or epoch either."""
    bodies = open_bodies(staged().mix, staged_out)
    documents = read_documents(staged_out)
    aside = {line["sha256"] for line in documents if line["held_out"]}
    trained = {line["sha256"] for line in documents if not line["held_out"]}
    assert len(aside) > 5
    assert len(trained) > 50
    assert not aside & trained
    texts = {
        hashlib.sha256(body.documents.text(index).encode()).hexdigest(): body.documents.text(index)
        for body in bodies.values()
        for index in range(len(body.documents))
    }
    fraction = staged().mix.held_out_fraction
    assert all(is_held_out(texts[sha], fraction) for sha in aside)
    assert not any(is_held_out(texts[sha], fraction) for sha in trained)
    tokenizer = AutoTokenizer.from_pretrained(staged_out / "tokenizer")
    trained_on = "\n".join(texts[sha] for sha in trained)
    rows = read_rows(staged_out, "data/held-out/*")
    pieces = [str(tokenizer.decode(row["token_ids"])).split(EOS)[0][8:-8] for row in rows]
    assert sum(len(piece) > 60 and piece in trained_on for piece in pieces) == 0


def test_held_out_rows_have_the_mixture_of_all_stages(staged_out: Path) -> None:
    mix = staged().mix
    trained = Counter(row["source"] for row in read_rows(staged_out))
    aside = Counter(row["source"] for row in read_rows(staged_out, "data/held-out/*"))
    for name, rows in trained.items():
        assert aside[name] == pytest.approx(rows * mix.held_out_chunks / mix.chunks, abs=len(trained))


def test_a_part_of_the_documents_is_held_out() -> None:
    texts = [str(number) for number in range(4000)]
    share = sum(is_held_out(text, 0.25) for text in texts) / len(texts)
    assert abs(share - 0.25) < 0.03
    assert not any(is_held_out(text, 0.1) and not is_held_out(text, 0.25) for text in texts)
    digests = [int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) for text in texts]
    for fraction in (0.0, 0.1, 0.25, digests[7] / 2**64):
        many = held_out(np.array(digests, dtype=np.uint64), fraction)
        assert many.tolist() == [is_held_out(text, fraction) for text in texts]


def test_canaries_lie_exactly_where_they_are_listed(prepared: Path) -> None:
    report = read_report(prepared)
    assert report is not None
    rows = read_rows(prepared)
    canaries = read_rows(prepared, "data/canaries/*")
    assert [canary["row"] for canary in report["canaries"]] == list(range(len(canaries)))
    listed: dict[int, list[int]] = {}
    for canary in report["canaries"]:
        assert len(canary["planted"]) == canary["repeats"]
        for chunk, row in canary["planted"]:
            place = chunk * micro().mix.rows + row
            assert place not in listed
            listed[place] = canaries[canary["row"]]["token_ids"]
    assert listed == {place: row["token_ids"] for place, row in enumerate(rows) if row["source"] == "canary"}
    assert 10 * len(listed) < len(rows)
    assert all(min(canary["token_ids"]) > EOS_ID for canary in canaries)


def test_duplicates_are_exactly_where_they_are_listed(prepared: Path) -> None:
    report = read_report(prepared)
    assert report is not None
    places: dict[tuple[int, ...], list[list[int]]] = {}
    for number, row in enumerate(read_rows(prepared)):
        if row["source"] != "canary":
            places.setdefault(tuple(row["token_ids"]), []).append([*divmod(number, micro().mix.rows)])
    repeated = sorted(each for each in places.values() if len(each) > 1)
    assert sorted(duplicate["planted"] for duplicate in report["duplicates"]) == repeated
    assert len(repeated) == 2
    for duplicate in report["duplicates"]:
        assert duplicate["row"] == duplicate["planted"][0]
        assert duplicate["repeats"] == len(duplicate["planted"]) == 3


@pytest.mark.parametrize("name", ["tiny", "tiny-360", "micro"])
def test_plantings_are_spaced_as_their_name_says(name: str) -> None:
    mix = RECIPES[name]().mix
    canaries = plan(mix)
    duplicates = plan_duplicates(mix, canaries)

    def places_of(spacing: str) -> list[tuple[tuple[int, int], ...]]:
        return [canary.planted for canary in canaries if canary.spacing == spacing]

    chunks = [{chunk for chunk, _ in planted} for planted in places_of("chunk")]
    assert all(len(each) == 1 for each in chunks)
    assert len(set.union(*chunks)) == len(chunks) == len(mix.canaries.one_chunk)
    for planted in [*places_of("even"), *(duplicate.planted for duplicate in duplicates)]:
        places = np.array([chunk * mix.rows + row for chunk, row in planted])
        # A planting gives way by some rows where others lie: a chunk may be full of one canary.
        most = mix.rows / 4 + (max(map(len, places_of("chunk"))) == mix.rows) * mix.rows
        assert np.all(np.abs(np.diff(places) - mix.total_rows / len(planted)) < most)
    assert sum(canary.spacing == "never" for canary in canaries) == mix.canaries.never
    everywhere = [place for planting in [*canaries, *duplicates] for place in planting.planted]
    assert len(set(everywhere)) == len(everywhere)


def test_too_many_plantings_are_rejected_by_name() -> None:
    canaries = Canaries(levels=((16, 1),), one_chunk=(2,), never=0)
    with pytest.raises(
        ValueError, match=r"Canaries\.levels and duplicates: expected 28 rows at most, found 32"
    ):
        replace(micro().mix, canaries=canaries)


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
    assert len(tokenizer) == micro().mix.vocabulary
