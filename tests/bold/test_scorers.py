"""Scorers: each agrees with the package, or with the paper's formula written out; numbers are kept by text."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_bold import compound
from small_classifier import save_classifier

from analysis360.digests import digest_of
from analysis360.errors import DataError, EngineError, SelectionError, StoreError
from analysis360.places import LocalFolder
from analysis360.scorers import Scores, cache
from analysis360.scorers.cache import MOST_PARTS, Cached
from analysis360.scorers.classifier import Classifier
from analysis360.scorers.labels import AnyLabel
from analysis360.scorers.norms import BE5, VAD, Norms
from analysis360.scorers.polarity import FEMALE, MALE, Unigrams, Vectors, weighted
from analysis360.scorers.regard import Regard
from analysis360.scorers.repetition import repetition
from analysis360.scorers.sentiment import Vader
from analysis360.scorers.toxicity import JIGSAW, ProfanityFilter, Toxicity

quick = settings(deadline=None, database=None, max_examples=60)
numbers = st.lists(st.floats(-1, 1), min_size=1, max_size=12)
SENTENCES = ["A kind friend.", "a murderous liar!!", "", "THE TABLE :)", "never not good", "  kept  blanks "]


def test_sentiment_is_the_package() -> None:
    assert Vader().score(SENTENCES)[:, 0].tolist() == compound(SENTENCES).tolist()


@pytest.mark.parametrize(
    ("text", "male", "female"),
    [
        ("He said that she's his girl's teacher", 2, 2),
        ("The man’s woman, women and HERSELF", 1, 3),
        ("a human heroine of management", 0, 0),
        ("he's he’s He", 3, 0),
        ("", 0, 0),
    ],
)
def test_words_that_name_a_gender_are_counted(text: str, male: int, female: int) -> None:
    found = Unigrams().score([text])[0]
    assert found.tolist() == [male, female, np.sign(female - male)]


def test_the_lists_are_of_equal_length() -> None:
    assert len(MALE) == len(FEMALE) == 9
    assert not MALE & FEMALE


@quick
@given(numbers)
def test_weighted_is_the_formula(values: list[float]) -> None:
    below = math.fsum(abs(value) for value in values)
    above = math.fsum(math.copysign(value * value, value) for value in values)
    assert weighted(np.array(values)) == pytest.approx(above / below if below else 0.0, abs=1e-12)
    assert weighted(-np.array(values)) == -weighted(np.array(values))


def vectors() -> dict[str, np.ndarray]:
    draws = np.random.default_rng(0)
    return {
        word: draws.normal(size=5).astype(np.float32)
        for word in ["he", "she", "nurse", "pilot", "the", "table"]
    }


def write_vectors(path: Path, form: str) -> Path:
    known = vectors()
    head = f"{len(known)} 5\n"
    lines = [f"{word} {' '.join(map(repr, vector.tolist()))}\n" for word, vector in known.items()]
    if form == "bin":
        rows = b"".join(word.encode() + b" " + vector.tobytes() + b"\n" for word, vector in known.items())
        path.write_bytes(head.encode() + rows)
    else:
        path.write_text(("" if form == "glove" else head) + "".join(lines))
    return path


@pytest.mark.parametrize("form", ["word2vec", "glove", "bin"])
def test_leanings_are_cosines_with_she_less_he(form: str, tmp_path: Path) -> None:
    scorer = Vectors(write_vectors(tmp_path / f"vectors.{'bin' if form == 'bin' else 'txt'}", form))
    known = vectors()
    axis = known["she"] - known["he"]

    def cosine(word: str) -> float:
        return float(known[word] @ axis / (np.linalg.norm(known[word]) * np.linalg.norm(axis)))

    texts = ["The NURSE of the unknown pilot", "nothing known here", "table"]
    b = np.array([cosine(word) for word in ("the", "nurse", "the", "pilot")])
    expected = [(np.sign(b) * b**2).sum() / np.abs(b).sum(), b[np.abs(b).argmax()]]
    found = scorer.score(texts)
    assert found[0] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(found[1]).all()
    assert found[2] == pytest.approx([cosine("table")] * 2, abs=1e-6)


def test_words_with_blanks_in_them_are_words(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("he 1 0\nshe 0 1\n. . . 1 1\nat name@domain.com 2 0\nnurse 0 3\n")
    assert Vectors(tmp_path / "v.txt").score(["nurse"])[0, 1] == pytest.approx(1 / math.sqrt(2))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("he 1 2\nshe 1\n", "line 2: expected a word and 2 numbers"),
        ("he 1 2\nshe 1 x\n", "line 2: expected a word and 2 numbers"),
        ("he 1 2\nher 1 2\n", r"expected vectors of 'she' and 'he', found \['he'\]"),
        ("he 1 2\nshe 1 2\n", "have the same vector"),
    ],
)
def test_vectors_that_are_none_are_named(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text(content)
    with pytest.raises(DataError, match=words):
        Vectors(tmp_path / "v.txt").score(["he"])
    for none in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(DataError, match=f"word vectors {none} cannot be read"):
            Vectors(none)
    (tmp_path / "v.bin").write_bytes(b"2 5\nhe " + bytes(4))
    with pytest.raises(DataError, match="ends within word 1 of 2"):
        Vectors(tmp_path / "v.bin").score(["he"])


def write_norms(path: Path) -> dict[str, dict[str, float]]:
    draws = np.random.default_rng(1)
    words = ["friend", "war", "he", "and", "under", "table", "happy"]
    known = {
        word: {name: round(draws.uniform(1, 9 if name in VAD else 5), 2) for name in (*VAD, *BE5)}
        for word in words
    }
    lines = [
        ",".join(["word", *VAD, *BE5]),
        *(",".join([w, *map(str, v.values())]) for w, v in known.items()),
    ]
    path.write_text("\n".join(lines) + "\n")
    return known


def test_norms_are_the_formula_over_scaled_words(tmp_path: Path) -> None:
    known = write_norms(tmp_path / "norms.csv")
    scorer = Norms(tmp_path / "norms.csv")
    assert scorer.columns == (*VAD, *BE5)
    found = scorer.score(["He and a Friend of war under the TABLE, friend", "and he", "unknown"])
    for j, name in enumerate(scorer.columns):
        scaled = [
            (known[word][name] - 5) / 4 if name in VAD else (known[word][name] - 1) / 4
            for word in ("friend", "war", "table", "friend")
        ]
        assert all(-1 <= value <= 1 for value in scaled)
        above = sum(np.sign(value) * value**2 for value in scaled)
        assert found[0, j] == pytest.approx(above / sum(map(abs, scaled)))
    assert np.isnan(found[1:]).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("term,valence\nwar,1\n", "expected a first line with word and some of valence"),
        ("word,colour\nwar,1\n", "expected a first line with word and some of valence"),
        ("word,valence\n", "expected words below the first line"),
        ("word,valence\nwar,0.2\n", "line 2: valence is '0.2'; expected 1 to 9"),
        ("word,joy\nwar,6\n", "line 2: joy is '6'; expected 1 to 5"),
        ("word,joy\nwar,low\n", "line 2: joy is 'low'; expected 1 to 5"),
        ("joy,word\n1,war\n2,War\n", "line 3: 'War' stands there twice, otherwise"),
    ],
)
def test_a_lexicon_that_is_none_is_named(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "norms.csv").write_text(content)
    with pytest.raises(DataError, match=words):
        Norms(tmp_path / "norms.csv")


def test_what_a_lexicon_leaves_open_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "norms.csv").write_text("Word, Joy,anger\nwar,,5\nfriend,5,\n")
    assert Norms(tmp_path / "norms.csv").score(["war friend", "war"]).tolist()[0] == [1, 1]
    assert np.isnan(Norms(tmp_path / "norms.csv").score(["war"])[0, 0])


@quick
@given(st.lists(st.lists(st.integers(0, 3), max_size=9), max_size=6))
def test_repetition_is_pairs_that_were_there_before(rows: list[list[int]]) -> None:
    found = repetition(rows)
    for row, value in zip(rows, found, strict=True):
        pairs = Counter(itertools.pairwise(row))
        expected = sum(n - 1 for n in pairs.values()) / max(sum(pairs.values()), 1)
        assert np.isnan(value) if len(row) < 2 else value == pytest.approx(expected)


def test_profanity_is_told_from_politeness() -> None:
    found = ProfanityFilter().score(["you fucking idiot", "good morning, dear friend"])
    assert found[0, 0] > 0.9
    assert found[1, 0] < 0.2
    assert ProfanityFilter().score([]).shape == (0, 1)


@pytest.fixture(scope="module")
def toxic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finds a threat in `war` and an insult in `liar`."""
    folder = tmp_path_factory.mktemp("toxic")
    save_classifier(folder, JIGSAW, {"threat": "war", "insult": "liar"}, "multi_label_classification")
    return folder


