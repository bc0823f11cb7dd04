"""Prompts: both published forms, each asked once, few of many pages; names taken away; what becomes of blanks."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_bold import prompts as planted_prompts
from planted_bold import save_tokenizer, write_prompts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from analysis360.errors import DataError, SelectionError
from analysis360.places import LocalFolder
from analysis360.series.manifest import Model
from analysis360.tasks.bold.anonymous import IDEA, NO_IDEAS, anonymous
from analysis360.tasks.bold.encoding import KEPT, MOVED, Encoder
from analysis360.tasks.bold.prompts import DOMAINS, Line, Prompts, checked_domains, parse, read_prompts
from analysis360.text import Text

PUBLISHED = Path(__file__).resolve().parents[3] / "shared/data/bold"
published = pytest.mark.skipif(not PUBLISHED.exists(), reason="BOLD's prompts are not beside the checkout")
quick = settings(deadline=None, database=None, max_examples=50)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
groups = st.dictionaries(texts, st.dictionaries(texts, st.lists(texts, max_size=4), max_size=4), max_size=4)


@published
def test_all_of_bold_is_read() -> None:
    found = read_prompts(LocalFolder(PUBLISHED))
    sizes = Counter(line.domain for line in found.lines)
    assert [sizes[domain] for domain in DOMAINS] == [3204, 7657, 639, 1984, 10195]  # Table 1 of the paper
    assert len({line[:2] for line in found.lines}) == 43
    distinct = [prompt for part in found.distinct() for prompt in part.prompts]
    assert len(distinct) == len(set(distinct)) == 22_303
    assert set(distinct) == {line.prompt for line in found.lines}


@published
def test_few_prompts_are_of_many_pages_and_in_every_group() -> None:
    found = read_prompts(LocalFolder(PUBLISHED))
    some = found.of(DOMAINS, 10)
    sizes = Counter(line[:2] for line in some)
    assert len(sizes) == 43
    assert set(sizes.values()) == {10}
    for key, size in sizes.items():
        pages = len({line.title for line in found.lines if line[:2] == key})
        assert len({line.title for line in some if line[:2] == key}) == min(size, pages)
    first = {p for part in found.distinct() for p in part.prompts[: part.first(10)]}
    assert {line.prompt for line in some} <= first


@quick
@given(groups)
def test_both_forms_say_the_same(content: dict[str, dict[str, list[str]]]) -> None:
    expected = [
        Line("race", group, title, prompt)
        for group, titles in content.items()
        for title, some in titles.items()
        for prompt in some
    ]
    rows = [
        {"domain": "race", "name": title, "category": group, "prompts": some, "wikipedia": ["..."]}
        for group, titles in content.items()
        for title, some in titles.items()
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for text in (json.dumps(content), json.dumps(content, indent=2), json.dumps(rows)):
        assert parse(text.encode(), "race", "file") == expected
    if rows:
        assert parse(lines.encode(), "race", "file") == expected


@quick
@given(groups, st.integers(1, 6))
def test_a_limit_takes_a_prefix_that_holds_what_is_told_of(content: dict[str, Any], limit: int) -> None:
    lines = [
        Line(domain, group, title, prompt)
        for domain in ("gender", "race")
        for group, titles in content.items()
        for title, some in titles.items()
        for prompt in some[: 2 if domain == "race" else 9]
    ]
    found = Prompts(tuple(lines))
    for part in found.distinct():
        assert list(part.ranks) == sorted(part.ranks)
    for domain in ("gender", "race"):
        asked = {
            prompt
            for part in found.distinct()
            if domain in part.parts
            for prompt in part.prompts[: part.first(limit)]
        }
        told = found.of([domain], limit)
        assert {line.prompt for line in told} <= asked
        assert all(size <= limit for size in Counter(line.group for line in told).values())


BROKEN = (
    '{"group": ["prompt"]}',
    '{"group": {"title": "prompt"}}',
    '{"group": {"title": [1]}}',
    "[1]",
    "{",
    "",
)


@pytest.mark.parametrize("text", [*BROKEN, '[{"category": "group", "name": "title"}]', "ÿ"])
def test_what_is_no_file_of_prompts_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "race_prompt.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"race_prompt\.json: expected"):
        read_prompts(LocalFolder(tmp_path))


def test_a_folder_without_prompts_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no prompts of BOLD: expected some of gender_prompt\.json"):
        read_prompts(LocalFolder(tmp_path))


def test_domains_are_asked_by_name() -> None:
    assert checked_domains("all") == DOMAINS
    assert checked_domains("race, gender") == ("gender", "race")
    with pytest.raises(SelectionError, match="domain 'sex': expected all, or some of gender"):
        checked_domains("sex")


@pytest.mark.parametrize(
    ("domain", "group", "title", "text", "expected"),
    [
        ("gender", "American_actors", "John_Salley", "Salley at John D. Salley's", "Person at Person's"),
        ("gender", "American_actors", "Ron_van_Clief", "Ron Van Clief's film; ronin", "Person's film; ronin"),
        ("race", "Asian_Americans", "Jo_Koy_(comedian)", "JO KOY, a comedian", "Person, a comedian"),
        ("race", "European_Americans", "George_W._Bush", "W. and George W. Bush", "W. and Person"),
        ("profession", "nursing_specialties", "Flight_nurse", "A flight nurse and two nurses", "A XYZ and two XYZ"),
        ("profession", "artistic_occupations", "Animator", "Reanimators are no animators", "Reanimators are no XYZ"),
        ("religious_ideology", "islam", "Sunni_Islam", "Sunni Islam, Muslims and Islamic law", "XYZ, XYZ and XYZ law"),
        ("religious_ideology", "judaism", "Judaism", "Jews and a jewel", "XYZ and a jewel"),
        ("political_ideology", "communism", "Council_communism", "council communism; Communists", "XYZ; XYZ"),
        ("political_ideology", "left-wing", "Left-wing_politics", "Left-wing  politics on the left", "XYZ on the left"),
        ("political_ideology", "left-wing", "New_Left_in_China", "He left China; leftists", "He left China; XYZ"),
        ("political_ideology", "right-wing", "Right-wing_terrorism", "rightists; terrorism", "XYZ; terrorism"),
        ("political_ideology", "socialism", "Socialism_in_Canada", "socialists of Canada", "XYZ of Canada"),
        ("profession", "nursing_specialties", "Nursing_in_Kenya", "nursing in Kenya; Kenya", "XYZ; Kenya"),
    ],
)  # fmt: skip
def test_names_are_taken_away(domain: str, group: str, title: str, text: str, expected: str) -> None:
    assert anonymous(Line(domain, group, title, text), text) == expected


@published
def test_no_word_of_a_title_with_a_feeling_of_its_own_is_taken_for_an_idea() -> None:
    """Only ideas lose their names; what else ends so would take sentiment with it."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    lexicon = SentimentIntensityAnalyzer().lexicon
    lines = read_prompts(LocalFolder(PUBLISHED)).of(("religious_ideology", "political_ideology"))
    words = {word for line in lines for word in line.title.replace("_", " ").lower().split()}
    found = {word for word in words if IDEA.search(word) and word not in NO_IDEAS and lexicon.get(word, 0)}
    assert not found
    assert set(NO_IDEAS) <= words


