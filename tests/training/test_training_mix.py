"""Mixes: apportioned exactly, staged as they say, read from a file, refused in one line."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_rows import mix_of, read_documents, read_rows, recipe_of

from training.config import Canaries, Loop, Mix, Model, Rate, Recipe, Source, Stage, Take
from training.data.counts import mix_table
from training.data.mix import read_mix
from training.data.prepare import prepare
from training.errors import TrainingError
from training.recipes import RECIPES
from training.records import as_json, from_json
from training.series import read_report

EXAMPLE = Path(__file__).parents[2] / "training/mixes/three-stages.toml"
NAMES = ("a", "b", "c", "d", "e")

weights = st.floats(1e-6, 1e6)
stages_of_weights = st.lists(weights, min_size=1, max_size=5)


@st.composite
def mixes(draw: st.DrawFn) -> Mix:
    """Any mix of a stage or two with budgets, weights, parts, epochs and plantings."""
    rows, row_tokens = draw(st.integers(40, 60)), draw(st.integers(2, 9))
    stages = []
    for index in range(draw(st.integers(1, 2))):
        chunks = draw(st.integers(2, 9))
        takes = [Take(name, weight) for name, weight in zip(NAMES, draw(stages_of_weights), strict=False)]
        budget = draw(st.integers(0, chunks * rows - 1))
        part = draw(st.sampled_from([(0.0, 1.0), (0.25, 0.5), (0.1, 0.30000000000000004)]))
        epochs = draw(st.integers(1, 3))
        takes += [Take("e", tokens=budget * row_tokens, part=part, epochs=epochs)] if budget else []
        stages.append(Stage(f"stage {index}", chunks, tuple(takes)))
    canaries = draw(st.sampled_from([Canaries(), Canaries(((2, 1),), (1,), 3, ((2, 1),), 0.2)]))
    sources = tuple(Source(name) for name in NAMES)
    seed = draw(st.integers(0, 2**63))
    return Mix("any", seed, sources, tuple(stages), rows, row_tokens, vocabulary=300, canaries=canaries)


@settings(max_examples=200, deadline=None)
@given(mix=mixes())
def test_weights_share_exactly_what_budgets_leave(mix: Mix) -> None:
    for stage in mix.stages:
        rows = mix.rows_of(stage)
        budgets = [take.tokens // mix.row_tokens for take in stage.takes]
        left, total = stage.chunks * mix.rows - sum(budgets), math.fsum(take.weight for take in stage.takes)
        assert sum(rows) == stage.chunks * mix.rows
        for take, budget, got in zip(stage.takes, budgets, rows, strict=True):
            if take.tokens:
                assert got == budget
            else:
                assert abs(got - left * take.weight / total) < 1 + 1e-9


@settings(max_examples=100, deadline=None)
@given(mix=mixes(), peak=st.floats(1e-6, 1), fall=st.floats(0, 1), batch=st.integers(1, 64))
def test_a_recipe_comes_back_from_json(mix: Mix, peak: float, fall: float, batch: int) -> None:
    model = Model(hidden=8, layers=1, heads=2, intermediate=8, vocabulary=300)
    recipe = Recipe(
        mix, model, Loop(min(batch, mix.rows), tuple(Rate(peak, peak * fall, 0) for _ in mix.stages))
    )
    assert from_json(Recipe, json.loads(json.dumps(as_json(recipe)))) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_comes_back_from_json(name: str) -> None:
    recipe = RECIPES[name]()
    assert from_json(Recipe, json.loads(json.dumps(as_json(recipe)))) == recipe


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mix, Path]:
    out = tmp_path_factory.mktemp("three") / "out"
    mix, model, loop = read_mix(EXAMPLE)
    lines = prepare(Recipe(mix, from_json(Model, model), from_json(Loop, loop)), out, workers=2)
    report = read_report(out)
    assert report is not None
    assert lines.endswith(mix_table(report))
    return mix, out


def used(out: Path, stage: str, source: str) -> list[dict[str, Any]]:
    """Lines of documents.parquet."""
    return [line for line in read_documents(out) if (line["stage"], line["source"]) == (stage, source)]


def shas(lines: list[dict[str, Any]]) -> set[str]:
    return {line["sha256"] for line in lines}


def test_the_example_is_crystalcoders_three_stages(three: tuple[Mix, Path]) -> None:
    """A half; the other half with two epochs of code; a third mix, mostly of other code."""
    mix, out = three
    first, second, third = (stage.name for stage in mix.stages)
    half, other = shas(used(out, first, "shakespeare")), shas(used(out, second, "shakespeare"))
    assert not half & other
    plays = [line for line in read_documents(out) if line["source"] == "shakespeare" and not line["held_out"]]
    assert shas(plays) >= half | other
    assert len(half | other) > 0.9 * len(shas(plays))
    assert {line["source"] for line in read_documents(out) if line["stage"] == first} == {"shakespeare"}
    code = used(out, second, "python-stdlib")
    once, again = (
        [line["sha256"] for line in code if line["epoch"] == epoch and not line["held_out"]]
        for epoch in (0, 1)
    )
    assert len(set(once)) == len(once)
    assert set(again) <= set(once)
    assert len(again) > 0.9 * len(once)
    assert again != once[: len(again)]  # in another order
    assert not shas(code) & shas(used(out, third, "python-stdlib"))
    report = read_report(out)
    assert report is not None
    epochs = report["stages"][second]["sources"]["python-stdlib"]["epochs"]
    assert 1.9 < epochs <= 2
    rows = mix.rows_of(mix.stages[1])[1] * mix.row_tokens
    distinct = {line["sha256"]: line["tokens"] for line in code}
    assert epochs == rows / sum(distinct.values())
    assert report["stages"][third]["sources"]["python-docs"]["tokens"] == 14392


def test_each_stage_is_trained_on_in_its_chunks(three: tuple[Mix, Path]) -> None:
    mix, out = three
    documents = read_documents(out)
    stages = [mix.stage_of(chunk).name for chunk in range(mix.chunks)]
    assert [stages.count(stage.name) for stage in mix.stages] == [36, 60, 8]
    copies = {
        tuple(place)
        for duplicate in (read_report(out) or {})["duplicates"]
        for place in duplicate["planted"][1:]
    }
    for number, row in enumerate(read_rows(out)):
        place = divmod(number, mix.rows)
        if row["source"] != "canary" and place not in copies:
            assert documents[row["document"]]["stage"] == stages[place[0]]


def test_every_row_begins_where_it_says(three: tuple[Mix, Path]) -> None:
    """Ends of sequences stand where the documents end, in all 7,000 rows, and no row is there twice."""
    mix, out = three
    documents, places = read_documents(out), []
    for row in read_rows(out) + read_rows(out, "data/held-out/*"):
        if row["source"] == "canary":
            continue
        number, offset = row["document"], row["offset"]
        assert documents[number]["source"] == row["source"]
        assert 0 <= offset < documents[number]["tokens"]
        assert (documents[number]["start"] + offset) % mix.row_tokens == 0
        ends, end = [], documents[number]["tokens"] - offset
        while end <= mix.row_tokens:
            ends.append(end - 1)
            number += 1
            end += documents[number]["tokens"] if end < mix.row_tokens else mix.row_tokens
        assert [place for place, token in enumerate(row["token_ids"]) if token == 0] == ends
        places.append((row["document"], offset))
    copies = sum((repeats - 1) * rows for repeats, rows in mix.canaries.duplicates)
    assert len(places) - len(set(places)) == copies


def test_the_table_has_a_line_a_source_and_a_column_a_stage(three: tuple[Mix, Path]) -> None:
    mix, out = three
    report = read_report(out)
    assert report is not None
    header, _, *lines = mix_table(report).splitlines()
    assert [line.split()[0] for line in lines] == [
        "shakespeare",
        "python-stdlib",
        "python-docs",
        "canary",
        "all",
    ]
    assert all(f"{stage.name}, %" in header for stage in mix.stages)
    rows = read_rows(out)
    for line in lines[:-1]:
        name, *_ = line.split()
        tokens = sum(len(row["token_ids"]) for row in rows if row["source"] == name)
        assert f" {tokens:,}  " in line
        assert f" {100 * tokens / (len(rows) * mix.row_tokens):.2f}" in line
    assert lines[-1].split()[:3] == ["all", f"{mix.total_rows * mix.row_tokens:,}", "100.00"]


def test_the_files_model_and_loop_are_given_back(tmp_path: Path) -> None:
    mix, model, loop = read_mix(EXAMPLE)
    assert mix.name == "three-stages"
    assert model == {"hidden": 192, "layers": 3, "heads": 6, "intermediate": 512, "vocabulary": 2048}
    assert loop is not None
    assert [rate["peak"] for rate in loop["rates"]] == [4e-3, 3e-3, 7e-4]
    text = EXAMPLE.read_text().split("[model]")[0]
    (tmp_path / "mix.toml").write_text(text)
    assert read_mix(tmp_path / "mix.toml") == (mix, None, None)
    (tmp_path / "mix.toml").write_text(text.replace("vocabulary = 2048\n", ""))
    continued, _, _ = read_mix(tmp_path / "mix.toml", parent=True)
    assert (continued.vocabulary, continued.tokenizer) == (0, "parent")
    with pytest.raises(TrainingError, match=r"Mix\.vocabulary and Mix\.tokenizer: expected 257 or more"):
        read_mix(tmp_path / "mix.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 360", "seed = ", "mix.toml: expected TOML, found Invalid value"),
        ("seed = 360", "sed = 360", r"mix.toml: Mix.sed: expected one of name, seed, .*, found 'sed'"),
        ("seed = 360", "", "mix.toml: Mix: expected seed, found none; mend the file"),
        ("seed = 360", 'seed = "x"', "mix.toml: Mix.seed: expected a value of type int, found 'x'"),
        ("weight = 0.6\n", "weigth = 0.6\n", r"Mix.stages\[1\].takes\[0\].weigth: expected one of"),
        (
            "part = [0.5, 1.0]",
            "part = [1.0, 0.5]",
            r"Take.part \(shakespeare\): expected 0 <= from < to <= 1",
        ),
        ("tokens = 14392", "tokens = 14391", "Stage third mix: Take.tokens: expected a multiple of 257"),
        ("tokens = 14392", "tokens = 143920", "third mix: Take.tokens: expected fewer than 512 rows in all"),
        ('name = "python-docs"', 'name = "docs"', "Stage third mix: Take.source: expected .* or docs, found"),
        ("[model]", "[[model]]", r"mix.toml: model: expected a table \[model\]"),
        ("never = 8", "never = -8", "mix.toml: Canaries.never: expected 0 or more, found -8"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = EXAMPLE.read_text()
    assert old in text
    (tmp_path / "mix.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(TrainingError, match=message) as error:
        read_mix(tmp_path / "mix.toml")
    assert "\n" not in str(error.value)


def test_no_file_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"none\.toml: expected a mix file, found No such file"):
        read_mix(tmp_path / "none.toml")


def test_a_source_too_small_is_named_with_what_it_has(tmp_path: Path) -> None:
    one = Take("python-docs", 1.0, part=(0.0, 0.2), epochs=2)
    mix = mix_of(Take("shakespeare", 1.0), one, chunks=200)
    expected = r"stage all: python-docs: expected 104000 tokens, found \d+ in \d+ documents \(2 epochs\); ask"
    with pytest.raises(TrainingError, match=expected):
        prepare(recipe_of(mix), tmp_path)
    assert not (tmp_path / "recipe.json").exists()
    assert not (tmp_path / ".prepare").exists()
    mix = mix_of(Take("python-docs", 1.0), chunks=4, held_out_fraction=0.001)
    with pytest.raises(TrainingError, match="python-docs, held out: expected 1040 tokens, found"):
        prepare(recipe_of(mix), tmp_path)


def test_two_takes_of_one_source_are_counted_together(tmp_path: Path) -> None:
    takes = (Take("shakespeare", 1.0, part=(0.0, 0.5)), Take("shakespeare", 3.0, part=(0.5, 1.0)))
    mix = mix_of(*takes, chunks=4)
    prepare(recipe_of(mix), tmp_path)
    report = read_report(tmp_path)
    assert report is not None
    counts = report["sources"]["shakespeare"]
    lines = [line for line in read_documents(tmp_path) if not line["held_out"]]
    assert counts["rows"] == mix.total_rows
    assert counts["documents"] == len(shas(lines)) == len(lines)
    assert counts["epochs"] == counts["tokens"] / sum(line["tokens"] for line in lines)