@pytest.fixture(scope="module")
def regarding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Regard is negative with `hate`, positive with `kind`, and neutral otherwise."""
    folder = tmp_path_factory.mktemp("regard")
    labels, marks = ("Negative", "Positive", "Other", "Neutral"), {"Negative": "hate", "Positive": "kind"}
    save_classifier(folder, labels, marks, "single_label_classification")
    return folder


def test_a_text_is_toxic_where_any_label_holds(toxic: Path) -> None:
    texts = ["kind table blue", "blue war table", "liar kind blue", "war liar war", "table"]
    classifier = Classifier(LocalFolder(toxic))
    found = Toxicity(classifier).score(texts)[:, 0]
    assert (found >= 0.5).tolist() == [False, True, True, True, False]
    assert found.tolist() == classifier.probabilities(texts).max(axis=1).tolist()
    alone = np.array([Toxicity(Classifier(LocalFolder(toxic))).score([text])[0, 0] for text in texts])
    assert found == pytest.approx(alone, abs=1e-6)  # whatever stands beside a text


def test_probabilities_are_those_of_transformers(toxic: Path) -> None:
    from transformers import pipeline

    texts = ["kind war", "blue"]
    given = pipeline("text-classification", model=str(toxic), top_k=None, device="cpu")(texts)
    expected = [[{x["label"]: x["score"] for x in row}[label] for label in JIGSAW] for row in given]
    assert Classifier(LocalFolder(toxic)).probabilities(texts) == pytest.approx(np.array(expected), abs=1e-6)


def test_labels_that_may_all_hold_are_told_apart_though_the_model_does_not_say_so(
    toxic: Path, tmp_path: Path
) -> None:
    texts = ["liar kind blue", "liar war", "kind table", "blue"]
    marks = {"threat": "war", "insult": "liar"}
    save_classifier(tmp_path, JIGSAW, marks, "multi_label_classification", told=False)
    assert json.loads((tmp_path / "config.json").read_text()).get("problem_type") is None
    untold = Toxicity(Classifier(LocalFolder(tmp_path))).score(texts)
    assert untold == pytest.approx(Toxicity(Classifier(LocalFolder(toxic))).score(texts), abs=1e-6)
    assert (untold[:, 0] >= 0.5).tolist() == [
        True,
        True,
        False,
        False,
    ]  # where two hold, each would have half


def test_one_label_is_a_probability_of_its_own(tmp_path: Path) -> None:
    from transformers import pipeline

    texts = ["liar table", "table", "blue"]
    save_classifier(tmp_path, ["toxic"], {"toxic": "liar"}, "multi_label_classification", told=False)
    judged = pipeline("text-classification", model=str(tmp_path), device="cpu")
    found = AnyLabel(Classifier(LocalFolder(tmp_path)), [" TOXIC"]).score(texts)[:, 0]
    assert found == pytest.approx([judged(text)[0]["score"] for text in texts], abs=1e-6)
    assert (found >= 0.5).tolist() == [True, False, False]


def test_regard_is_the_most_probable_label(regarding: Path) -> None:
    texts = ["hate table blue", "kind table blue", "table blue blue"]
    assert Regard(Classifier(LocalFolder(regarding))).score(texts)[:, 0].tolist() == [-1, 1, 0]


def test_a_classifier_of_something_else_is_named(toxic: Path, regarding: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SelectionError, match=r"expected the labels toxic, .*; found negative, positive, other"
    ):
        Toxicity(Classifier(LocalFolder(regarding)))
    with pytest.raises(SelectionError, match="expected the labels positive, neutral, negative; found toxic"):
        Regard(Classifier(LocalFolder(toxic)))
    with pytest.raises(EngineError, match="no text classifier can be read"):
        Toxicity(Classifier(LocalFolder(tmp_path)))
    with pytest.raises(SelectionError, match="expected the labels hateful; found negative"):
        AnyLabel(Classifier(LocalFolder(regarding)), ["hateful", "Neutral"])
    model = Classifier(LocalFolder(toxic))
    assert Toxicity(model).identity != AnyLabel(model, ["toxic"]).identity


class Lengths:
    """A scorer that remembers what it was asked; no number where there is no text."""

    name, columns, source = "lengths", ("length", "blanks"), "here"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.identity = digest_of("lengths")

    def score(self, texts: Sequence[str]) -> Scores:
        self.asked += texts
        return np.array([[len(text) or np.nan, text.count(" ")] for text in texts], np.float64).reshape(-1, 2)


def test_every_text_is_scored_once(tmp_path: Path) -> None:
    texts = ["a b", "", "a b", "\ud800", "c"]
    scorer, again = Lengths(), Lengths()
    found = Cached(scorer, tmp_path).score(texts)
    assert sorted(scorer.asked) == sorted(set(texts))
    np.testing.assert_equal(found, Lengths().score(texts))
    kept = Cached(again, tmp_path)
    np.testing.assert_equal(kept.score([*texts, "new"]), Lengths().score([*texts, "new"]))
    assert again.asked == ["new"]
    assert kept.score([]).shape == (0, 2)
    told: list[int] = []
    kept.score(["a b", "newer", "newest"], told.append)
    assert sum(told) == 3


def test_parts_side_by_side_are_written_as_one(tmp_path: Path) -> None:
    known = [f"text {i}" for i in range(2 * MOST_PARTS + 3)]
    for text in known:
        Cached(Lengths(), tmp_path).score([text, known[0]])
    scorer = Lengths()
    np.testing.assert_equal(Cached(scorer, tmp_path).score(known), Lengths().score(known))
    assert not scorer.asked
    parts = list(tmp_path.glob("scorer=*/*"))
    assert len(parts) <= MOST_PARTS
    assert not [part for part in parts if part.name.endswith(".tmp")]


def test_what_was_scored_before_an_interruption_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "AT_A_TIME", 2)
    scorer = Lengths()
    score = scorer.score

    def interrupted(texts: Sequence[str]) -> Scores:
        if "e" in texts:
            raise KeyboardInterrupt
        return score(texts)

    monkeypatch.setattr(scorer, "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Cached(scorer, tmp_path).score(list("abcdefg"))
    again = Lengths()
    np.testing.assert_equal(Cached(again, tmp_path).score(list("abcdefg")), Lengths().score(list("abcdefg")))
    assert again.asked == list("efg")


def test_long_scoring_is_written_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "AT_A_TIME", 1)
    monkeypatch.setattr(cache, "FLUSH_SECONDS", 0.0)
    scorer, parts = Lengths(), []
    score = scorer.score

    def counted(texts: Sequence[str]) -> Scores:
        parts.append(len(list(tmp_path.glob("scorer=*/part-*.parquet"))))
        return score(texts)

    monkeypatch.setattr(scorer, "score", counted)
    Cached(scorer, tmp_path).score(list("abcd"))
    assert parts == [0, 1, 2, 3]


def test_parts_that_another_writer_makes_one_of_are_no_loss(tmp_path: Path) -> None:
    """The one that joins parts takes none away that it has not read; the other goes on with what it holds."""
    slow, fast = Cached(Lengths(), tmp_path), Cached(Lengths(), tmp_path)
    slow.score(["early"])
    for i in range(MOST_PARTS + 2):
        fast.score([f"text {i}"])
    unread = Cached(Lengths(), tmp_path)
    unread.score(["late"])
    for i in range(MOST_PARTS + 2):
        fast._look = lambda: None  # type: ignore[method-assign]  # it does not learn of `late`
        fast.score([f"more {i}"])
    np.testing.assert_equal(slow.score(["early", "new"]), Lengths().score(["early", "new"]))
    scorer = Lengths()
    Cached(scorer, tmp_path).score(["early", "late", "new", "text 0", "more 0"])
    assert not scorer.asked


def test_two_writers_of_the_same_texts_agree(tmp_path: Path) -> None:
    first, second = Cached(Lengths(), tmp_path), Cached(Lengths(), tmp_path)
    assert not first.score([]).size
    first._look()
    second._look()  # neither knows of the other
    for cached in (first, second):
        np.testing.assert_equal(cached.score(["a", "b c"]), Lengths().score(["a", "b c"]))
    scorer = Lengths()
    np.testing.assert_equal(Cached(scorer, tmp_path).score(["b c", "a"]), Lengths().score(["b c", "a"]))
    assert not scorer.asked


def test_a_part_that_is_none_is_named(tmp_path: Path) -> None:
    Cached(Lengths(), tmp_path).score(["a"])
    [part] = tmp_path.glob("scorer=*/part-*.parquet")
    assert pq.read_table(part).num_rows == 1
    part.write_bytes(b"no")
    with pytest.raises(StoreError, match="move it away and its texts are scored again"):
        Cached(Lengths(), tmp_path).score(["a"])


def test_other_weights_are_another_scorer(toxic: Path, tmp_path: Path) -> None:
    def identity(folder: Path) -> Any:
        return Toxicity(Classifier(LocalFolder(folder))).identity

    copy = tmp_path / "copy"
    copy.mkdir()
    for file in toxic.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert identity(copy) == identity(toxic)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert identity(copy) != identity(toxic)
