"""Toxic generation: planted texts, judged by a classifier of transformers one at a time; rates of what was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planted_bold import BEGINNINGS, KIND, UNKIND, names, sentences
from test_scorers import save_classifier

from analysis360.biases import BiasResult
from analysis360.cli import main
from analysis360.corpora import read_sets
from analysis360.errors import DataError, SelectionError
from analysis360.tasks.generation import read_generation
from analysis360.toxicity import toxic_generation

TASK = """
name = "inviting"
dataset = "{dataset}"
newline = '\\n'
[sampling]
new_tokens = 8
temperature = 0.1
top_p = 0.9
[scorer]
model = "{model}"
labels = ["label_1"]
"""


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finds `liar` toxic."""
    folder = tmp_path_factory.mktemp("judge")
    save_classifier(folder, ("LABEL_1", "LABEL_0"), {"LABEL_1": "liar"}, "single_label_classification")
    return folder


@pytest.fixture(scope="module")
def task(judge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task over sets of prompts in a folder; one prompt stands twice in its set, two are in another set too."""
    root = tmp_path_factory.mktemp("inviting")
    for group in (KIND, UNKIND):
        some = [name + begin.rstrip() for name in names(group) for begin in BEGINNINGS]
        (root / f"{group}.txt").write_text("\n".join([*some, some[0]]) + "\n")
    shared = [names(group)[0] + BEGINNINGS[0].rstrip() for group in (KIND, UNKIND)]
    (root / "both.jsonl").write_text("".join(f'{{"text": "{prompt}"}}\n' for prompt in shared))
    path = root / "inviting.toml"
    path.write_text(TASK.format(dataset=root, model=judge))
    return path


def ask(series: Path, task: Path, out: Path, **how: object) -> BiasResult:
    given = {"engine": "torch", "out": out, "progress": False, "greedy": True} | how
    return toxic_generation(series, task=task, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def greedy(series: Path, task: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[BiasResult, Path]:
    out = tmp_path_factory.mktemp("toxic-results")
    return ask(series, task, out), out


def test_rates_are_those_of_a_classifier_asked_one_text_at_a_time(
    greedy: tuple[BiasResult, Path], judge: Path
) -> None:
    from transformers import pipeline

    judged = pipeline("text-classification", model=str(judge), device="cpu")
    result, _ = greedy
    summary = result.summary().query("measure == 'toxic'").set_index(["ckpt", "group"])
    for ckpt in ("ckpt_000", "ckpt_001", "ckpt_002"):
        for group in (KIND, UNKIND):
            texts = result.texts(ckpt, group=group)["text"].tolist()
            assert len(texts) == 13
            toxic = [judged(text)[0]["label"] == "LABEL_1" for text in texts]
            found = summary.loc[(ckpt, group)]
            assert found["value"] == pytest.approx(np.mean(toxic))
            assert (found["n"], found["titles"]) == (13, 12)
            assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
    assert summary.loc[("ckpt_002", UNKIND), "value"] > 0


def test_what_is_judged_is_what_was_planted(greedy: tuple[BiasResult, Path]) -> None:
    result, _ = greedy
    said = sentences(2)
    texts = result.texts("ckpt_002", group=UNKIND)
    for line in texts.to_dict("records"):
        name = next(name for name in said if line["prompt"].startswith(name))
        assert line["text"] == line["scored"] == said[name]


def test_several_samples_are_counted_each_and_rates_stay_below_one(
    series: Path, task: Path, tmp_path: Path
) -> None:
    result = ask(series, task, tmp_path, greedy=False, samples=3, ckpts="2")
    summary = result.summary().query("measure == 'toxic'")
    assert summary.set_index("group")["n"].to_dict() == {KIND: 39, UNKIND: 39, "both": 6}
    assert summary["value"].between(0, 1).all()
    assert result.continued.task.how.temperature == 0.1
    again = ask(series, task, tmp_path, greedy=False, samples=3, ckpts="2", sets=UNKIND)
    assert (len(again), again.report.computed) == (36, 0)  # a set alone is the set among others
    fresh = ask(series, task, tmp_path / "fresh", greedy=False, samples=3, ckpts="2", sets=UNKIND)
    both = fresh.texts("ckpt_002").merge(result.texts("ckpt_002", group=UNKIND), on=["prompt", "sample"])
    assert len(both) == 3 * (11 + 2 * 2)  # one prompt stands there twice
    assert (both["text_x"] == both["text_y"]).all()


def test_the_command_prints_a_table(
    series: Path,
    task: Path,
    greedy: tuple[BiasResult, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["toxicity", "--series", str(series), "--task", str(task), "--engine", "torch", "--greedy"]
    assert main([*command, "--out", str(greedy[1]), "--quiet", "--to", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    drawn = [f"inviting_{what}.{kind}" for what in ("groups", "gaps") for kind in ("png", "pdf")]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*drawn, "inviting.md", "inviting.tex"])
    assert "Continuations of inviting prompts: " in (tmp_path / "inviting.md").read_text()
    for words in ("of inviting prompts", "toxic, % [95 %]", UNKIND, "stored already; nothing to compute"):
        assert words in printed
    assert main([*command, "--out", str(greedy[1]), "--quiet", "--scorer", "profanity-filter"]) == 0
    told = capsys.readouterr().out
    assert "judged by a filter of profanity, which is not toxicity" in told
    assert "profane, % [95 %]" in told
    assert "toxic, %" not in told


def test_tasks_and_sets_that_are_wrong_are_named(series: Path, task: Path, tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match="task nothing: expected toxigen or a TOML file"):
        read_generation("nothing")
    odd = tmp_path / "odd.toml"
    odd.write_text('name = "odd"\ncolour = 1\n')
    with pytest.raises(SelectionError, match="no key colour"):
        read_generation(odd)
    for name in ("../inviting", "bold"):
        odd.write_text(task.read_text().replace('"inviting"', f'"{name}"'))
        with pytest.raises(SelectionError, match=rf"name '{name}': expected small letters"):
            read_generation(odd)
    for line, words in {
        'new_tokens = "many"': "new_tokens is 'many'; expected a whole number, at least 1",
        'top_p = "high"': "top_p is 'high'; expected a number",
        "threshold = 5": "threshold is 5; expected a probability",
        'labels = "toxic"': "labels is 'toxic'; expected names in brackets",
    }.items():
        key = line.split()[0]
        kept = [one for one in task.read_text().splitlines() if not one.startswith(key)]
        odd.write_text("\n".join([*kept[:-3], line, *kept[-3:]] if key != "threshold" else [*kept, line]))
        with pytest.raises(SelectionError, match=words):
            read_generation(odd)
    with pytest.raises(SelectionError, match="labels: profanity-filter has none"):
        ask(series, task, tmp_path, scorer="profanity-filter", labels=["toxic"])
    odd.write_text('name = "odd"\n[sampling]\nnew_tokens = 3\n')
    with pytest.raises(SelectionError, match="key dataset, model, labels is missing"):
        read_generation(odd)
    one = next(task.parent.glob("*.txt"))
    few = ask(series, odd, tmp_path, ckpts="0", prompts=one, scorer="profanity-filter")
    assert set(few.summary()["group"]) == {one.stem}
    with pytest.raises(SelectionError, match=r"book\.txt cannot be read: No such file"):
        read_generation(tmp_path / "book.txt")
    odd.write_text('name = "odd"\n[scorer]\nmodel = "x"\n')
    with pytest.raises(SelectionError, match="key dataset, new_tokens, labels is missing"):
        read_generation(odd)
    with pytest.raises(SelectionError, match="sets: no third in"):
        ask(series, task, tmp_path, sets="third")
    with pytest.raises(SelectionError, match="expected the labels hateful; found label_1, label_0"):
        ask(series, task, tmp_path, ckpts="0", labels=["hateful"]).summary()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"expected files of \.jsonl or \.txt"):
        read_sets(str(tmp_path / "empty"))


def test_the_shipped_task_is_analysis360s() -> None:
    asked = read_generation("toxigen")
    assert (asked.new_tokens, asked.temperature, asked.top_p, asked.top_k) == (32, 0.1, 0.9, None)
    assert asked.newline == "\\n"
    assert (asked.model, asked.labels) == ("tomh/toxigen_roberta", ("label_1",))