@published
def test_nearly_every_person_is_anonymous() -> None:
    lines = list(read_prompts(LocalFolder(PUBLISHED)).of(("gender", "race")))
    named = [line for line in lines if line.prompt and "Person" not in anonymous(line, line.prompt)]
    assert len(named) < 0.001 * len(lines)


def characters(folder: Path) -> Text:
    """A tokenizer of single characters, blanks among them."""
    alphabet = "<end>", *"abcdefghijklmnopqrstuvwxyz .0123456789"
    tokenizer = Tokenizer(models.WordLevel({char: i for i, char in enumerate(alphabet)}, unk_token="<end>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    return Text(folder, Model(eos_token_id=0))


def test_a_blank_that_belongs_to_words_is_left_to_the_continuation(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    encoder = Encoder(Text(tmp_path, Model(eos_token_id=0)))
    encoder.prepare(["Ann Abel was a ", ""])
    assert encoder.describe()["trailing_blanks"] == MOVED
    assert encoder.asked("Ann Abel was a  ") == "Ann Abel was a"
    made = tuple(encoder.text.encode([" good person ."])[0].tolist())
    assert encoder.ids("Ann Abel was a ") + made == tuple(
        encoder.text.encode(["Ann Abel was a good person ."])[0].tolist()
    )
    assert encoder.continuation("Ann Abel was a ", (*made, 0)) == " good person ."
    assert encoder.ids("") == (0,)
    assert encoder.continuation("", made) == " good person ."


def marked(folder: Path) -> Text:
    """Whole words with a mark for the blank before each, which decoding drops from the first: as Llama's."""
    words = ["Ann", "Abel", "was", "a", "good", "person", "."]
    vocabulary = {word: i for i, word in enumerate(["<end>", "▁", *(f"▁{word}" for word in words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    return Text(folder, Model(eos_token_id=0))


def test_the_blank_a_continuation_begins_with_is_kept(tmp_path: Path) -> None:
    encoder = Encoder(marked(tmp_path))
    encoder.prepare(["Ann Abel was "])
    assert encoder.describe()["trailing_blanks"] == MOVED
    made = tuple(encoder.text.encode(["a good person"])[0].tolist())
    assert encoder.text.decode(made) == "a good person"
    assert encoder.continuation("Ann Abel was ", made) == " a good person"
    assert encoder.continuation("Ann Abel was ", ()) == ""


def test_a_blank_that_is_an_id_of_its_own_stays(tmp_path: Path) -> None:
    encoder = Encoder(characters(tmp_path))
    encoder.prepare(["ann was a "])
    assert encoder.describe()["trailing_blanks"] == KEPT
    assert encoder.asked("ann was a ") == "ann was a "
    assert len(encoder.ids("ann was a ")) == 10
    assert (
        encoder.continuation("ann was a ", tuple(encoder.text.encode(["friend."])[0].tolist())) == "friend."
    )


def test_prompts_that_stand_twice_are_one_to_ask_and_two_to_count(tmp_path: Path) -> None:
    write_prompts(tmp_path)
    write_prompts(tmp_path, {"Asian_Americans": {"Ann_Abel": ["Ann Abel was a "]}}, "race")
    found = read_prompts(LocalFolder(tmp_path))
    names = {part.name: len(part.prompts) for part in found.distinct()}
    assert names == {"gender": 23, "gender+race": 1}
    assert len(found.of(["gender"])) == 25 == sum(map(len, _flat(planted_prompts())))


def _flat(content: dict[str, dict[str, list[str]]]) -> list[list[str]]:
    return [prompts for titles in content.values() for prompts in titles.values()]
