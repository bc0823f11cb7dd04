"""Windows, requests, corpora and bytes against loops, lm-eval and the text itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "engines"))
from small_tokenizer import save_tokenizer

from analysis360.corpora import Corpus, Document, read_dataset, read_files
from analysis360.errors import DataError, SelectionError
from analysis360.series.manifest import Model
from analysis360.tasks.perplexity.passages import corpus_passages
from analysis360.tasks.perplexity.windows import Window, requests, windows
from analysis360.text import Text

quick = settings(deadline=None, database=None, max_examples=150)
sizes = st.integers(1, 12).flatmap(lambda width: st.tuples(st.just(width), st.integers(1, width)))
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=60)


def contexts(some: list[Window]) -> dict[int, int]:
    """Of each target, which is its own place, how many ids before it are read; each is met once."""
    found: dict[int, int] = {}
    for window in some:
        for place in range(window.first, len(window.ids)):
            target = int(window.ids[place])
            assert target not in found
            assert window.ids[:place].tolist() == list(range(target - place, target))
            found[target] = place
    return found


@quick
@given(st.integers(0, 60), sizes)
def test_each_target_is_asked_about_once_and_sees_what_the_stride_leaves(
    n: int, size: tuple[int, int]
) -> None:
    width, stride = size
    some = windows(np.arange(n, dtype=np.int32), width, stride)
    found = contexts(some)
    assert sorted(found) == list(range(1, n))
    for target, seen in found.items():
        if target <= width:
            assert seen == target  # all there is
        else:
            assert width - stride < seen <= width
    assert all(len(window.ids) <= width + 1 for window in some)
    if n > width:
        assert all(len(window.ids) == width + 1 for window in some)


@quick
@given(st.integers(2, 60), sizes)
def test_windows_are_those_of_lm_eval(n: int, size: tuple[int, int]) -> None:
    rolling = pytest.importorskip("lm_eval.utils").get_rolling_token_windows
    width, stride = size
    ids = np.arange(n, dtype=np.int32)
    theirs = list(rolling(ids[1:].tolist(), 0, width, width - stride + 1))
    ours = windows(ids, width, stride)
    assert [(w.ids[:-1].tolist(), w.ids[w.first :].tolist()) for w in ours] == theirs


@quick
@given(st.lists(st.integers(0, 3), min_size=2, max_size=20), st.data())
def test_requests_are_the_targets_in_order_and_eos_stands_alone(ids: list[int], data: st.DataObject) -> None:
    first = data.draw(st.integers(1, len(ids) - 1))
    found = requests(Window(np.array(ids, np.int32), first), eos=0)
    place = first
    for (context, continuation), eos in found:
        assert list(context) == ids[:place]
        assert list(continuation) == ids[place : place + len(continuation)]
        assert (continuation == (0,)) if eos else (0 not in continuation)
        place += len(continuation)
    assert place == len(ids)
    ((whole, _),) = requests(Window(np.array(ids, np.int32), first), eos=None)
    assert whole.context + whole.continuation == tuple(ids)


# --- text and its bytes ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return Text(folder, Model(eos_token_id=0))


@quick
@given(st.lists(texts, min_size=1, max_size=4), sizes, st.booleans())
def test_bytes_are_those_of_the_text_that_is_asked_about(
    text: Text, some: list[str], size: tuple[int, int], prefix: bool
) -> None:
    corpus = Corpus("c", "here", [Document(one) for one in some])
    ids = text.encode(some)
    targets = [len(row) if prefix else max(len(row) - 1, 0) for row in ids]
    if not sum(targets):
        with pytest.raises(DataError, match="found no token"):
            corpus_passages(corpus, text, width=size[0], stride=size[1], prefix=prefix)
        return
    found = corpus_passages(corpus, text, width=size[0], stride=size[1], prefix=prefix)
    assert found.bytes is not None
    for number, one in enumerate(some):
        mine = [i for i, document in enumerate(found.documents) if document == number]
        asked = [id for i in mine for id in found.windows[i].ids[found.windows[i].first :].tolist()]
        assert asked == ids[number][0 if prefix else 1 :].tolist()
        whole = len(one.encode())
        if prefix:
            assert sum(found.bytes[i] for i in mine) == whole * bool(mine)
            assert all(found.windows[i].ids[0] == 0 for i in mine[:1])
        elif mine:  # without the first token's, up to the end of its character
            first = int(text.count_bytes(ids[number][None, :1])[0])
            assert whole - first - 3 <= sum(found.bytes[i] for i in mine) <= whole
    assert all(size >= 0 for size in found.bytes)


@quick
@given(texts)
def test_bytes_of_ids_are_those_of_their_text(text: Text, one: str) -> None:
    ids = text.encode([one])[0]
    ends = np.array([0, 0], np.int32)  # of a document, and beyond the vocabulary: no text
    row = np.concatenate([ends, ids, ends + 5000])[None]
    assert text.count_bytes(row).tolist() == [len(one.encode())]


def test_sentencepiece_counts_blanks_and_bytes(tmp_path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "</s>", "\u2581a", "b", "\u00e9", *[f"<0x{byte:02X}>" for byte in range(256)]]
    model = models.BPE(
        {piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_tokens([AddedToken("   ", special=False)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>").save_pretrained(
        tmp_path
    )
    text = Text(tmp_path, Model())
    rows = np.array([[2, 3], [4, 4], [1, 4], [5, 260], [len(pieces), 1]], np.int32)
    assert text.count_bytes(rows).tolist() == [3, 4, 2, 2, 3]


# --- corpora ------------------------------------------------------------------------------------------


def test_files_become_documents(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes("\ufeffone\n\n two \n".encode())
    records = [{"text": "a", "source": "web"}, {"text": "\u00e9\u2028b"}]
    (tmp_path / "rows.jsonl").write_text(
        "\n".join(json.dumps(x, ensure_ascii=False) for x in records) + "\n\n"
    )
    book, rows = read_files([tmp_path / "book.txt", tmp_path / "rows.jsonl"])
    assert book.documents == [Document("one\n\n two \n", "book")]
    assert rows.documents == [Document("a", "web"), Document("\u00e9\u2028b", "unknown")]
    (split,) = read_files([tmp_path / "book.txt"], lines=True)
    assert [document.text for document in split.documents] == ["one", " two "]
    assert len({book.digest, rows.digest, split.digest}) == 3
    assert read_files([tmp_path / "book.txt"])[0].digest == book.digest


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"\xff", "a.txt: expected UTF-8, found another byte at 0"),
        ("a.jsonl", b"[1]", "a.jsonl line 1: expected text in the field 'text', found list"),
        ("a.jsonl", b'\n{"text": 3, "body": ""}', "line 2: expected text .* found text, body; give --field"),
        ("a.jsonl", b"{", "line 1: expected a JSON object, found '{'"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_files([tmp_path / name])


def test_two_files_of_one_name_and_lone_surrogates_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "a.jsonl").write_text('{"text": "\\ud800"}')
    with pytest.raises(SelectionError, match="two files are called a"):
        read_files([tmp_path / "a.txt", tmp_path / "a.jsonl"])
    with pytest.raises(DataError, match="lone surrogate"):
        _ = read_files([tmp_path / "a.jsonl"])[0].digest
    with pytest.raises(DataError, match=r"none\.txt cannot be read"):
        read_files([tmp_path / "none.txt"])


def test_a_folder_is_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "mine"
    folder.mkdir()
    rows = [{"body": "one", "source": "web"}, {"body": "two", "source": "books"}]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_dataset(str(folder), field="body")
    assert found.name == "mine-test"
    assert list(found.documents) == [Document("one", "web"), Document("two", "books")]
    with pytest.raises(DataError, match="expected text in the field 'text', found body, source"):
        read_dataset(str(folder))
    with pytest.raises(DataError, match="split train: it cannot be loaded"):
        read_dataset(str(folder), split="train")
